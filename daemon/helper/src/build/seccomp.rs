//! The seccomp filter: loaded last, so that a profile need not allow what a start takes.
//!
//! Between the filter and execve(2) stands one call at most: without no_new_privs loading takes
//! CAP_SYS_ADMIN, which is kept for it (see [`identity::restrict`]) and given back after it, so
//! there a profile must allow capset(2). Nothing else is called in between: no clock is read and no
//! memory allocated, because a strict profile may kill for it, or leave it to an agent that is not
//! there yet (see [`super::agent`]).
//!
//! [`identity::restrict`]: super::identity::restrict

use std::sync::Arc;

use rustix::io::Errno;

use super::agent::Handover;
use super::identity;
use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::{BpfInstruction, ProcessPlan, SchedulingPlan};

/// `SECCOMP_FILTER_FLAG_TSYNC`: all threads, also that which hands the listener over.
const TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`; EINVAL without a listener.
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Whether CAP_SYS_ADMIN must be there when the filter is loaded (seccomp(2), `EACCES`).
pub fn needs_privilege(process: &ProcessPlan) -> bool {
    process.seccomp.is_some() && !process.no_new_privileges
}

/// Loads the filter of a plan, if it has one, and leaves what it took. With a handover the agent has the
/// filter's listener when this returns.
pub fn load(process: &ProcessPlan, handover: Option<Arc<Handover>>) -> Result<(), Fault> {
    let Some(plan) = &process.seccomp else {
        return Ok(());
    };
    let (program, flags) = (&plan.program.0, plan.flags);
    match handover {
        Some(handover) => {
            let listener = sys::load_seccomp_filter_with_listener(program, flags & !TSYNC);
            let listener = listener.map_err(|errno| explain(errno, flags))?;
            handover.give(listener, is_realtime(&process.scheduling));
        }
        None => load_without_listener(program, flags)?,
    }
    give_back(process)
}

/// Loads the filter of a plan, if it has one, in a process that has no agent: calls that are left to one
/// fail with ENOSYS.
pub fn load_in_init(process: &ProcessPlan) -> Result<(), Fault> {
    let Some(plan) = &process.seccomp else {
        return Ok(());
    };
    load_without_listener(&plan.program.0, plan.flags)?;
    give_back(process)
}

fn load_without_listener(program: &[BpfInstruction], flags: u32) -> Result<(), Fault> {
    sys::load_seccomp_filter(program, flags & !WAIT_KILLABLE_RECV)
        .map_err(|errno| explain(errno, flags))
}

fn explain(errno: Errno, flags: u32) -> Fault {
    let fault = Fault::of("seccomp", errno);
    match errno {
        Errno::ACCESS => fault.because(
            "without no_new_privs a filter needs CAP_SYS_ADMIN, which this host does not grant",
        ),
        Errno::BUSY => fault.because(
            "littlebox itself runs under a filter with a listener, and the kernel allows one: SCMP_ACT_NOTIFY cannot be used here",
        ),
        Errno::INVAL if flags & WAIT_KILLABLE_RECV != 0 => {
            fault.because("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19")
        }
        _ => fault,
    }
}

/// Whether other threads of the process wait for this one to let go of the CPU (sched(7)).
fn is_realtime(scheduling: &SchedulingPlan) -> bool {
    let policy = scheduling
        .scheduler
        .as_ref()
        .map(|s| s.policy.cast_signed());
    matches!(
        policy,
        Some(libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE)
    )
}

fn give_back(process: &ProcessPlan) -> Result<(), Fault> {
    if !needs_privilege(process) {
        return Ok(());
    }
    identity::give_back(&process.capabilities)
        .fault("capset")
        .map_err(|fault| fault.because("without no_new_privs a seccomp profile must allow capset"))
}
