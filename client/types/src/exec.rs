//! Execs: processes started inside a running container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CapabilityChange, ContainerId, ExecId, Exit, Failure, Signal, TermSize, UserSpec};

/// `POST /v1/containers/{c}/execs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecConfig {
    /// The program and its arguments. Required, not empty.
    pub command: Vec<String>,
    /// Beside the container's own environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The container's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The container's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserSpec>,
    /// Give it a terminal.
    pub terminal: bool,
    /// The terminal's first size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TermSize>,
    /// Keep stdin open for attached clients.
    pub stdin: bool,
    /// What stdin is to read, then end of file; not together with `stdin`. At most 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// A foreground client will attach: output is lossless towards it.
    pub attach: bool,
    /// Milliseconds after which it is killed, with all that it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Against the container's own set.
    pub capabilities: CapabilityChange,
    /// All capabilities, and no seccomp filter.
    pub privileged: bool,
    /// Bytes of output that are kept; 16 MiB when absent, 0 for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u64>,
}

/// The state of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// Being started.
    Starting,
    /// Runs.
    Running,
    /// Ended.
    Exited,
    /// Could not be started.
    Failed,
}

/// An exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Id.
    pub id: ExecId,
    /// Where it runs.
    pub container_id: ContainerId,
    /// State.
    pub state: ExecState,
    /// The program.
    pub command: Vec<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// PID on the host while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What could not be done and was not essential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// With `?wait=`, once it ended: what it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<InlineOutput>,
}

/// Output inside an answer; at most 1 MiB per stream, the rest is read from `.../output`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error; empty with a terminal.
    pub stderr: String,
    /// How the two are written.
    pub encoding: OutputEncoding,
    /// There is more than is shown.
    pub truncated: bool,
}

/// How bytes are written into a JSON string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputEncoding {
    /// As they are.
    #[default]
    Utf8,
    /// Base 64, because they are not UTF-8.
    Base64,
}

/// `POST /v1/execs/{e}/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// What to send.
    pub signal: Signal,
}
