//! From a stored or requested configuration to its spec, with what this machine says to it.

use std::sync::Arc;

use littlebox_types::{ContainerConfig, ContainerId};

use crate::engine::host::{checks, limits, looking};
use crate::engine::{Engine, EngineError};
use crate::idpool::IdRange;
use crate::spec::{self, Prepared, SpecContext};

impl Engine {
    /// Checks a configuration and makes the spec from it.
    pub(in crate::engine) async fn prepare(
        self: &Arc<Self>,
        id: ContainerId,
        range: Option<IdRange>,
        config: Arc<ContainerConfig>,
    ) -> Result<Prepared, EngineError> {
        self.look(looking::named(&config), move |engine| {
            prepare(&config, &engine.context(&id, range))
        })
        .await
    }
}

/// Checks a configuration and makes the spec from it.
///
/// # Errors
/// The first value that is wrong, or that this machine does not have.
pub(in crate::engine) fn prepare(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Prepared, EngineError> {
    let resolved = ContainerConfig {
        resources: limits::on_this_machine(&config.resources)?,
        ..config.clone()
    };
    let mut prepared = spec::prepare(&resolved, ctx)?;
    checks::complete(config, &mut prepared)?;
    Ok(prepared)
}

/// [`prepare`] of a container that was made already: what the machine has lost since is no error,
/// only left out.
pub(in crate::engine) fn prepare_again(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Prepared, EngineError> {
    let resolved = ContainerConfig {
        resources: limits::without_missing_devices(&config.resources),
        ..config.clone()
    };
    let mut prepared = spec::prepare(&resolved, ctx)?;
    checks::complete_as_far_as_possible(config, &mut prepared);
    Ok(prepared)
}
