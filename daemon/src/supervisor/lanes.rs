//! How many questions to one helper are under way at once.
//!
//! A helper answers one question after the other, and may take seconds for one (a kill of everything
//! freezes first, and kills again and again where that does not work). The deadline of a question must
//! not count those before it, so few are sent ahead; and what ends a container must not wait behind
//! what any number of clients have asked, so it has a way of its own.

use littlebox_protocol::{Call, Target};
use rustix::process::Signal;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Execs under way: the helper has many at once on their way to their programs.
pub const EXECS: usize = 32;

/// The ways to a helper.
#[derive(Debug)]
pub(super) struct Lanes {
    execs: Semaphore,
    /// What running execs are asked to do: a helper keeps that until the exec has started.
    of_execs: Semaphore,
    /// Signals to the program and the end of all, and what lets the frozen take them.
    ending: Semaphore,
    others: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            execs: Semaphore::new(EXECS),
            of_execs: Semaphore::new(EXECS),
            ending: Semaphore::new(1),
            others: Semaphore::new(1),
        }
    }
}

impl Lanes {
    /// Waits for the turn of a question, in the order of asking. It lasts until it is dropped.
    pub(super) async fn turn(&self, call: &Call) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.lane(call).acquire().await.ok()
    }

    fn lane(&self, call: &Call) -> &Semaphore {
        if let Some(Target::Exec(_)) = call.target() {
            return &self.of_execs;
        }
        match call {
            Call::Exec(_) => &self.execs,
            Call::Signal { all: false, .. } | Call::Freeze { frozen: false } => &self.ending,
            Call::Signal { signal, .. } if *signal == Signal::KILL.as_raw() => &self.ending,
            Call::Signal { .. }
            | Call::Freeze { frozen: true }
            | Call::Status
            | Call::Resize { .. }
            | Call::OpenStdin { .. }
            | Call::CloseStdin { .. }
            | Call::Gate { .. }
            | Call::Update { .. }
            | Call::Hostname
            | Call::OpenRoot => &self.others,
        }
    }
}
