//! Calls that a profile leaves to an agent on the host (`SCMP_ACT_NOTIFY`, seccomp_unotify(2)).

use littlebox_protocol::{ListenerPlan, SeccompPlan};
use serde_json::{Map, Value};

use super::profile::{Action, Profile};
use super::{Target, rules};
use crate::PlanError;

/// What littlebox's own init calls under the filter. It has no listener: what is left to the agent
/// fails there with ENOSYS.
const OF_INIT: [&str; 7] = [
    "exit_group",
    "getpid",
    "kill",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigtimedwait",
    "wait4",
];

/// The agent of a profile, where it leaves something to one. A `listenerPath` that no rule needs is
/// passed over, as the specification says.
pub(super) fn listener(
    profile: &Profile,
    target: &Target,
) -> Result<Option<ListenerPlan>, PlanError> {
    let calls = rules::notified_names(profile, target);
    let others = profile.default == Action::Notify;
    if calls.is_empty() && !others {
        return Ok(None);
    }
    let Some(listener) = &profile.listener else {
        return Err(PlanError::new(
            "/listenerPath",
            "SCMP_ACT_NOTIFY needs a listenerPath: the UNIX socket of the agent that decides",
        ));
    };
    Ok(Some(ListenerPlan {
        path: listener.path.clone(),
        metadata: listener.metadata.clone(),
        calls,
        others,
        state: Map::new(),
    }))
}

/// Sets what an agent is told of the container (see [`ListenerPlan::state`]).
pub fn introduce(filter: Option<&mut SeccompPlan>, state: Map<String, Value>) {
    if let Some(listener) = filter.and_then(|filter| filter.listener.as_mut()) {
        listener.state = state;
    }
}

/// Refuses a filter under which littlebox's own init could not serve, because it would have to ask an
/// agent.
///
/// # Errors
/// The calls, with a pointer into the profile.
pub fn check_init(filter: &SeccompPlan) -> Result<(), PlanError> {
    let Some(listener) = &filter.listener else {
        return Ok(());
    };
    let refused = |pointer, which: &str| {
        let message = format!(
            "with init, SCMP_ACT_NOTIFY cannot be used for {which}: the init needs them and has no agent; allow them, or leave init out"
        );
        Err(PlanError::new(pointer, message))
    };
    if listener.others {
        return refused("/defaultAction", "calls that no rule names");
    }
    let is_needed = |name: &&String| OF_INIT.contains(&name.as_str());
    let needed: Vec<&str> = listener
        .calls
        .iter()
        .filter(is_needed)
        .map(|n| n.as_str())
        .collect();
    match needed.as_slice() {
        [] => Ok(()),
        names => refused("/syscalls", &names.join(", ")),
    }
}
