//! The zygote: a small single-threaded process whose only work is to fork helpers.
//!
//! It was executed once, from a sealed memfd; a fork of it is a helper in a fraction of the time
//! that an execution takes, and shares its pages. It ends when the daemon closes the control
//! socket; the helpers go on.
//!
//! Signals end neither: the zygote goes with its daemon, a helper with its container. A machine that
//! shuts down sends SIGTERM to every process (systemd-shutdown(8)), and a helper that heeded it would
//! be gone before it had recorded how its container ended. So every signal is blocked, and not
//! ignored, which an execution would pass on to hooks and programs (execve(2)).

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::sys::{self, Forked};
use littlebox_protocol::channel::{self, ChannelError, Received, Wait};
use littlebox_protocol::{PROTOCOL_VERSION, ProcessExit, ZygoteEvent, ZygoteRequest};

/// What the calling process is after [`run`] returned.
#[derive(Debug)]
pub enum Role {
    /// The zygote, whose daemon is gone: it ends.
    Finished,
    /// A helper just forked; its first connection.
    Helper(OwnedFd),
}

/// Why the zygote had to give up.
#[derive(Debug)]
pub enum ZygoteError {
    /// The control socket failed.
    Channel(ChannelError),
    /// A system call failed.
    Io(&'static str, Errno),
}

impl ZygoteError {
    /// For an answer; EIO where no system call failed.
    fn errno(&self) -> Errno {
        match self {
            ZygoteError::Channel(ChannelError::Io { errno, .. }) | ZygoteError::Io(_, errno) => {
                *errno
            }
            ZygoteError::Channel(_) => Errno::IO,
        }
    }

    /// Whether the daemon went away while it was to be told something.
    fn is_hang_up(&self) -> bool {
        match self {
            ZygoteError::Channel(error) => error.is_hang_up(),
            ZygoteError::Io(..) => false,
        }
    }
}

impl fmt::Display for ZygoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZygoteError::Channel(error) => write!(f, "control socket: {error}"),
            ZygoteError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ZygoteError {}

impl From<ChannelError> for ZygoteError {
    fn from(error: ChannelError) -> Self {
        ZygoteError::Channel(error)
    }
}

/// The zygote's state. Everything in it is closed in a forked helper, which drops it.
struct Zygote {
    control: OwnedFd,
    /// Readable while a child waits to be reaped.
    child_signals: OwnedFd,
}

/// Serves the control socket until it is closed. Returns once more in every helper.
///
/// # Errors
/// The control socket is broken, or the process cannot do its work at all.
pub fn run(control: OwnedFd) -> Result<Role, ZygoteError> {
    let io = |what| move |errno| ZygoteError::Io(what, errno);
    let zygote = Zygote {
        control,
        child_signals: sys::child_signals().map_err(io("signalfd"))?,
    };
    zygote.tell(
        &ZygoteEvent::Ready {
            version: PROTOCOL_VERSION,
            pid: own_pid(),
        },
        Vec::new(),
    )?;
    match zygote.serve() {
        Ok(None) => Ok(Role::Finished),
        Err(error) if error.is_hang_up() => Ok(Role::Finished),
        Err(error) => Err(error),
        Ok(Some(connection)) => {
            drop(zygote);
            Ok(Role::Helper(connection))
        }
    }
}

impl Zygote {
    /// `None` when the control socket is closed; in a helper, its connection.
    fn serve(&self) -> Result<Option<OwnedFd>, ZygoteError> {
        loop {
            let (requests, signals) = self.wait()?;
            if signals {
                self.reap()?;
            }
            if !requests {
                continue;
            }
            match channel::receive(self.control.as_fd(), Wait::DontWait)? {
                Received::Closed => return Ok(None),
                Received::NothingYet => {}
                Received::Message(ZygoteRequest::Fork, fds) => {
                    if let Some(connection) = self.fork(fds)? {
                        return Ok(Some(connection));
                    }
                }
            }
        }
    }

