//! From a stored or requested configuration to its spec, with what this machine says to it.

use littlebox_types::ContainerConfig;

use super::{EngineError, limits, machine};
use crate::spec::{self, Prepared, SpecContext};

/// Checks a configuration and makes the spec from it.
///
/// # Errors
/// The first value that is wrong, or that this machine does not have.
pub(super) fn prepare(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Prepared, EngineError> {
    let resolved = ContainerConfig {
        resources: limits::on_this_machine(&config.resources)?,
        ..config.clone()
    };
    let mut prepared = spec::prepare(&resolved, ctx)?;
    machine::complete(config, &mut prepared)?;
    Ok(prepared)
}

/// [`prepare`] of a container that was made already: what the machine has lost since is no error,
/// only left out.
pub(super) fn prepare_again(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Prepared, EngineError> {
    let resolved = ContainerConfig {
        resources: limits::without_missing_devices(&config.resources),
        ..config.clone()
    };
    let mut prepared = spec::prepare(&resolved, ctx)?;
    machine::complete_as_far_as_possible(config, &mut prepared);
    Ok(prepared)
}
