//! From an OCI runtime spec to a launch plan.
//!
//! The daemon turns an API request into a [`Spec`](oci_spec::runtime::Spec), the OCI command line
//! reads one from `config.json`; both come through [`launch_plan`], so nothing can be built in one
//! way and not in the other. What a spec does not say (log, stdio, cgroup path, descriptors) is in
//! the [`Envelope`]. The module is pure: it looks at no file and asks no kernel.
//!
//! A spec that asks for something which a [`LaunchPlan`] cannot express is refused, with a JSON
//! pointer into `config.json`: a protection that was asked for is never dropped in silence.

pub mod amend;
pub mod capability;
pub mod cgroup;
pub mod clocks;
mod envelope;
pub mod explain;
mod foreign_mounts;
pub mod hooks;
pub mod idmap;
pub mod labels;
mod launch;
mod mount;
pub mod pointer;
mod process;
pub mod scheduling;
pub mod seccomp;
pub mod sysctl;
mod unsupported;

pub use envelope::{Authority, Envelope, ExecEnvelope};
pub use launch::{launch_plan, namespace_kind, namespace_path};
pub use mount::mount_options;
pub use process::{exec_plan, rlimit_name};

/// The newest version of the OCI runtime specification whose words are known here.
pub const SPEC_VERSION: &str = "1.2.1";

/// Why a spec cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct PlanError {
    /// JSON pointer (RFC 6901) into `config.json`.
    pub pointer: String,
    /// What is wrong, with what, and what to do; lower case, no full stop.
    pub message: String,
}

impl PlanError {
    fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }

    /// The same of a value that stands at `pointer` of a greater document.
    fn below(self, pointer: &str) -> Self {
        Self {
            pointer: format!("{pointer}{}", self.pointer),
            ..self
        }
    }
}
