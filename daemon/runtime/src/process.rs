//! A container's process, by its PID and the time it started: a PID that was given to another
//! process is never taken for it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use littlebox_helper::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its PID in the PID namespace of the caller.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl Process {
    /// Whether it still runs; one that only waits to be reaped does not.
    ///
    /// # Errors
    /// The kernel cannot be asked (out of descriptors, out of memory): nothing is known.
    pub fn is_alive(&self) -> rustix::io::Result<bool> {
        let stat = match fs::read(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => stat,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    // It has ended, maybe between opening and reading (proc(5)).
                    Some(Errno::NOENT | Errno::SRCH) => Ok(false),
                    errno => Err(errno.unwrap_or(Errno::IO)),
                };
            }
        };
        let stat = String::from_utf8_lossy(&stat);
        // The second field is the program's name, in parentheses, and may contain anything.
        let (_, rest) = stat.rsplit_once(") ").ok_or(Errno::IO)?;
        let mut fields = rest.split(' ');
        let state = fields.next().unwrap_or("X");
        let start_time = fields.nth(18).and_then(|field| field.parse().ok());
        Ok(!matches!(state, "Z" | "X" | "x") && start_time == Some(self.start_time))
    }

    /// Its pidfd. The process is the recorded one: it was alive after the descriptor was opened.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        if self.is_alive()? {
            Ok(pidfd)
        } else {
            Err(Errno::SRCH)
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, signal: i32) -> rustix::io::Result<()> {
        sys::pidfd_send_signal(self.open()?.as_fd(), signal)
    }
}

/// Waits until a process has ended, at most this long; tells whether it has.
///
/// # Errors
/// It cannot be waited for.
pub fn wait_for_end(pidfd: &OwnedFd, at_most: Duration) -> rustix::io::Result<bool> {
    let timeout = Timespec::try_from(at_most).ok();
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, timeout.as_ref())).map(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Process {
        let pid = std::process::id();
        let start_time = littlebox_helper::build::start_time(pid).expect("this process runs");
        Process { pid, start_time }
    }

    #[test]
    fn a_pid_that_was_given_away_is_not_the_process() {
        assert_eq!(own().is_alive(), Ok(true));
        own().signal(0).expect("this process can be asked");
        let other = Process {
            start_time: own().start_time + 1,
            ..own()
        };
        assert_eq!(other.is_alive(), Ok(false));
        assert_eq!(other.signal(0), Err(Errno::SRCH));
    }
}
