//! Whether and when the daemon starts an ended container again: pure decisions.
//!
//! The rules are those that users of Docker and Podman know, with one difference that follows from
//! this daemon's own promise: its restart is no event for containers. So what Docker does at the
//! restart of its daemon, littlebox does at the boot of the machine, as Podman's units do.

use std::time::Duration;

use littlebox_types::{ExitStatus, RestartMode, RestartPolicy};
use serde::{Deserialize, Serialize};

/// Before the first automatic start; doubled with each short run.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The most that a restart is put off.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// A run of this length shows that the program works: the delay begins anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// What the engine keeps of a container's restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartState {
    /// As asked for, or patched.
    pub policy: RestartPolicy,
    /// Automatic starts since a client started it.
    pub count: u32,
    /// Runs in a row that were short: the exponent of the delay.
    pub short_runs: u32,
    /// A client stopped it, and none has started it since.
    pub stopped: bool,
    /// The last run ended because the machine went down.
    pub interrupted: bool,
    /// When it will be started; nanoseconds since the epoch.
    pub due_at: Option<i64>,
    /// The boot in which it last ran or was stopped.
    pub boot_id: String,
}

/// What is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// A run.
    Exit(&'a ExitStatus),
    /// An automatic start that did not succeed.
    FailedStart,
}

impl RestartState {
    /// A client wants another policy. What it says takes effect at the next end; a start that is
    /// due is given up when the new policy has none.
    pub fn change(&mut self, policy: RestartPolicy) {
        self.policy = policy;
        if policy.policy == RestartMode::No {
            self.due_at = None;
        }
    }

    /// A client starts it.
    pub fn begin(&mut self) {
        self.count = 0;
        self.short_runs = 0;
        self.stopped = false;
        self.interrupted = false;
        self.due_at = None;
    }

    /// The policy starts it.
    pub fn begin_again(&mut self) {
        self.count = self.count.saturating_add(1);
        self.interrupted = false;
        self.due_at = None;
    }

    /// Something is over after `lasted`: how long until the next start, when there is to be one.
    pub fn after(&mut self, ending: Ending<'_>, lasted: Duration) -> Option<Duration> {
        self.due_at = None;
        if !self.wants(ending) {
            return None;
        }
        if lasted >= LONG_RUN {
            self.short_runs = 0;
        }
        let delay = delay(self.short_runs);
        self.short_runs = self.short_runs.saturating_add(1);
        Some(delay)
    }

    fn wants(&self, ending: Ending<'_>) -> bool {
        if self.stopped {
            return false;
        }
        match self.policy.policy {
            RestartMode::No => false,
            RestartMode::Always | RestartMode::UnlessStopped => true,
            RestartMode::OnFailure => {
                // An end that nobody saw (a power cut, a lost helper) was no success, and neither
                // is that of a program which obeyed the machine's shutdown.
                let zero = matches!(ending, Ending::Exit(ExitStatus::Exited { code: 0 }));
                let success = zero && !self.interrupted;
                let left = self.policy.max_retries.is_none_or(|max| self.count < max);
                !success && left
            }
        }
    }

    /// Whether the boot of the machine starts a container that had ended before it.
    pub fn at_boot(&self) -> bool {
        match self.policy.policy {
            RestartMode::No | RestartMode::OnFailure => false,
            RestartMode::Always => true,
            RestartMode::UnlessStopped => !self.stopped,
        }
    }

    /// How long to wait for `due_at`; a clock that was set meanwhile makes it no longer than any
    /// delay is.
    pub fn remaining(due_at: i64, now: i64) -> Duration {
        let left = u64::try_from(due_at.saturating_sub(now)).unwrap_or(0);
        Duration::from_nanos(left).min(MAX_DELAY)
    }
}

