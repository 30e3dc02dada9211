//! How long something may take that a container can hold up.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::fault::Fault;

/// A point in time, with how far away it was at first; or none.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    end: Option<Instant>,
    limit: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Deadline {
        Deadline {
            // A time that the clock cannot express is no limit.
            end: Instant::now().checked_add(limit),
            limit,
        }
    }

    /// What is not ready by now is too late.
    pub fn now() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    /// So many milliseconds from now; `None`: never.
    pub fn after_ms(limit_ms: Option<u64>) -> Deadline {
        match limit_ms {
            Some(limit) => Deadline::after(Duration::from_millis(limit)),
            None => Deadline {
                end: None,
                limit: Duration::MAX,
            },
        }
    }

    /// When it is; `None`: never.
    pub fn end(self) -> Option<Instant> {
        self.end
    }

    /// How far away it is now; `None`: for ever.
    pub fn left(self) -> Option<Duration> {
        self.end
            .map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// The limit in seconds, for messages: `60 s`.
    pub fn limit(self) -> String {
        format!("{} s", self.limit.as_secs_f64())
    }

    /// Waits until a descriptor is ready for `events` or has hung up; `false`: the time is up.
    pub fn wait(self, fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool, Fault> {
        loop {
            let left = self.left();
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::from_borrowed_fd(fd, events)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Fault::of("poll", errno)),
            }
        }
    }
}
