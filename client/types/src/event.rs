//! Events: a durable, contiguous sequence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Contiguous from 1, but for a jump after a power cut and for events that are no longer kept; also the `id:` of a server-sent event.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// What happened: `container.created`, `container.started`, `container.exited`, ...
    pub kind: String,
    /// Id of what it happened to.
    pub id: String,
    /// Id of the container it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More, by kind: `exit_code`, `signal`, `step`, `old_name`...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, serde_json::Value>,
}
