//! How much CPU the reading of a container's output may cost the helper.
//!
//! A container is held to its CPU limit by its cgroup, and the helper is outside of it: a program that
//! prints two bytes at a time would make the helper work many times as hard as it may work itself, and
//! write the log as fast as the disk takes it. So the helper reads within the container's own limit.
//! While it does not, the pipes fill, and the program waits.

use std::time::{Duration, Instant};

use littlebox_protocol::ResourcePlan;

/// What may be spent at once after a quiet period.
const BURST: Duration = Duration::from_millis(100);
/// The least share of a core, so that output comes through whatever the limit is.
const FLOOR: f64 = 0.01;
/// The kernel's own period (cpu.cfs_period_us) when none is set, in microseconds.
const PERIOD_US: u64 = 100_000;

/// A budget of CPU time that grows at the rate of the container's CPU limit.
#[derive(Debug)]
pub struct Pace {
    quota_us: Option<u64>,
    period_us: u64,
    /// Seconds that may be spent; negative: that were spent too much.
    budget: f64,
    grown_at: Instant,
}

impl Pace {
    /// The pace of a container with these limits.
    pub fn new(limits: &ResourcePlan, now: Instant) -> Pace {
        let mut pace = Pace {
            quota_us: None,
            period_us: PERIOD_US,
            budget: BURST.as_secs_f64(),
            grown_at: now,
        };
        pace.change(limits);
        pace
    }

    /// The limits have changed; what they do not name stays.
    pub fn change(&mut self, limits: &ResourcePlan) {
        if let Some(quota) = limits.cpu_quota_us {
            self.quota_us = Some(quota).filter(|quota| *quota != u64::MAX);
        }
        if let Some(period) = limits.cpu_period_us.filter(|period| *period > 0) {
            self.period_us = period;
        }
    }

    /// Cores that the container may use; `None`: as many as there are.
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds, far below 2^53, and a ratio need not be exact"
    )]
    fn share(&self) -> Option<f64> {
        let quota = self.quota_us?;
        Some((quota as f64 / self.period_us as f64).max(FLOOR))
    }

    /// Whether there is a limit to keep to.
    pub fn is_limited(&self) -> bool {
        self.share().is_some()
    }

    /// So much CPU time was spent on reading. `Some`: for how long nothing is to be read now.
    pub fn spent(&mut self, now: Instant, cpu: Duration) -> Option<Duration> {
        let share = self.share()?;
        let grown = now.saturating_duration_since(self.grown_at).as_secs_f64() * share;
        self.grown_at = now;
        self.budget = (self.budget + grown).min(BURST.as_secs_f64()) - cpu.as_secs_f64();
        if self.budget >= 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(-self.budget / share).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(quota_us: u64, period_us: Option<u64>) -> ResourcePlan {
        ResourcePlan {
            cpu_quota_us: Some(quota_us),
            cpu_period_us: period_us,
            ..ResourcePlan::default()
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn without_a_limit_nothing_waits() {
        let now = Instant::now();
        for limits in [ResourcePlan::default(), limits(u64::MAX, None)] {
            let mut pace = Pace::new(&limits, now);
            assert_eq!(pace.spent(now, Duration::from_secs(1000)), None);
        }
    }

    #[test]
    fn a_burst_is_free_and_the_rest_waits_for_the_share() {
        let now = Instant::now();
        let mut pace = Pace::new(&limits(5_000, None), now);
        assert_eq!(pace.spent(now, 100 * MS), None);
        let wait = pace.spent(now, 10 * MS).unwrap();
        // 10 ms at 5 % of a core.
        assert!(wait.abs_diff(200 * MS) < MS, "{wait:?}");
        assert_eq!(pace.spent(now + 201 * MS, Duration::ZERO), None);
    }

    #[test]
    fn what_was_not_spent_is_kept_up_to_the_burst() {
        let now = Instant::now();
        let mut pace = Pace::new(&limits(50_000, None), now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.spent(later, 100 * MS), None);
        assert!(pace.spent(later, MS).is_some());
    }

    #[test]
    fn over_a_long_time_no_more_than_the_share_is_spent() {
        let begun = Instant::now();
        let mut pace = Pace::new(&limits(20_000, Some(200_000)), begun);
        let (mut now, mut spent) = (begun, Duration::ZERO);
        while now < begun + Duration::from_secs(60) {
            spent += 3 * MS;
            now += 3 * MS + pace.spent(now, 3 * MS).unwrap_or_default();
        }
        assert!(spent > Duration::from_millis(5_900), "{spent:?}");
        assert!(spent < Duration::from_millis(6_300), "{spent:?}");
    }

    #[test]
    fn the_least_share_is_a_hundredth_of_a_core() {
        let now = Instant::now();
        let mut pace = Pace::new(&limits(1_000, Some(1_000_000)), now);
        let wait = pace.spent(now, 101 * MS).unwrap();
        assert!(wait.abs_diff(100 * MS) < MS, "{wait:?}");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let now = Instant::now();
        let mut pace = Pace::new(&limits(5_000, Some(50_000)), now);
        pace.change(&ResourcePlan::default());
        assert_eq!(pace.share(), Some(0.1));
        pace.change(&limits(25_000, None));
        assert_eq!(pace.share(), Some(0.5));
        pace.change(&limits(u64::MAX, None));
        assert_eq!(pace.share(), None);
    }
}