fn delay(short_runs: u32) -> Duration {
    let factor = 1u32.checked_shl(short_runs).unwrap_or(u32::MAX);
    FIRST_DELAY.saturating_mul(factor).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);
    const ZERO: ExitStatus = ExitStatus::Exited { code: 0 };
    const THREE: ExitStatus = ExitStatus::Exited { code: 3 };

    fn state(policy: &str) -> RestartState {
        RestartState {
            policy: policy.parse().unwrap(),
            ..RestartState::default()
        }
    }

    fn unknown() -> ExitStatus {
        ExitStatus::Unknown {
            detail: "power cut".into(),
        }
    }

    #[test]
    fn each_policy_restarts_after_its_endings_and_no_others() {
        for (policy, zero, three) in [
            ("no", false, false),
            ("on-failure", false, true),
            ("on-failure:1", false, true),
            ("always", true, true),
            ("unless-stopped", true, true),
        ] {
            let asked = |ending: Ending<'_>| state(policy).after(ending, SHORT).is_some();
            assert_eq!(asked(Ending::Exit(&ZERO)), zero, "{policy}");
            assert_eq!(asked(Ending::Exit(&THREE)), three, "{policy}");
            assert_eq!(asked(Ending::Exit(&unknown())), three, "{policy}");
            assert_eq!(asked(Ending::FailedStart), three, "{policy}");
        }
    }

    #[test]
    fn what_a_client_stopped_stays_down() {
        for policy in ["on-failure", "always", "unless-stopped"] {
            let mut stopped = state(policy);
            stopped.stopped = true;
            assert_eq!(stopped.after(Ending::Exit(&THREE), SHORT), None, "{policy}");
            stopped.begin();
            assert!(stopped.after(Ending::Exit(&THREE), SHORT).is_some());
        }
    }

    #[test]
    fn what_the_machine_interrupted_is_no_success() {
        for (policy, again) in [("no", false), ("on-failure", true), ("always", true)] {
            let mut it = state(policy);
            it.interrupted = true;
            let delay = it.after(Ending::Exit(&ZERO), SHORT);
            assert_eq!(delay.is_some(), again, "{policy}");
        }
        let mut it = state("on-failure");
        it.interrupted = true;
        it.begin_again();
        assert_eq!(it.after(Ending::Exit(&ZERO), SHORT), None, "the next run");
    }

    #[test]
    fn only_always_brings_back_at_boot_what_a_client_stopped() {
        for (policy, running, stopped) in [
            ("no", false, false),
            ("on-failure", false, false),
            ("always", true, true),
            ("unless-stopped", true, false),
        ] {
            let mut it = state(policy);
            assert_eq!(it.at_boot(), running, "{policy}");
            it.stopped = true;
            assert_eq!(it.at_boot(), stopped, "{policy}");
        }
    }

    #[test]
    fn on_failure_gives_up_after_its_maximum_until_a_client_starts_it() {
        let mut it = state("on-failure:2");
        for _ in 0..2 {
            assert!(it.after(Ending::Exit(&THREE), SHORT).is_some());
            it.begin_again();
        }
        assert_eq!(it.after(Ending::Exit(&THREE), SHORT), None);
        it.begin();
        assert!(it.after(Ending::Exit(&THREE), SHORT).is_some());
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_a_long_run_resets_it() {
        let mut it = state("always");
        let mut next = |lasted| {
            let delay = it.after(Ending::Exit(&ZERO), lasted).unwrap();
            it.begin_again();
            delay.as_millis()
        };
        let first: Vec<u128> = (0..5).map(|_| next(SHORT)).collect();
        assert_eq!(first, [100, 200, 400, 800, 1600]);
        for _ in 0..100 {
            next(SHORT);
        }
        assert_eq!(next(SHORT), 60_000);
        assert_eq!(next(LONG_RUN), 100);
        assert_eq!(next(SHORT), 200);
    }

    #[test]
    fn a_clock_that_was_set_puts_nothing_off_for_years() {
        assert_eq!(RestartState::remaining(5, 10), Duration::ZERO);
        assert_eq!(RestartState::remaining(i64::MAX, 0), MAX_DELAY);
        assert_eq!(RestartState::remaining(7, 5), Duration::from_nanos(2));
    }
}
