//! A short-lived process that goes somewhere in the helper's stead and hands a descriptor back.
//!
//! The helper itself cannot go: what it enters it might not get out of, and its execs inherit.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::deadline::Deadline;
use super::guard::Child;
use super::idmap;
use super::namespaces;
use super::report::{FromMiddle, Report};
use super::spawn;
use crate::fault::{Fault, OrFault};
use crate::sys::{self, Forked};
use littlebox_protocol::{IdMapping, Step, bounds};

/// Runs `work` in a child that is made with `flags` (`CLONE_NEW*`, or 0) and returns the
/// descriptor that it made there.
pub fn fetch(flags: u64, work: impl FnOnce() -> Result<OwnedFd, Fault>) -> Result<OwnedFd, Fault> {
    let (ours, deputys) = Report::pair()?;
    let helper = getpid();
    let child = match spawn::fork(flags, None)? {
        Forked::Child => {
            drop(ours);
            let (message, fd) = match die_with(helper).and_then(|()| work()) {
                Ok(fd) => (FromMiddle::Forked { pid: 0 }, Some(fd)),
                // The caller names the step.
                Err(fault) => (FromMiddle::Failed(fault.of_step(Step::Checks)), None),
            };
            // What does not arrive is seen as the end of this process.
            let _ = deputys.tell_helper(&message, fd.as_ref());
            sys::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    drop(deputys);
    let heard = ours.hear_middle(Deadline::after(bounds::DEPUTY));
    child.end();
    match heard? {
        (FromMiddle::Forked { .. }, Some(fd)) => Ok(fd),
        (FromMiddle::Failed(failure), _) => Err(Fault::of_failure(failure)),
        (FromMiddle::Forked { .. }, None) => Err(Fault::refused("a descriptor got lost")),
    }
}

/// Ties this process to the life of its parent. One that waits for a file system when its helper is
/// killed would else be left behind for good.
fn die_with(helper: Pid) -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).fault("prctl(PR_SET_PDEATHSIG)")?;
    // It may have died before that. In a PID namespace of its own this process sees no parent.
    match getppid() {
        Some(parent) if parent != helper => sys::exit_now(1),
        Some(_) | None => Ok(()),
    }
}

/// A user namespace with these maps in which no process lives: for the id map of a mount, or of a
/// container that does not run.
pub fn user_namespace(uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Result<OwnedFd, Fault> {
    let (ours, childs) = Report::pair()?;
    let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let owner = idmap::owner_of(uid_map, gid_map);
    let child = match spawn::fork_owned(owner, new_user, None)? {
        Forked::Child => {
            drop(ours);
            // It is there until its maps are written and its namespace is opened, or nobody is
            // left to do that.
            let _ = childs.wait_for_go();
            sys::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    drop(childs);
    let userns = namespaces::write_id_maps(child.pid, uid_map, gid_map)
        .and_then(|()| namespaces::open_user_namespace(child.pid));
    child.end();
    userns
}

/// Does something in another namespace of this kind and comes back; for kinds in which this can be
/// done by a process with one thread. Of a PID namespace it means: as the parent of children that
/// are born there.
pub fn inside<T>(
    namespaces: &namespaces::Namespaces,
    kind: littlebox_protocol::NamespaceKind,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    let Some(given) = namespaces.given(kind) else {
        return work();
    };
    let path = format!("/proc/self/ns/{}", kind.name());
    let own =
        open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", &path)?;
    namespaces::join(kind, given)?;
    let result = work();
    namespaces::join(kind, own.as_fd())?;
    result
}

#[cfg(test)]
mod tests {
    use rustix::event::PollFlags;
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn a_deputy_that_waits_ends_with_its_helper() {
        let (read, write) = pipe().unwrap();
        // A helper's stand-in, whose deputy never comes back.
        let Forked::Parent { pid, pidfd } = sys::fork_into(0, None).unwrap() else {
            drop(read);
            let _ = fetch(0, || {
                let _ = rustix::io::write(&write, b"waits");
                std::thread::sleep(std::time::Duration::from_secs(600));
                Err(Fault::refused("it was not ended"))
            });
            sys::exit_now(0)
        };
        drop(write);
        let helper = Child { pid, pidfd };
        assert_eq!(rustix::io::read(&read, &mut [0; 8]).unwrap(), 5);
        helper.end();
        let soon = Deadline::after(std::time::Duration::from_secs(30));
        assert!(soon.wait(read.as_fd(), PollFlags::IN).unwrap());
        let end = rustix::io::read(&read, &mut [0; 8]).unwrap();
        assert_eq!(end, 0, "nobody holds the other end");
    }
}
