//! `memory`.

use littlebox_protocol::ResourcePlan;
use oci_spec::runtime::LinuxMemory;

use super::{check, finite, refuse, unlimited};
use crate::PlanError;

/// `kernel` and `useHierarchy` are obsolete and may be ignored (config-linux.md).
pub(super) fn plan(memory: &LinuxMemory, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    plan.memory = finite(memory.limit()).filter(|n| *n != 0);
    plan.memory_and_swap = memory.swap().filter(|n| *n != 0).map(unlimited);
    plan.memory_reservation = finite(memory.reservation()).filter(|n| *n != 0);
    plan.memory_kernel_tcp = finite(memory.kernel_tcp()).filter(|n| *n != 0);
    plan.memory_swappiness = memory.swappiness();
    // Podman and containerd write `false` on every host: it is what is so anyway.
    plan.memory_disable_oom_killer = memory.disable_oom_killer().filter(|off| *off);
    plan.memory_check_before_update = memory.check_before_update() == Some(true);
    check(
        plan.memory_swappiness.is_none_or(|n| n <= 100),
        "memory/swappiness",
        "swappiness is 0 to 100",
    )
}

/// What memory limits must be to each other, wherever they came from.
pub(super) fn check_pair(plan: &ResourcePlan) -> Result<(), PlanError> {
    match (plan.memory, plan.memory_and_swap) {
        (None, Some(swap)) if swap != u64::MAX => refuse(
            "memory/swap",
            "a limit of memory and swap together needs a limit of memory",
        ),
        (Some(limit), Some(swap)) if swap < limit => refuse(
            "memory/swap",
            "memory and swap together cannot be less than the memory",
        ),
        _ => Ok(()),
    }
}
