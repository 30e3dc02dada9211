//! `cpu`.

use littlebox_protocol::ResourcePlan;
use oci_spec::runtime::LinuxCpu;

use super::{check, finite};
use crate::PlanError;

/// The kernel's least quota and the bounds of its period, microseconds.
const QUOTA_MIN_US: u64 = 1_000;
const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

pub(super) fn plan(cpu: &LinuxCpu, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    plan.cpu_quota_us = finite(cpu.quota()).filter(|n| *n != 0);
    plan.cpu_period_us = cpu.period().filter(|n| *n != 0);
    plan.cpu_shares = cpu.shares().filter(|n| *n != 0);
    plan.cpu_weight = plan.cpu_shares.map(weight_from_shares);
    plan.cpu_burst_us = cpu.burst().filter(|n| *n != 0);
    plan.cpu_idle = finite(cpu.idle()).filter(|n| *n != 0);
    plan.cpu_rt_runtime_us = finite(cpu.realtime_runtime()).filter(|n| *n != 0);
    plan.cpu_rt_period_us = cpu.realtime_period().filter(|n| *n != 0);
    plan.cpuset_cpus = cpu.cpus().clone().filter(|s| !s.is_empty());
    plan.cpuset_mems = cpu.mems().clone().filter(|s| !s.is_empty());
    check(
        plan.cpu_quota_us.is_none_or(|n| n >= QUOTA_MIN_US),
        "cpu/quota",
        "the kernel takes no quota below 1000 microseconds",
    )?;
    check(
        plan.cpu_period_us.is_none_or(|n| PERIOD_US.contains(&n)),
        "cpu/period",
        "a period is 1000 to 1000000 microseconds",
    )?;
    check(
        plan.cpu_idle.is_none_or(|n| n == 1),
        "cpu/idle",
        "idle is 0 or 1",
    )?;
    // An idle cgroup takes no weight; and -1 and 0 leave it as it is.
    if plan.cpu_idle.is_some() {
        plan.cpu_weight = None;
        plan.cpu_shares = None;
    }
    Ok(())
}

/// v1 shares (2 to 262,144, 1024 is normal) as a v2 weight (1 to 10,000, 100 is normal). The
/// formula that runc has since 1.3.2 and crun since 1.23: a parabola over the logarithms through
/// both ends and the normal value, `log10(weight) = (l² + 125 l) / 612 - 7 / 34` with
/// `l = log2(shares)`. The linear one before it made 39 of 1024.
pub fn weight_from_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "3 to 262,143 in, 1 to 10,000 out"
    )]
    let weight = {
        let l = (shares as f64).log2();
        let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
        // Rounding errors of the powers must not lift a whole number to the next.
        (10f64.powf(exponent) - 1e-9).ceil() as u64
    };
    weight
}
