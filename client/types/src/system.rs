//! The daemon and the machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// `littlebox`.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// `v1`.
    pub api_version: String,
    /// `uname -r`.
    pub kernel: String,
    /// Kernel features found, by name: `cgroup`: `v2`|`hybrid`|`v1`|`none`, `pidfs`, `overlay`...
    pub features: BTreeMap<String, serde_json::Value>,
    /// Limits a client must know: `body_bytes`, `name_chars`, `page_items`, ...
    pub limits: BTreeMap<String, u64>,
}

/// `GET /v1/system`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// The daemon's PID.
    pub pid: u32,
    /// The zygote's PID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zygote_pid: Option<u32>,
    /// When the daemon started, RFC 3339.
    pub started_at: String,
    /// Where things are.
    pub paths: BTreeMap<String, String>,
    /// Containers by state.
    pub containers: BTreeMap<String, u64>,
    /// The storage driver for roots: `overlay`.
    pub storage_driver: String,
    /// How cgroups are mounted: `v2`, `hybrid`, `v1`, `none`.
    pub cgroup: String,
    /// The cgroup below which containers live.
    pub cgroup_parent: String,
    /// Sequence number of the newest event.
    pub last_event_seq: u64,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// By part (`database`, `zygote`, `state_dir`): `ok` or what is wrong.
    pub checks: BTreeMap<String, String>,
}
