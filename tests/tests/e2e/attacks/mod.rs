//! The attacks that other engines fell for, each as a test named for what it proves.
//!
//! Where it can be, a test has two sides: with one defence turned off (a label that only a daemon
//! with test faults obeys) the attack is seen to succeed on a canary of the test's own; with the
//! defence on it fails. Where it has one side, the test says why. The table of all attacks stands
//! in `docs/security.md`.
//!
//! Races last three seconds, and longer with `LITTLEBOX_ATTACK_SECONDS=N`. Each proves that it was
//! run: the exchanges and the tries are counted. A try that needs a start of a container comes to
//! hundreds; what is raced for there is tried thousands of times by `daemon/helper/src/build/races.rs`,
//! against the routines themselves.
//!
//! Not here because what they attack does not exist yet: layers of images (part of row 19 and 20),
//! registries (21), labels and volumes of images (22), published ports and firewall rules (25),
//! router advertisements and addresses in networks of ours (part of 26).

mod accounts;
mod archives;
mod descriptors;
mod engine;
mod mounts;
mod processes;
mod rights;
mod users;

/// What every module uses.
mod prelude {
    pub use littlebox_protocol::Defence;
    pub use littlebox_tests::attacker::{
        self, Canary, Racer, Root, bind, for_race_time, thousands, without,
    };
    pub use littlebox_tests::prelude::*;

    /// A daemon in which defences can be turned off.
    pub fn weak_bed() -> Bed {
        Bed::builder().faults().build()
    }

    /// Runs a container to its end; what it printed, or `None` when its start was refused, which
    /// may be only because the start failed or the request is wrong.
    #[track_caller]
    pub fn run_or_refusal(t: &Bed, config: &Value) -> Option<String> {
        let response = t.post_json("/v1/containers?start=true&wait=20s", config);
        if response.status() == 201 {
            let container: Container = response.json();
            let id = id(&container);
            t.exit(&id);
            let out = t.stdout(&id);
            t.remove(&id);
            return Some(out);
        }
        assert!(
            matches!(response.status(), 400 | 422),
            "{} {}",
            response.status(),
            response.text()
        );
        for left in t.list() {
            if left.state == ContainerState::Failed {
                t.remove(&left.id.to_string());
            }
        }
        None
    }
}
