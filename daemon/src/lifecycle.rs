//! The life of a container as a pure function `(state, event) -> state`.
//!
//! ```text
//!               Start            Launched            Freeze
//!   created ───────────▶ starting ───────▶ running ─────────▶ paused
//!      │                  │   ▲ │             │ ▲──────────────┘ │
//!      │      LaunchFailed│   │ │Ended    Stop│      Thaw        │Stop
//!      │                  ▼   │ │             ▼                  ▼
//!      │               failed ┘ │          stopping ◀────────────┘
//!      │                  │     ▼             │ Ended
//!      │                  │  exited ◀─────────┘  (running, paused: Ended as well)
//!      │    Remove        │     │ Start ─▶ starting
//!      └──────────────────┴─────┴──────────▶ removing ──▶ (gone)
//! ```
//!
//! Nothing else decides what may follow what: the engine asks [`next`] and keeps the answer, and
//! a refusal becomes a 409 that names the state.

pub mod exec;

use littlebox_types::ContainerState;

/// What can happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A client asks for a start; a helper is about to be launched.
    Start,
    /// The helper says that the program runs.
    Launched,
    /// The helper says that the start failed.
    LaunchFailed,
    /// A client froze it.
    Freeze,
    /// A client thawed it.
    Thaw,
    /// A client asked it to end.
    Stop,
    /// Its program ended, or is known to be gone.
    Ended,
    /// A client wants it removed.
    Remove,
}

impl Transition {
    /// All of them.
    pub const ALL: [Transition; 8] = [
        Transition::Start,
        Transition::Launched,
        Transition::LaunchFailed,
        Transition::Freeze,
        Transition::Thaw,
        Transition::Stop,
        Transition::Ended,
        Transition::Remove,
    ];
}

/// A transition that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", refusal(*state, *transition))]
pub struct Illegal {
    /// Where the container is.
    pub state: ContainerState,
    /// What was asked for.
    pub transition: Transition,
}

/// Why a transition is refused, as the end of a sentence that begins with the container.
fn refusal(state: ContainerState, transition: Transition) -> &'static str {
    use ContainerState as S;
    use Transition as T;
    match (state, transition) {
        (S::Paused, T::Freeze) => "is already paused",
        (S::Running, T::Thaw) => "is not paused",
        (S::Running, T::Start) => "is already running",
        (state, _) => in_words(state),
    }
}

/// A state, as the end of a sentence that begins with the container.
pub fn in_words(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "has not been started",
        ContainerState::Starting => "is starting",
        ContainerState::Running => "is running",
        ContainerState::Paused => "is paused",
        ContainerState::Stopping => "is stopping",
        ContainerState::Exited => "has exited",
        ContainerState::Failed => "failed to start",
        ContainerState::Removing => "is being removed",
    }
}

/// The table. Pure; the only place where states follow each other.
pub fn next(state: ContainerState, transition: Transition) -> Result<ContainerState, Illegal> {
    use ContainerState as S;
    use Transition as T;
    let to = match (state, transition) {
        (S::Created | S::Exited | S::Failed, T::Start) => S::Starting,
        (S::Starting, T::Launched) => S::Running,
        (S::Starting, T::LaunchFailed) => S::Failed,
        (S::Running, T::Freeze) => S::Paused,
        (S::Paused, T::Thaw) => S::Running,
        (S::Running | S::Paused | S::Stopping, T::Stop) => S::Stopping,
        // A start that was interrupted by the daemon's own death may be found ended.
        (S::Starting | S::Running | S::Paused | S::Stopping, T::Ended) => S::Exited,
        (S::Created | S::Exited | S::Failed | S::Removing, T::Remove) => S::Removing,
        _ => return Err(Illegal { state, transition }),
    };
    Ok(to)
}

/// Whether a helper is expected to exist in this state.
pub fn is_live(state: ContainerState) -> bool {
    match state {
        ContainerState::Starting
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Stopping => true,
        ContainerState::Created
        | ContainerState::Exited
        | ContainerState::Failed
        | ContainerState::Removing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [ContainerState; 8] = [
        ContainerState::Created,
        ContainerState::Starting,
        ContainerState::Running,
        ContainerState::Paused,
        ContainerState::Stopping,
        ContainerState::Exited,
        ContainerState::Failed,
        ContainerState::Removing,
    ];

    #[test]
    fn every_live_state_can_end_and_no_other_can() {
        for state in STATES {
            assert_eq!(
                next(state, Transition::Ended).is_ok(),
                is_live(state),
                "{state}"
            );
        }
    }

    #[test]
    fn removing_is_final() {
        for t in Transition::ALL {
            let to = next(ContainerState::Removing, t);
            assert_eq!(to.is_ok(), t == Transition::Remove, "{t:?}");
        }
    }

    #[test]
    fn a_live_container_is_never_removed() {
        for state in STATES.into_iter().filter(|s| is_live(*s)) {
            assert!(next(state, Transition::Remove).is_err(), "{state}");
        }
    }

    #[test]
    fn a_refusal_names_the_state() {
        for (state, transition, said) in [
            (
                ContainerState::Running,
                Transition::Start,
                "is already running",
            ),
            (
                ContainerState::Paused,
                Transition::Freeze,
                "is already paused",
            ),
            (ContainerState::Exited, Transition::Freeze, "has exited"),
            (ContainerState::Running, Transition::Remove, "is running"),
        ] {
            assert_eq!(next(state, transition).unwrap_err().to_string(), said);
        }
    }

    proptest! {
        /// Whatever happens, a helper exists only between Start and Ended/LaunchFailed.
        #[test]
        fn live_only_between_start_and_end(steps in proptest::collection::vec(0usize..8, 0..64)) {
            let mut state = ContainerState::Created;
            let mut helper = false;
            for i in steps {
                let t = Transition::ALL[i];
                if let Ok(to) = next(state, t) {
                    match t {
                        Transition::Start => helper = true,
                        Transition::Ended | Transition::LaunchFailed => helper = false,
                        Transition::Launched | Transition::Freeze | Transition::Thaw
                        | Transition::Stop | Transition::Remove => {}
                    }
                    state = to;
                }
                prop_assert_eq!(is_live(state), helper);
            }
        }
    }
}
