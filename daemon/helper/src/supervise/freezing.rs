//! Freezes and thaws on their way. The container decides how long one takes (a process in vfork(2), or
//! in an uninterruptible wait, does not stop), so the loop looks at it again and again and serves
//! everybody else meanwhile.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::calls::{done, io_failure, refused};
use super::event_loop::Supervisor;
use littlebox_protocol::{Step, StepFailure, bounds};

/// The first pause between two looks; then they double.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A freeze or a thaw that the kernel has not finished.
pub(super) struct Freezing {
    frozen: bool,
    /// Who waits for the answer: connection and request.
    asked: Vec<(u64, u64)>,
    /// Until then a freeze lets execs on their way finish their start. No other begins meanwhile.
    execs_until: Instant,
    until: Instant,
    look_at: Instant,
    pause: Duration,
}

impl Freezing {
    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        self.look_at
    }

    fn waits_for_execs(&self, now: Instant) -> bool {
        self.frozen && now < self.execs_until
    }

    /// Whether it is a freeze.
    pub(super) fn is_freeze(&self) -> bool {
        self.frozen
    }
}

impl Supervisor {
    /// Begins a freeze or a thaw; it is answered when it is done. The opposite on its way is given up.
    pub(super) fn begin_freeze(&mut self, connection: u64, seq: u64, frozen: bool) {
        if self.freezing.as_ref().is_some_and(|f| f.frozen != frozen) {
            self.end_freeze(&refused("the opposite was asked for before it was done"));
        }
        let now = Instant::now();
        let freezing = self.freezing.get_or_insert_with(|| Freezing {
            frozen,
            asked: Vec::new(),
            execs_until: now + bounds::EXECS_BEFORE_FREEZE,
            until: now + bounds::FREEZE,
            look_at: now,
            pause: FIRST_PAUSE,
        });
        freezing.asked.push((connection, seq));
        self.look_at_freeze(now);
    }

    /// Looks at a freeze when it is time to.
    pub(super) fn look_at_freeze(&mut self, now: Instant) {
        let due = |freezing: &mut Freezing| freezing.look_at <= now;
        let Some(mut freezing) = self.freezing.take_if(due) else {
            return;
        };
        let looked = if freezing.waits_for_execs(now) && !self.starting.is_empty() {
            Ok(false)
        } else {
            self.built.cgroup.freeze_step(freezing.frozen)
        };
        let result = match looked {
            Ok(false) if now < freezing.until => {
                freezing.look_at = now + freezing.pause;
                freezing.pause = (freezing.pause * 2).min(LONGEST_PAUSE);
                self.freezing = Some(freezing);
                return;
            }
            Ok(true) => Ok(()),
            Ok(false) => Err(freeze_failure(&ErrorKind::TimedOut.into())),
            Err(error) => Err(freeze_failure(&error)),
        };
        if freezing.frozen && result.is_err() {
            self.built.cgroup.take_freeze_back();
        }
        for (connection, seq) in freezing.asked {
            self.reply(connection, seq, result.clone().and_then(|()| done()));
        }
    }

    /// Gives up on a freeze or a thaw, and tells those who wait for it.
    pub(super) fn end_freeze(&mut self, failure: &StepFailure) {
        let Some(freezing) = self.freezing.take() else {
            return;
        };
        if freezing.frozen {
            self.built.cgroup.take_freeze_back();
        }
        for (connection, seq) in freezing.asked {
            self.reply(connection, seq, Err(failure.clone()));
        }
    }
}

fn freeze_failure(error: &io::Error) -> StepFailure {
    if error.kind() == ErrorKind::Unsupported {
        let why = "the container has no control group that could be frozen";
        return StepFailure {
            step: Step::Cgroup,
            ..refused(why)
        };
    }
    io_failure(Step::Cgroup, "freeze", error)
}
