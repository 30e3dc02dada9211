//! The life of an exec as a pure function `(state, event) -> state`.
//!
//! ```text
//!   starting ──Started──▶ running ──Exited──▶ exited
//!     │   └──────────────Exited─────────────────▲
//!     └──Failed──▶ failed
//! ```
//!
//! What the helper says arrives in any order: the exit of a quick program is read before the answer that
//! says it was started. A transition without an arrow comes too late and changes nothing.

use littlebox_types::ExecState;

/// What can happen to an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Its program runs.
    Started,
    /// Its program could not be started.
    Failed,
    /// Its program exited, or is known to be gone.
    Exited,
}

/// The state that follows; `None`: the transition comes too late.
pub fn next(state: ExecState, transition: Transition) -> Option<ExecState> {
    match (state, transition) {
        (ExecState::Starting, Transition::Started) => Some(ExecState::Running),
        (ExecState::Starting, Transition::Failed) => Some(ExecState::Failed),
        (ExecState::Starting | ExecState::Running, Transition::Exited) => Some(ExecState::Exited),
        _ => None,
    }
}

/// Whether nothing more happens to an exec in this state.
pub fn is_over(state: ExecState) -> bool {
    match state {
        ExecState::Starting | ExecState::Running => false,
        ExecState::Exited | ExecState::Failed => true,
    }
}

/// A state's name in the store.
pub fn name(state: ExecState) -> &'static str {
    match state {
        ExecState::Starting => "starting",
        ExecState::Running => "running",
        ExecState::Exited => "exited",
        ExecState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSITIONS: [Transition; 3] =
        [Transition::Started, Transition::Failed, Transition::Exited];

    proptest! {
        /// In whatever order the news arrives: an exec starts at most once, it is over once, and then
        /// stays as it is.
        #[test]
        fn an_exec_starts_once_and_is_over_once(
            news in proptest::collection::vec(0..TRANSITIONS.len(), 0..16),
        ) {
            let mut state = ExecState::Starting;
            let (mut starts, mut ends) = (0, 0);
            for transition in news.into_iter().map(|i| TRANSITIONS[i]) {
                let Some(to) = next(state, transition) else {
                    continue;
                };
                prop_assert!(!is_over(state));
                starts += u32::from(to == ExecState::Running);
                ends += u32::from(is_over(to));
                state = to;
            }
            prop_assert!(starts <= 1 && ends <= 1);
            prop_assert_eq!(ends == 1, is_over(state));
        }
    }

    #[test]
    fn whatever_is_not_over_can_exit() {
        for state in [
            ExecState::Starting,
            ExecState::Running,
            ExecState::Exited,
            ExecState::Failed,
        ] {
            assert_eq!(
                next(state, Transition::Exited).is_some(),
                !is_over(state),
                "{state:?}"
            );
        }
    }

    #[test]
    fn an_exec_that_runs_has_not_failed_to_start() {
        assert_eq!(next(ExecState::Running, Transition::Failed), None);
    }
}
