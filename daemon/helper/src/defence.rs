//! Defences that a test can turn off, one at a time, to see the attack succeed that each is for.
//!
//! A helper builds one container and has one thread, so the switch is the process': set once, from
//! the plan, and inherited by every child. Two locks keep it out of reach: the daemon puts it into
//! a plan only when it runs with test faults, and the helper obeys only when its zygote was started
//! by such a daemon.

use std::sync::OnceLock;

use littlebox_protocol::{Defence, TEST_FAULTS};

static OFF: OnceLock<Option<Defence>> = OnceLock::new();

/// Turns one defence off for the rest of this process' life, in a test.
pub fn weaken(defence: Option<Defence>) {
    let allowed = || std::env::var_os(TEST_FAULTS).is_some_and(|value| value == "1");
    // Set a second time only by tests that build several containers in one process.
    let _ = OFF.set(defence.filter(|_| allowed()));
}

/// Whether a defence stands. Always, outside of tests.
pub fn stands(defence: Defence) -> bool {
    #[cfg(test)]
    if tests::is_off(defence) {
        return false;
    }
    OFF.get().copied().flatten() != Some(defence)
}

/// The switch of this crate's own tests, many of which share a process: it is the thread's.
#[cfg(test)]
pub mod tests {
    use std::cell::Cell;

    use littlebox_protocol::Defence;

    thread_local! {
        static OFF: Cell<Option<Defence>> = const { Cell::new(None) };
    }

    /// Turns one defence off in this thread.
    pub fn turn_off(defence: Option<Defence>) {
        OFF.set(defence);
    }

    pub(super) fn is_off(defence: Defence) -> bool {
        OFF.get() == Some(defence)
    }
}
