//! From an API request to an OCI runtime spec.
//!
//! [`prepare`] checks everything of a container's configuration that does not need the machine's
//! state, and makes the spec from it, with littlebox's defaults. It is pure: no file is opened.

mod names;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lbctl::types::{ContainerConfig, ContainerId, ExecConfig};
use littlebox_helper::protocol::{Injection, NamespaceKind, TerminalSize, UserPlan};
use oci_spec::runtime::{Process, Spec};

pub use names::{errno_name, parse_signal, signal_name};

/// What [`prepare`] must know beside the request.
#[derive(Debug, Clone, Copy)]
pub struct SpecContext<'a> {
    /// The container's id; its last 12 hex digits are the default host name.
    pub id: &'a ContainerId,
}

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The spec. A namespace that is joined by container name is not in it: the daemon opens it
    /// and says so in the envelope.
    pub spec: Spec,
    /// What the root is made from.
    pub root: RootSource,
    /// Where each of the eight namespaces comes from.
    pub namespaces: BTreeMap<NamespaceKind, NamespaceSource>,
    /// Who runs the program; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// The log's bounds.
    pub log: LogSettings,
    /// The signal that asks the program to end.
    pub stop_signal: i32,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// Bind sources to make as directories when they are missing.
    pub create_sources: Vec<PathBuf>,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// The failure that the label `littlebox.test/inject` asks for. The caller honours it only
    /// when the daemon runs with test faults.
    pub inject: Option<Injection>,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSource {
    /// A fresh one.
    New,
    /// The host's.
    Host,
    /// That of another container: its id, name, or a prefix of its id.
    Container(String),
    /// That of a process of the host.
    Pid(u32),
}

/// What the root is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A copy-on-write view of the machine's own root.
    Host,
    /// An absolute host path of a directory.
    Dir(PathBuf),
}

/// The log's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes per file; `None`: it is never rotated.
    pub max_size: Option<u64>,
    /// Rotated files that are kept.
    pub max_files: u32,
}

/// An exec's configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedExec {
    /// The OCI process object.
    pub process: Process,
    /// Who runs it; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// Bounds of its output: one file of so many bytes (`max_size`), `None` for no bound.
    pub log: LogSettings,
    /// Killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// Make the working directory when it is missing (never for an exec: it must be there).
    pub create_cwd: bool,
}

/// Why a request cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct ConfigError {
    /// JSON pointer (RFC 6901) into the request's body.
    pub pointer: String,
    /// What is wrong, with what.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Checks a container's configuration and makes its OCI runtime spec.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer.
pub fn prepare(_config: &ContainerConfig, _ctx: &SpecContext<'_>) -> Result<Prepared, ConfigError> {
    Err(ConfigError { pointer: String::new(), detail: "not written yet".into(), hint: None })
}

/// Checks an exec's configuration against its container's and makes its OCI process object.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer into the exec's body.
pub fn exec_process(
    _config: &ExecConfig,
    _container: &ContainerConfig,
) -> Result<PreparedExec, ConfigError> {
    Err(ConfigError { pointer: String::new(), detail: "not written yet".into(), hint: None })
}
