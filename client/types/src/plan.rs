//! How a container is built, step by step.

use serde::{Deserialize, Serialize};

use super::Failure;

/// `GET .../plan` and `POST /v1/containers?dry_run`: how the container is (was) built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<PlanStep>,
    /// Namespace inodes before and after, once started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<PlanNamespace>,
    /// Nanoseconds from the reading of the plan to the program's start, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<u64>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// `pivot_root`, ...
    pub step: String,
    /// A sentence: what happens and why.
    pub what: String,
    /// Equivalent shell commands (`unshare`, `mount`, `pivot_root`, ...), where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Nanoseconds since the plan was read, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// Nanoseconds it took, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// The failure, when this is the step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A namespace before and after a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNamespace {
    /// `mnt`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Inode on the host.
    pub host: u64,
    /// Inode in the container.
    pub container: u64,
}
