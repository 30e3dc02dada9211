//! Scheduling: sched_setattr(2), ioprio_set(2), personality(2), set_mempolicy(2).

use rustix::io::{Errno, Result};

use super::check;

/// `struct sched_attr` without its size, up to the field `sched_period` (kernel 3.14).
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedAttr {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

#[repr(C)]
struct RawSchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the scheduling policy of this process.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    let raw = RawSchedAttr {
        size: 48,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    };
    // SAFETY: `raw` has the layout and the size of version 0 of sched_attr and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0u32) }).map(drop)
}

/// Sets the I/O priority of this process: a class (1 real time, 2 best effort, 3 idle) and a level
/// in it, 0 to 7.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: ioprio_set takes plain numbers; 0 is this process.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the execution domain of this process.
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: personality takes a plain number.
    check(unsafe { libc::personality(persona.into()) }.into()).map(drop)
}

/// Sets the NUMA memory policy of this process: `MPOL_*` with its flags, and the numbers of the nodes.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    const BITS: u32 = u64::BITS;
    let Some(last) = nodes.iter().max() else {
        let (none, no_bits) = (std::ptr::null::<u64>(), 0u64);
        // SAFETY: without bits the kernel reads no mask.
        return check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, none, no_bits) })
            .map(drop);
    };
    let words = usize::try_from(last / BITS).map_err(|_| Errno::INVAL)? + 1;
    let mut mask = vec![0u64; words];
    for node in nodes {
        // Not above `last`, so within the mask.
        mask[usize::try_from(node / BITS).map_err(|_| Errno::INVAL)?] |= 1 << (node % BITS);
    }
    // The kernel uses maxnode - 1 bits (set_mempolicy(2), "BUGS").
    let bits = words as u64 * u64::from(BITS) + 1;
    // SAFETY: the mask has `bits - 1` bits, outlives the call, and is only read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) }).map(drop)
}
