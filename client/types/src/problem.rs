//! Errors: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};

/// The body of every error, and the last record of a stream that failed after its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:littlebox:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short, fixed sentence for the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to what.
    pub detail: String,
    /// The request's id, `urn:uuid:...`; also in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Stable, for programs: see the list in `api.yaml`.
    pub code: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// JSON pointer into the request body (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The state that forbids the request (code `invalid_state`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The helper's step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `ENOENT` style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// `openat2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// What the call was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What a shell would have returned (126, 127), when a program could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The container or exec that was recorded although its start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
