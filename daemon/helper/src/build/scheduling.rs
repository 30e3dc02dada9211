//! How a program is scheduled: its CPU scheduler, I/O priority, CPUs and execution domain.

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::SchedulingPlan;

/// `SCHED_FLAG_RESET_ON_FORK` of `linux/sched.h`.
const RESET_ON_FORK: u64 = 1;

/// Sets all but the CPUs and the scheduler. Done while the process still has every capability: real-time
/// classes take CAP_SYS_NICE.
pub fn set(plan: &SchedulingPlan) -> Result<(), Fault> {
    if let Some(persona) = plan.personality {
        sys::set_personality(persona).fault_at("personality", format!("{persona:#x}"))?;
    }
    if let Some(policy) = &plan.memory_policy {
        sys::set_memory_policy(policy.mode, &policy.nodes)
            .fault_at("set_mempolicy", format!("{policy:?}"))
            .map_err(|fault| match fault.is(Errno::INVAL) {
                true => fault.because(
                    "the kernel does not take this mode with these flags and nodes; nodes must have memory and be in the cpuset",
                ),
                false => fault,
            })?;
    }
    if let Some(io) = plan.io_priority {
        sys::set_io_priority(io.class, io.level)
            .fault_at(
                "ioprio_set",
                format!("class {} level {}", io.class, io.level),
            )
            .map_err(explain)?;
    }
    Ok(())
}

/// Sets the scheduler, of the process that becomes the program: a child need not have its parent's, and
/// with SCHED_DEADLINE there is none (sched(7), "Resetting scheduling policy for child processes").
pub fn set_scheduler(plan: &SchedulingPlan) -> Result<(), Fault> {
    let Some(scheduler) = &plan.scheduler else {
        return Ok(());
    };
    sys::set_scheduler(&sys::SchedAttr {
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime_ns,
        deadline: scheduler.deadline_ns,
        period: scheduler.period_ns,
    })
    .fault("sched_setattr")
    .map_err(explain)
}

/// Whether the program's process can no longer fork or start a thread once its scheduler is set
/// (sched(7), "SCHED_DEADLINE": EAGAIN).
pub fn forbids_forks(plan: &SchedulingPlan) -> bool {
    plan.scheduler.as_ref().is_some_and(|scheduler| {
        scheduler.policy.cast_signed() == libc::SCHED_DEADLINE
            && scheduler.flags & RESET_ON_FORK == 0
    })
}

/// Whether [`set`] has something to do.
pub fn is_asked(plan: &SchedulingPlan) -> bool {
    plan.personality.is_some() || plan.memory_policy.is_some() || plan.io_priority.is_some()
}

/// Restricts this process to these CPUs. An empty list means all that its cgroup's cpuset has: what
/// the caller was restricted to is not the container's (sched_setaffinity(2) takes the CPUs of the
/// cpuset alone).
pub fn set_cpus(cpus: &[u32]) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    if cpus.is_empty() {
        (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    }
    for cpu in cpus {
        let index = usize::try_from(*cpu).unwrap_or(usize::MAX);
        if index >= CpuSet::MAX_CPU {
            return Err(Fault::refused(format!("there is no CPU {cpu}")));
        }
        set.set(index);
    }
    sched_setaffinity(None, &set)
        .fault_at("sched_setaffinity", format!("{cpus:?}"))
        .map_err(|fault| {
            if fault.is(Errno::INVAL) {
                fault.because("none of these CPUs is online and in the container's cpuset")
            } else {
                fault
            }
        })
}

fn explain(fault: Fault) -> Fault {
    if fault.is(Errno::PERM) {
        return fault
            .because("this takes CAP_SYS_NICE on the host, which a user namespace does not give");
    }
    fault
}
