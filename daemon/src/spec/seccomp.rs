//! The seccomp filter of a container or of an exec in it.

use littlebox_plan::PlanError;
use littlebox_plan::seccomp::{Compiler, check_init};
use littlebox_protocol::SeccompPlan;
use littlebox_types::{ContainerConfig, Seccomp};
use serde_json::Value;

use super::ConfigError;

/// The filter of a container's program, and of its init.
pub(super) fn of_container(
    config: &ContainerConfig,
    capabilities: u64,
    compiler: &Compiler,
) -> Result<Option<SeccompPlan>, ConfigError> {
    let filter = filter(config, capabilities, compiler)?;
    match &filter {
        Some(filter) if config.init => check_init(filter).map_err(of_profile)?,
        _ => {}
    }
    Ok(filter)
}

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
    filter.map(Some).map_err(of_profile)
}

fn of_profile(error: PlanError) -> ConfigError {
    ConfigError {
        pointer: format!("/seccomp{}", error.pointer),
        detail: error.message,
        hint: Some(
            "give \"default\", \"unconfined\" or a profile as Docker and Podman take it".into(),
        ),
    }
}
