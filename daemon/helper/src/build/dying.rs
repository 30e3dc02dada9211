//! Children that were killed and are not dead yet.
//!
//! A process in an uninterruptible wait (a dead NFS server, a FUSE file system that does not
//! answer) or in a frozen v1 cgroup dies when its kernel lets it. Nothing waits for that longer than
//! [`PATIENCE`]: the supervisor's loop reaps it whenever it comes.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::deadline::Deadline;

/// How long the end of a killed process is waited for on the spot.
pub const PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    /// Only the thread that made a child waits for it, and a helper has one.
    static DYING: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Reaps a child that was killed or is about to end, now or later.
pub fn bury(pidfd: OwnedFd) {
    bury_within(pidfd, PATIENCE);
}

/// As [`bury`], with so much time to spend here.
pub fn bury_within(pidfd: OwnedFd, patience: Duration) {
    if !ends_within(pidfd.as_fd(), patience) || !reap(pidfd.as_fd()) {
        bury_later(pidfd);
    }
}

/// As [`bury`], without waiting at all.
pub fn bury_later(pidfd: OwnedFd) {
    DYING.with_borrow_mut(|dying| dying.push(pidfd));
}

/// Those that are to be reaped when their pidfd is readable. They are the caller's from now on.
pub fn take() -> Vec<OwnedFd> {
    DYING.take()
}

/// Whether a process ends in that time. It is not reaped.
pub fn ends_within(pidfd: BorrowedFd<'_>, patience: Duration) -> bool {
    Deadline::after(patience)
        .wait(pidfd, PollFlags::IN)
        .unwrap_or(false)
}

/// Reaps a child if it has ended; `false`: it has not.
pub fn reap(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options)) {
        Ok(ended) => ended.is_some(),
        // ECHILD: somebody has reaped it, or it is not ours.
        Err(_) => true,
    }
}
