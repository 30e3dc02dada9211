//! Children that were killed and are not dead yet.
//!
//! A process in an uninterruptible wait (a dead NFS server, a FUSE file system that does not
//! answer) or in a frozen v1 cgroup dies when its kernel lets it. Nothing waits for that longer than
//! [`bounds::REAP`], and a supervisor hardly at all: its loop reaps the process whenever that comes.

use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::deadline::Deadline;
use super::guard::Child;
use super::report::Report;
use super::succession;
use littlebox_protocol::bounds;

thread_local! {
    /// Only the thread that made a child waits for it, and a helper has one.
    static DYING: RefCell<Vec<Dying>> = const { RefCell::new(Vec::new()) };
    static PATIENCE: Cell<Duration> = const { Cell::new(bounds::REAP) };
}

/// How long a loop waits for a process that is about to end: nearly all have ended by then.
const PATIENCE_OF_LOOP: Duration = Duration::from_millis(20);

/// From now on a loop reaps what is given by [`take`].
pub fn leave_to_loop() {
    PATIENCE.set(PATIENCE_OF_LOOP);
}

/// How long to wait for a process that is about to exit.
pub fn patience() -> Duration {
    PATIENCE.get()
}

/// A child that was killed.
#[derive(Debug)]
pub struct Dying {
    child: Child,
    /// Of one that was on its way, and may have let another go on in its place.
    report: Option<Report>,
}

impl Dying {
    /// Readable when it is dead.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// Reaps it if it is dead; `false`: it is not. Who went on in its place is known only now: that
    /// one is killed, and dying.
    pub fn reap(&mut self) -> bool {
        if !ends_within(self.pidfd(), Duration::ZERO) {
            return false;
        }
        if let Some(report) = self.report.take() {
            let told = report.drain().ok().and_then(|heard| heard.forked);
            if let Some(successor) = told.or_else(|| succession::untold(&self.child)) {
                successor.kill();
                bury_later(successor);
            }
        }
        reap(self.pidfd())
    }
}

/// Reaps a child that was killed or is about to end, now or later.
pub fn bury(child: Child) {
    if !ends_within(child.pidfd(), patience()) || !reap(child.pidfd()) {
        bury_later(child);
    }
}

/// As [`bury`], without waiting at all.
pub fn bury_later(child: Child) {
    let report = None;
    DYING.with_borrow_mut(|dying| dying.push(Dying { child, report }));
}

/// Kills a child that has not reached its program, and its successor: the given one, one that a last
/// message in the report names, or one that the child died too early to report. Does not wait.
pub fn give_up(child: Child, successor: Option<Child>, report: Report) {
    child.kill();
    if let Some(successor) = successor {
        successor.kill();
        bury_later(successor);
    }
    let report = Some(report);
    DYING.with_borrow_mut(|dying| dying.push(Dying { child, report }));
}

/// Those that are to be reaped when their pidfd is readable. They are the caller's from now on.
pub fn take() -> Vec<Dying> {
    DYING.take()
}

/// Reaps those that die in that time, for who has no loop to do it.
pub fn wait(patience: Duration) {
    let until = Instant::now() + patience;
    while let Some(mut next) = DYING.with_borrow_mut(Vec::pop) {
        let left = until.saturating_duration_since(Instant::now());
        if !ends_within(next.pidfd(), left) || !next.reap() {
            return DYING.with_borrow_mut(|dying| dying.push(next));
        }
    }
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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_loop_does_not_wait_for_children_that_do_not_die() {
        leave_to_loop();
        let mut living = Vec::new();
        let begun = Instant::now();
        for _ in 0..8 {
            let child = Command::new("sleep").arg("100").spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            let pid = child.id();
            bury(Child { pid, pidfd });
            living.push(child);
        }
        assert!(begun.elapsed() < bounds::REAP);
        assert_eq!(take().len(), living.len());
        for mut child in living {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
