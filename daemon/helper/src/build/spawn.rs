//! The clone: from the helper straight into the new namespaces, or through a process in between.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::deadline::Deadline;
use super::guard::Child;
use super::namespaces::{Birth, Namespaces};
use super::report::{FromMiddle, Report};
use super::{clocks, dying, identity};
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::sys::{self, Forked};
use littlebox_protocol::{Defence, Step, StepFailure, bounds};

/// Makes the child. Returns twice, as fork does.
///
/// # Errors
///
/// What failed, and in which step.
pub fn spawn(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> Result<Forked, StepFailure> {
    match namespaces.birth() {
        Birth::Middle => return through_middle(namespaces, cgroup, deadline),
        Birth::Outside => return outside(namespaces, cgroup, deadline),
        Birth::Inside => {}
    }
    namespaces
        .enter_pid_for_children()
        .map_err(|fault| fault.of_step(Step::JoinNamespaces))?;
    let flags = namespaces.clone_flags();
    fork_owned(namespaces.owner(), flags, cgroup).map_err(|fault| fault.of_step(Step::Clone))
}

/// One clone, of a new user namespace that belongs to these ids (see [`identity::appear_as`]).
pub fn fork_owned(
    owner: Option<(u32, u32)>,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Forked, Fault> {
    let Some(owner) = owner.filter(|_| stands(Defence::OwnAccount)) else {
        return fork(flags, cgroup);
    };
    let own = identity::appear_as(owner)?;
    let forked = fork(flags, cgroup);
    if !matches!(forked, Ok(Forked::Child)) {
        own.take_back()?;
    }
    forked
}

/// One clone.
pub fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, Fault> {
    sys::fork_into(flags, cgroup)
        .fault("clone3")
        .map_err(explain)
}

fn explain(fault: Fault) -> Fault {
    let detail = match fault.errno {
        libc::ENOSPC => {
            "a limit on the number or depth of namespaces is reached (user.max_*_namespaces)"
        }
        libc::EAGAIN => "a limit on the number of processes is reached",
        libc::ENOMEM => "no memory, or the PID namespace has ended",
        libc::EUSERS => "user namespaces are nested too deeply",
        _ => return fault,
    };
    fault.because(detail)
}

/// The child itself joins what was given and makes what is new, all but the PID namespace, which
/// only a child of it will be in ([`super::program::LastFork`]): others live there, and a process
/// that is seen there must not lead to the host.
fn outside(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> Result<Forked, StepFailure> {
    let (ours, childs) = Report::pair().map_err(|fault| fault.of_step(Step::Clone))?;
    let forked = fork(0, cgroup).map_err(|fault| fault.of_step(Step::Clone))?;
    let Forked::Parent { pid, pidfd } = forked else {
        drop(ours);
        let entered = namespaces
            .join_all()
            .map_err(|fault| fault.of_step(Step::JoinNamespaces))
            .and_then(|()| make_own(namespaces).map_err(|fault| fault.of_step(Step::Clone)));
        let (message, failed) = match entered {
            Ok(()) => (FromMiddle::Forked { pid: 0 }, false),
            Err(failure) => (FromMiddle::Failed(failure), true),
        };
        if childs.tell_helper(&message, None).is_err() || failed {
            sys::exit_now(0)
        }
        return Ok(Forked::Child);
    };
    drop(childs);
    let child = Child { pid, pidfd };
    let heard = match ours.hear_middle(deadline) {
        Ok((FromMiddle::Forked { .. }, _)) => Ok(()),
        Ok((FromMiddle::Failed(failure), _)) => Err(failure),
        Err(fault) => Err(fault.of_step(Step::Clone)),
    };
    let ((), Child { pid, pidfd }) = child.or_end(heard)?;
    Ok(Forked::Parent { pid, pidfd })
}

/// As a clone with the same flags.
fn make_own(namespaces: &Namespaces) -> Result<(), Fault> {
    if let Some(owner) = namespaces.owner() {
        identity::appear_as(owner)?;
    }
    sys::unshare(namespaces.clone_flags())
        .fault("unshare")
        .map_err(explain)?;
    if namespaces.time_is_made_beside() {
        clocks::enter_new()?;
    }
    Ok(())
}

/// A namespace that belongs to the host's user namespace can only be joined from there, and what
/// `clone3` makes belongs to the user namespace it is called in. So a process in between joins
/// what was given, the user namespace last, and clones the child as its sibling (`CLONE_PARENT`).
fn through_middle(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> Result<Forked, StepFailure> {
    let (ours, middles) = Report::pair().map_err(|fault| fault.of_step(Step::Clone))?;
    let middle = match fork(0, None).map_err(|fault| fault.of_step(Step::Clone))? {
        Forked::Child => {
            drop(ours);
            return as_middle(namespaces, cgroup, &middles);
        }
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    drop(middles);
    let heard = ours.hear_middle(deadline);
    if heard.is_err() {
        // Its child is known for certain only when it is dead: that may be its last word.
        middle.kill();
        dying::ends_within(middle.pidfd(), bounds::REAP);
        if let Ok((FromMiddle::Forked { pid }, Some(pidfd))) = ours.hear_middle(Deadline::now()) {
            Child { pid, pidfd }.end();
        }
    }
    // It has said what it had to say, or never will.
    middle.end();
    match heard.map_err(|fault| fault.of_step(Step::Clone))? {
        (FromMiddle::Forked { pid }, Some(pidfd)) => Ok(Forked::Parent { pid, pidfd }),
        (FromMiddle::Failed(failure), _) => Err(failure),
        (FromMiddle::Forked { .. }, None) => {
            Err(Fault::refused("the child's pidfd got lost").of_step(Step::Clone))
        }
    }
}

/// Runs in the process in between; only its child returns from here.
fn as_middle(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    report: &Report,
) -> Result<Forked, StepFailure> {
    let flags = namespaces.clone_flags() | u64::from(libc::CLONE_PARENT.unsigned_abs());
    let result = namespaces
        .join_all()
        .map_err(|fault| fault.of_step(Step::JoinNamespaces))
        .and_then(|()| {
            fork_owned(namespaces.owner(), flags, cgroup)
                .map_err(|fault| fault.of_step(Step::Clone))
        });
    let (message, pidfd): (FromMiddle, Option<OwnedFd>) = match result {
        Ok(Forked::Child) => return Ok(Forked::Child),
        Ok(Forked::Parent { pid, pidfd }) => (FromMiddle::Forked { pid }, Some(pidfd)),
        Err(failure) => (FromMiddle::Failed(failure), None),
    };
    if report.tell_helper(&message, pidfd.as_ref()).is_err()
        && let Some(child) = &pidfd
    {
        // Nobody else knows of it.
        let _ = sys::pidfd_send_signal(child.as_fd(), libc::SIGKILL);
    }
    sys::exit_now(0)
}
