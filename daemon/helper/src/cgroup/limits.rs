//! Limits in littlebox's units as the files of cgroup v2 and v1.

use crate::protocol::ResourcePlan;

/// One limit: which controller, and what to write into which of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller.
    pub controller: &'static str,
    /// The file in the cgroup's directory.
    pub file: &'static str,
    /// What is written.
    pub value: String,
}

/// A limit that this kind of hierarchy cannot express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inexpressible(pub &'static str);

/// What must be written for `plan` where `controller` is on a v2 (`unified`) or v1 hierarchy, in
/// the order in which it must be written.
///
/// # Errors
///
/// The names of limits that do not exist there.
pub fn settings(
    plan: &ResourcePlan,
    is_unified: impl Fn(&str) -> bool,
) -> Result<Vec<Setting>, Inexpressible> {
    let mut all = Vec::new();
    memory(plan, is_unified("memory"), &mut all)?;
    cpu(plan, is_unified("cpu"), &mut all);
    let mut push = |controller, file, value: Option<String>| {
        all.extend(value.map(|value| Setting {
            controller,
            file,
            value,
        }));
    };
    push("cpuset", "cpuset.cpus", plan.cpuset_cpus.clone());
    push("cpuset", "cpuset.mems", plan.cpuset_mems.clone());
    push("pids", "pids.max", plan.pids.map(max_or));
    Ok(all)
}

fn memory(plan: &ResourcePlan, unified: bool, all: &mut Vec<Setting>) -> Result<(), Inexpressible> {
    let mut push = |file, value: Option<String>| {
        all.extend(value.map(|value| Setting {
            controller: "memory",
            file,
            value,
        }));
    };
    if unified {
        push("memory.max", plan.memory.map(max_or));
        push(
            "memory.swap.max",
            plan.memory_and_swap
                .map(|total| swap_of(total, plan.memory)),
        );
        push("memory.low", plan.memory_reservation.map(max_or));
        push("memory.high", plan.memory_high.map(max_or));
        return Ok(());
    }
    if plan.memory_high.is_some() {
        return Err(Inexpressible("memory_high needs cgroup v2"));
    }
    // The order matters: memory alone may never be above memory and swap together.
    push("memory.limit_in_bytes", plan.memory.map(v1_bytes));
    push(
        "memory.memsw.limit_in_bytes",
        plan.memory_and_swap.map(v1_bytes),
    );
    push(
        "memory.soft_limit_in_bytes",
        plan.memory_reservation.map(v1_bytes),
    );
    Ok(())
}

fn cpu(plan: &ResourcePlan, unified: bool, all: &mut Vec<Setting>) {
    let mut push = |file, value: Option<String>| {
        all.extend(value.map(|value| Setting {
            controller: "cpu",
            file,
            value,
        }));
    };
    if unified {
        push("cpu.max", quota_and_period(plan));
        push(
            "cpu.weight",
            plan.cpu_weight.map(|weight| weight.to_string()),
        );
        return;
    }
    push(
        "cpu.cfs_period_us",
        plan.cpu_period_us.map(|us| us.to_string()),
    );
    push(
        "cpu.cfs_quota_us",
        plan.cpu_quota_us.map(|us| {
            if us == u64::MAX {
                "-1".to_owned()
            } else {
                us.to_string()
            }
        }),
    );
    push(
        "cpu.shares",
        plan.cpu_weight.map(|weight| shares_of(weight).to_string()),
    );
}

/// `cpu.max` is `QUOTA [PERIOD]`.
fn quota_and_period(plan: &ResourcePlan) -> Option<String> {
    match (plan.cpu_quota_us.map(max_or), plan.cpu_period_us) {
        (None, None) => None,
        (Some(quota), None) => Some(quota),
        (quota, Some(period)) => Some(format!(
            "{} {period}",
            quota.unwrap_or_else(|| "max".to_owned())
        )),
    }
}

/// v2 limits swap alone, the OCI spec memory and swap together.
fn swap_of(total: u64, memory: Option<u64>) -> String {
    if total == u64::MAX {
        return max_or(total);
    }
    total.saturating_sub(memory.unwrap_or(0)).to_string()
}

/// The inverse of the weight that the OCI runtime spec derives from v1 shares:
/// `weight = 1 + (shares - 2) * 9999 / 262142`.
fn shares_of(weight: u64) -> u64 {
    2 + weight.clamp(1, 10_000).saturating_sub(1) * 262_142 / 9_999
}

fn max_or(value: u64) -> String {
    if value == u64::MAX {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn v1_bytes(value: u64) -> String {
    if value == u64::MAX {
        "-1".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(plan: &ResourcePlan, unified: bool) -> Vec<(&'static str, String)> {
        let settings = settings(plan, |_| unified).expect("expressible");
        settings.into_iter().map(|s| (s.file, s.value)).collect()
    }

    #[test]
    fn v2_swap_is_what_is_left_of_memory_and_swap() {
        let plan = ResourcePlan {
            memory: Some(100),
            memory_and_swap: Some(150),
            ..ResourcePlan::default()
        };
        let expected = [
            ("memory.max", "100".to_owned()),
            ("memory.swap.max", "50".to_owned()),
        ];
        assert_eq!(written(&plan, true), expected);
    }

    #[test]
    fn v1_memory_is_lowered_before_memory_and_swap() {
        let plan = ResourcePlan {
            memory: Some(100),
            memory_and_swap: Some(u64::MAX),
            ..ResourcePlan::default()
        };
        let expected = [
            ("memory.limit_in_bytes", "100".to_owned()),
            ("memory.memsw.limit_in_bytes", "-1".to_owned()),
        ];
        assert_eq!(written(&plan, false), expected);
    }

    #[test]
    fn no_limit_is_max_on_v2_and_minus_one_on_v1() {
        let plan = ResourcePlan {
            pids: Some(u64::MAX),
            memory: Some(u64::MAX),
            ..Default::default()
        };
        let v1 = written(&plan, false);
        assert_eq!(v1[0].1, "-1");
        // pids.max is the same file on both.
        assert_eq!(v1[1].1, "max");
    }

    #[test]
    fn weights_map_onto_the_whole_range_of_shares() {
        assert_eq!(shares_of(1), 2);
        assert_eq!(shares_of(10_000), 262_144);
        assert_eq!(shares_of(0), 2);
    }

    #[test]
    fn memory_high_is_refused_on_v1() {
        let plan = ResourcePlan {
            memory_high: Some(1),
            ..ResourcePlan::default()
        };
        assert!(settings(&plan, |_| false).is_err());
    }

    #[test]
    fn a_period_without_a_quota_is_no_limit() {
        let plan = ResourcePlan {
            cpu_period_us: Some(1000),
            ..ResourcePlan::default()
        };
        assert_eq!(written(&plan, true), [("cpu.max", "max 1000".to_owned())]);
    }
}
