//! The seccomp filter of a container or of an exec in it.

use lbctl::types::{ContainerConfig, Seccomp};
use littlebox_helper::protocol::SeccompPlan;
use littlebox_plan::seccomp::Compiler;
use serde_json::Value;

use super::ConfigError;

/// The filter for a program with these capabilities. A privileged container has none unless it
/// asks for one.
pub(super) fn filter(
    config: &ContainerConfig,
    capabilities: u64,
    compiler: &Compiler,
) -> Result<Option<SeccompPlan>, ConfigError> {
    let filter = match &config.seccomp {
        Some(Seccomp::Unconfined) => return Ok(None),
        None if config.privileged => return Ok(None),
        None | Some(Seccomp::Default) => compiler.default_filter(capabilities),
        Some(Seccomp::Profile(profile)) => {
            compiler.filter(&Value::Object(profile.clone()), capabilities)
        }
    };
    filter.map(Some).map_err(|error| ConfigError {
        pointer: format!("/seccomp{}", error.pointer),
        detail: error.message,
        hint: Some(
            "give \"default\", \"unconfined\" or a profile as Docker and Podman take it".into(),
        ),
    })
}
