//! The OOM killer's doings in the container: counted, told, and put down to who was hit.
//!
//! The kernel counts per cgroup, and the container's program and its execs share one. An exec that
//! ended as a victim does takes one kill of its lifetime upon itself; all others are the container's.

use std::time::{Duration, Instant};

use crate::cgroup::{Cgroup, OomWatch};

/// v1 tells before it counts: so often, at doubling intervals, is looked again.
const LOOKS: u32 = 9;
/// The first interval.
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// Kills so far.
#[derive(Debug, Default)]
pub struct OomLedger {
    watch: Option<OomWatch>,
    total: u64,
    of_execs: u64,
    again: Option<(Instant, u32)>,
}

impl OomLedger {
    /// Begins to watch. Without a watch kills are seen when a program ends.
    pub fn watching(cgroup: &Cgroup) -> (Self, Option<std::io::Error>) {
        let (watch, error) = match cgroup.watch_oom() {
            Ok(watch) => (watch, None),
            Err(error) => (None, Some(error)),
        };
        // What happened before the watch began is found by the first look.
        let again = watch.as_ref().map(|_| (Instant::now(), LOOKS));
        let ledger = Self {
            watch,
            again,
            ..Self::default()
        };
        (ledger, error)
    }

    /// The descriptor to be watched.
    pub fn watch(&self) -> Option<&OomWatch> {
        self.watch.as_ref()
    }

    /// The watch is ready.
    pub fn told(&mut self) {
        if let Some(watch) = &self.watch {
            watch.rearm();
        }
        self.again = Some((Instant::now(), 0));
    }

    /// When to look next.
    pub fn due(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// Looks when it is time to. Returns the total when it has grown.
    pub fn on_time(&mut self, now: Instant, cgroup: &Cgroup) -> Option<u64> {
        let (_, looks) = self.again.take_if(|(at, _)| *at <= now)?;
        let grown = self.look(cgroup);
        if grown.is_none() && looks < LOOKS {
            self.again = Some((now + FIRST_LOOK * 2u32.pow(looks), looks + 1));
        }
        grown
    }

    /// Looks now. Returns the total when it has grown.
    pub fn look(&mut self, cgroup: &Cgroup) -> Option<u64> {
        let total = cgroup.oom_kills();
        let grown = total > self.total;
        self.total = self.total.max(total);
        grown.then_some(self.total)
    }

    /// Kills in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Kills that no exec has taken upon itself.
    pub fn of_container(&self) -> u64 {
        self.total.saturating_sub(self.of_execs)
    }

    /// An exec that ended as a victim does: whether there was a kill in its life, which is its own
    /// from now on. `before`: [`OomLedger::of_container`] when it started.
    pub fn claim(&mut self, before: u64) -> bool {
        let hit = self.of_container() > before;
        self.of_execs += u64::from(hit);
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::OomLedger;

    #[test]
    fn a_kill_is_one_execs_or_the_containers() {
        let mut ledger = OomLedger {
            total: 1,
            ..OomLedger::default()
        };
        assert!(ledger.claim(0), "it happened in its life");
        assert!(!ledger.claim(0), "that one is taken");
        assert_eq!(ledger.of_container(), 0);
        ledger.total = 3;
        assert!(!ledger.claim(2), "they were before its time");
        assert_eq!((ledger.of_container(), ledger.total()), (2, 3));
    }
}
