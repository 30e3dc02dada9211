//! Bodies and answers of the calls that move a container through its life.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ContainerId, ContainerState, Exit, Failure, Signal};

/// `GET .../wait`'s conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// The program has ended, or the start failed, or the container was removed.
    Exited,
    /// The program runs or has run.
    Running,
    /// The container was removed.
    Removed,
}

impl FromStr for WaitFor {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "exited" => Ok(WaitFor::Exited),
            "running" => Ok(WaitFor::Running),
            "removed" => Ok(WaitFor::Removed),
            _ => Err(()),
        }
    }
}

/// The answer of a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitResult {
    /// The container.
    pub id: ContainerId,
    /// Whether the condition was met; false when the wait timed out first.
    pub satisfied: bool,
    /// The state then; absent once removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    /// How the program ended, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why the start failed, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// `POST .../kill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KillRequest {
    /// `SIGKILL` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Every process in the container, not only PID 1.
    pub all: bool,
}

/// `POST .../stop` and `.../restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// The container's own stop signal when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Seconds until SIGKILL; the container's own when absent; 0 kills at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}