    /// Waits for a request or the end of a helper; tells which of them came.
    fn wait(&self) -> Result<(bool, bool), ZygoteError> {
        let mut fds = [
            PollFd::new(&self.control, PollFlags::IN),
            PollFd::new(&self.child_signals, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None)).map_err(|errno| ZygoteError::Io("poll", errno))?;
        let [control, signals] = fds.map(|fd| !fd.revents().is_empty());
        Ok((control, signals))
    }

    /// Forks one helper. In the helper: its connection.
    fn fork(&self, fds: Vec<OwnedFd>) -> Result<Option<OwnedFd>, ZygoteError> {
        let Some(connection) = fds.into_iter().next() else {
            let errno = Errno::INVAL.raw_os_error();
            self.tell(&ZygoteEvent::ForkFailed { errno }, Vec::new())?;
            return Ok(None);
        };
        match sys::fork_into(0, None) {
            Ok(Forked::Child) => return Ok(Some(connection)),
            Ok(Forked::Parent { pid, pidfd }) => {
                // Closed before the daemon hears of the helper: its end of the connection then
                // ends with the helper, not with us.
                drop(connection);
                self.tell_forked(pid, pidfd)?;
            }
            Err(errno) => {
                let errno = errno.raw_os_error();
                self.tell(&ZygoteEvent::ForkFailed { errno }, Vec::new())?;
            }
        }
        Ok(None)
    }

    /// Tells of a new helper. One that the daemon cannot be told of is ended, or the daemon would
    /// wait for the answer for ever, and nobody would know of the helper.
    fn tell_forked(&self, pid: u32, pidfd: OwnedFd) -> Result<(), ZygoteError> {
        let error = match self.tell(&ZygoteEvent::Forked { pid }, vec![pidfd]) {
            Err(error) if !error.is_hang_up() => error,
            // A daemon that is gone: the helper sees that itself.
            told => return told,
        };
        // It has not been reaped, so the number is still its own.
        let _ = sys::kill(pid, libc::SIGKILL);
        let errno = error.errno().raw_os_error();
        self.tell(&ZygoteEvent::ForkFailed { errno }, Vec::new())
    }

    /// Reaps every helper that has ended. All children of this process are helpers.
    fn reap(&self) -> Result<(), ZygoteError> {
        // The count of pending signals says nothing (they merge): only the readiness is cleared.
        let mut info = [0u8; 128];
        let _ = rustix::io::read(&self.child_signals, &mut info);
        while let Some((pid, status)) = next_dead_child()? {
            let pid = pid.as_raw_pid().cast_unsigned();
            self.tell(
                &ZygoteEvent::Reaped {
                    pid,
                    status: process_exit(status),
                },
                Vec::new(),
            )?;
        }
        Ok(())
    }

    fn tell(&self, event: &ZygoteEvent, fds: Vec<OwnedFd>) -> Result<(), ZygoteError> {
        Ok(channel::send(self.control.as_fd(), event, fds)?)
    }
}

fn next_dead_child() -> Result<Option<(Pid, WaitStatus)>, ZygoteError> {
    match retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG)) {
        Ok(child) => Ok(child),
        Err(Errno::CHILD) => Ok(None),
        Err(errno) => Err(ZygoteError::Io("wait4", errno)),
    }
}

fn process_exit(status: WaitStatus) -> ProcessExit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ProcessExit::Code(code),
        (None, signal) => ProcessExit::Signal(signal.unwrap_or(0)),
    }
}

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_pid().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_helper_that_the_daemon_cannot_be_told_of_is_ended() {
        let mut helper = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_child(&helper);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let nowhere = || OwnedFd::from(File::open("/dev/null").unwrap());
        let zygote = Zygote {
            control: nowhere(),
            child_signals: nowhere(),
        };
        assert!(zygote.tell_forked(helper.id(), pidfd).is_err());
        assert_eq!(helper.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
