//! CPU time and CPU sets.

use super::{Inexpressible, Setting, max_or, minus_one_or, refuse, set};
use crate::ResourcePlan;

pub(super) fn settings(
    plan: &ResourcePlan,
    unified: bool,
    all: &mut Vec<Setting>,
) -> Result<(), Inexpressible> {
    let mut push = |field, file, value| all.extend(set("cpu", field, file, value));
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    // An idle cgroup takes no weight.
    push("cpu.idle", "cpu.idle", number(plan.cpu_idle));
    if unified {
        refuse(
            plan.cpu_rt_runtime_us.is_some() || plan.cpu_rt_period_us.is_some(),
            "cpu.realtimeRuntime and cpu.realtimePeriod need cgroup v1",
        )?;
        push("cpu_weight", "cpu.weight", number(plan.cpu_weight));
        push("cpus", "cpu.max", quota_and_period(plan));
        push("cpu.burst", "cpu.max.burst", number(plan.cpu_burst_us));
        return Ok(());
    }
    let shares = plan.cpu_shares.or(plan.cpu_weight.map(shares_of));
    push("cpu_weight", "cpu.shares", number(shares));
    push(
        "cpu_period_us",
        "cpu.cfs_period_us",
        number(plan.cpu_period_us),
    );
    push(
        "cpus",
        "cpu.cfs_quota_us",
        plan.cpu_quota_us.map(minus_one_or),
    );
    push("cpu.burst", "cpu.cfs_burst_us", number(plan.cpu_burst_us));
    push(
        "cpu.realtimePeriod",
        "cpu.rt_period_us",
        number(plan.cpu_rt_period_us),
    );
    push(
        "cpu.realtimeRuntime",
        "cpu.rt_runtime_us",
        plan.cpu_rt_runtime_us.map(minus_one_or),
    );
    Ok(())
}

pub(super) fn cpuset(plan: &ResourcePlan, all: &mut Vec<Setting>) {
    let mut push = |field, file, value| all.extend(set("cpuset", field, file, value));
    push("cpuset_cpus", "cpuset.cpus", plan.cpuset_cpus.clone());
    push("cpuset_mems", "cpuset.mems", plan.cpuset_mems.clone());
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

/// The inverse of the conversion of shares to a weight (plan crate, `weight_from_shares`):
/// with `l = log2(shares)`, `log10(weight) = (l² + 125 l) / 612 - 7 / 34`. 1 is 2, 100 is 1024,
/// 10,000 is 262,144.
fn shares_of(weight: u64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 to 10,000 in, 2 to 262,144 out"
    )]
    let shares = {
        let exponent = (weight.clamp(1, 10_000) as f64).log10();
        let root = (125.0f64.powi(2) + 4.0 * 612.0 * (exponent + 7.0 / 34.0)).sqrt();
        ((root - 125.0) / 2.0).exp2().round() as u64
    };
    shares.clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::shares_of;

    #[test]
    fn weights_map_onto_the_whole_range_of_shares() {
        assert_eq!(shares_of(1), 2);
        assert_eq!(shares_of(100), 1024);
        assert_eq!(shares_of(10_000), 262_144);
        assert_eq!(shares_of(0), 2);
        for weight in 1..10_000 {
            assert!(shares_of(weight) < shares_of(weight + 1), "{weight}");
        }
    }
}
