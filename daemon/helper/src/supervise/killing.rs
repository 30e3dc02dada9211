//! Kills of execs' cgroups. Without `cgroup.kill` (v1, or before Linux 5.14) a kill needs a freeze, and
//! the container decides how long that takes; the loop keeps serving meanwhile.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::event_loop::Supervisor;
use crate::cgroup::{Cgroup, Kill};

/// The first pause between two looks; then they double.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Kills in progress.
#[derive(Debug, Default)]
pub struct Killings(Vec<Killing>);

#[derive(Debug)]
struct Killing {
    cgroup: Cgroup,
    kill: Kill,
    look_at: Instant,
    pause: Duration,
}

impl Killings {
    /// Begins one. It is looked at immediately.
    pub fn begin(&mut self, cgroup: Cgroup) {
        self.0.push(Killing {
            cgroup,
            kill: Kill::begin(),
            look_at: Instant::now(),
            pause: FIRST_PAUSE,
        });
    }

    /// When to look next.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().map(|killing| killing.look_at).min()
    }

    /// Goes on with those whose time it is, and gives back the cgroups of those that are over.
    pub fn on_time(&mut self, now: Instant) -> Vec<(Cgroup, io::Result<()>)> {
        let mut over = Vec::new();
        for mut killing in std::mem::take(&mut self.0) {
            match killing.look(now) {
                Some(result) => over.push((killing.cgroup, result)),
                None => self.0.push(killing),
            }
        }
        over
    }

    /// Gives up on all of them: somebody else ends what is in them.
    pub fn give_up(&mut self) {
        for killing in self.0.drain(..) {
            // What is frozen would not die.
            killing.cgroup.take_freeze_back();
        }
    }
}

impl Killing {
    /// How it went; `None`: it is still on its way.
    fn look(&mut self, now: Instant) -> Option<io::Result<()>> {
        if now < self.look_at {
            return None;
        }
        let failed = match self.cgroup.kill_step(&mut self.kill) {
            Ok(true) => return Some(Ok(())),
            Ok(false) => ErrorKind::TimedOut.into(),
            // It may pass (no descriptor left), so it is tried again.
            Err(error) => error,
        };
        if now >= self.kill.until() {
            self.cgroup.take_freeze_back();
            return Some(Err(failed));
        }
        self.look_at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }
}

impl Supervisor {
    /// Ends everything in the cgroup of an exec, where it has one, and gives the cgroup up.
    pub(super) fn end_cgroup(&mut self, own: Option<Cgroup>) {
        if let Some(own) = own {
            self.killings.begin(own);
            self.look_at_kills(Instant::now());
        }
    }

    /// Looks at the kills whose time it is.
    pub(super) fn look_at_kills(&mut self, now: Instant) {
        for (own, killed) in self.killings.on_time(now) {
            if let Err(error) = killed {
                self.complain("kill of the cgroup of an exec", &error);
            }
            self.released.extend(Some(own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::unwilling;
    use littlebox_protocol::bounds;

    #[test]
    fn kills_that_take_their_time_hold_nobody_up() {
        let mounts: Vec<_> = (0..32).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut killings = Killings::default();
        let begun = Instant::now();
        for mount in &mounts {
            killings.begin(unwilling(mount.path()));
        }
        let (mut over, mut longest) = (0, Duration::ZERO);
        while let Some(due) = killings.due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let look = Instant::now();
            over += killings.on_time(look).len();
            longest = longest.max(look.elapsed());
        }
        assert_eq!(over, mounts.len());
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        // One after the other they would take as many times as long.
        let all = begun.elapsed();
        assert!(all < 2 * bounds::KILL, "{all:?}");
    }
}
