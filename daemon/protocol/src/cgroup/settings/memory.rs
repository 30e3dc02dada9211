//! Memory.

use super::{Inexpressible, Setting, max_or, minus_one_or, refuse, set};
use crate::ResourcePlan;

pub(super) fn settings(
    plan: &ResourcePlan,
    unified: bool,
    all: &mut Vec<Setting>,
) -> Result<(), Inexpressible> {
    if unified {
        v2(plan, all)
    } else {
        v1(plan, all)
    }
}

fn v2(plan: &ResourcePlan, all: &mut Vec<Setting>) -> Result<(), Inexpressible> {
    refuse(
        plan.memory_swappiness.is_some(),
        "memory_swappiness needs cgroup v1",
    )?;
    refuse(
        plan.memory_disable_oom_killer == Some(true),
        "memory.disableOOMKiller needs cgroup v1",
    )?;
    refuse(
        plan.memory_kernel_tcp.is_some(),
        "memory.kernelTCP needs cgroup v1",
    )?;
    let mut push = |field, file, value| all.extend(set("memory", field, file, value));
    push("memory", "memory.max", plan.memory.map(max_or));
    let swap = plan
        .memory_and_swap
        .map(|total| swap_of(total, plan.memory));
    push("memory_swap", "memory.swap.max", swap);
    let low = plan.memory_reservation.map(|bytes| {
        // No reservation is nothing kept, not everything.
        let bytes = if bytes == u64::MAX { 0 } else { bytes };
        bytes.to_string()
    });
    push("memory_reservation", "memory.low", low);
    push("memory_high", "memory.high", plan.memory_high.map(max_or));
    Ok(())
}

/// v2 limits swap alone, the OCI spec memory and swap together.
fn swap_of(total: u64, memory: Option<u64>) -> String {
    if total == u64::MAX {
        return max_or(total);
    }
    total.saturating_sub(memory.unwrap_or(0)).to_string()
}

fn v1(plan: &ResourcePlan, all: &mut Vec<Setting>) -> Result<(), Inexpressible> {
    refuse(plan.memory_high.is_some(), "memory_high needs cgroup v2")?;
    let mut push = |field, file, value| all.extend(set("memory", field, file, value));
    // Memory alone may never be above memory and swap together: of a new cgroup, whose limits are
    // infinite, memory is lowered first.
    push(
        "memory",
        "memory.limit_in_bytes",
        plan.memory.map(minus_one_or),
    );
    push(
        "memory_swap",
        "memory.memsw.limit_in_bytes",
        plan.memory_and_swap.map(minus_one_or),
    );
    push(
        "memory_reservation",
        "memory.soft_limit_in_bytes",
        plan.memory_reservation.map(minus_one_or),
    );
    push(
        "memory.kernelTCP",
        "memory.kmem.tcp.limit_in_bytes",
        plan.memory_kernel_tcp.map(minus_one_or),
    );
    let swappiness = plan.memory_swappiness.map(|n| match n {
        u64::MAX => String::new(),
        n => n.to_string(),
    });
    push("memory_swappiness", "memory.swappiness", swappiness);
    let oom = plan
        .memory_disable_oom_killer
        .map(|off| u8::from(off).to_string());
    push("memory.disableOOMKiller", "memory.oom_control", oom);
    Ok(())
}
