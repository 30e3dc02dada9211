//! The undo of what the helper has made: it happens unless somebody keeps it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{dying, view};
use crate::cgroup::Cgroup;
use crate::sys;

/// A cgroup that is ended and removed with everything in it.
#[derive(Debug)]
pub struct CgroupGuard {
    cgroup: Cgroup,
    kept: bool,
}

impl CgroupGuard {
    /// Guards it.
    pub fn new(cgroup: Cgroup) -> CgroupGuard {
        CgroupGuard {
            cgroup,
            kept: false,
        }
    }

    /// Looks at it.
    pub fn get(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Nothing is undone.
    pub fn keep(mut self) -> Cgroup {
        self.kept = true;
        std::mem::take(&mut self.cgroup)
    }
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if !self.kept {
            // The failure that brought us here is the one to tell; the daemon sweeps at start.
            let _ = self.cgroup.kill_all();
            let _ = self.cgroup.remove();
        }
    }
}

/// The child, until it is handed to the caller or ended.
#[derive(Debug)]
pub struct Child {
    /// Its PID as the helper sees it.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl Child {
    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Hands over the result of building it, or kills and reaps it when there is none.
    pub fn or_end<T, E>(self, built: Result<T, E>) -> Result<(T, Child), E> {
        match built {
            Ok(built) => Ok((built, self)),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// Sends SIGKILL. It may have ended by itself: then there is only the reaping.
    pub fn kill(&self) {
        let _ = sys::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
    }

    /// Ends and reaps a child whose work is done.
    pub fn end(self) {
        self.kill();
        self.reap();
    }

    /// Reaps a process that was killed, or has handed its work to another and is about to end.
    pub fn reap(self) {
        dying::bury(self);
    }

    /// How it ended, in words; waits a little for the end and leaves the reaping to
    /// [`Child::or_end`].
    pub fn how_it_ended(&self) -> String {
        dying::ends_within(self.pidfd(), dying::patience());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd()), options));
        let status = status.ok().flatten();
        match status.map(|status| (status.exit_status(), status.terminating_signal())) {
            Some((Some(code), _)) => format!("it returned {code}"),
            Some((None, Some(signal))) => format!("signal {signal} killed it"),
            Some((None, None)) | None => "nobody knows how".to_owned(),
        }
    }

    /// Why it may be that it gets no further, as far as the kernel shows
    /// (proc_pid_stat(5), "state").
    pub fn what_holds_it(&self, cgroup: &Cgroup) -> &'static str {
        if cgroup.is_frozen().unwrap_or(false) {
            return "its control group is frozen";
        }
        match view::state(self.pid) {
            Some('T' | 't') => "a signal has stopped its process",
            Some('D') => "its process waits for a file system or a device that does not answer",
            Some('Z' | 'X') => "its process has ended",
            Some(_) | None => {
                "its process still waits or works: look at its file systems, and at leases on the \
                 program's file"
            }
        }
    }
}
