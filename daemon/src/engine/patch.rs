//! Changing a container that is there: its name, its labels, its restart policy, its limits.
//!
//! All of it or nothing. The limits of a container that runs are written first, because only the
//! kernel can refuse them; whatever fails after that sets them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use lbctl::types::{ContainerConfig, ContainerPatch, Name, Resources};
use littlebox_helper::protocol::{Call, Reply, ResourcePlan};
use littlebox_plan::cgroup;

use super::error::describe_step;
use super::restart_policy::RestartState;
use super::{Engine, EngineError, Handle, SaveExtra, event, limits};
use crate::lifecycle;
use crate::spec::{self, ConfigError};
use crate::store::{StoreError, Write};
use crate::supervisor::{Helper, HelperError};

/// Limits to be changed, checked.
#[derive(Debug)]
struct NewLimits {
    config: Arc<ContainerConfig>,
    /// What is written to come to them.
    forth: ResourcePlan,
    /// What is written to come back.
    back: ResourcePlan,
}

/// What a patch replaces.
#[derive(Debug)]
struct Before {
    name: Name,
    labels: BTreeMap<String, String>,
    restart: RestartState,
    config: Option<Arc<ContainerConfig>>,
}

impl Engine {
    /// Changes a container's name, labels, restart policy or limits.
    ///
    /// # Errors
    /// Nothing has changed then. [`EngineError::UpdateFailed`]: the kernel refuses a limit.
    pub async fn patch(
        self: &Arc<Self>,
        reference: &str,
        patch: ContainerPatch,
        expected: Option<u64>,
    ) -> Result<Arc<Handle>, EngineError> {
        if let Some(labels) = &patch.labels {
            spec::check_labels(labels)?;
        }
        let handle = self.find(reference)?;
        if let Some(restart) = &patch.restart {
            spec::check_restart(restart, handle.record().auto_remove)?;
        }
        let engine = self.clone();
        self.detached(async move {
            let _operation = handle.operation.lock().await;
            check_generation(&handle, expected)?;
            let limits = engine.new_limits(&handle, &patch).await?;
            let written = match &limits {
                Some(limits) => write_limits(&handle, &limits.forth).await?,
                None => None,
            };
            let result = engine.record_patch(&handle, patch, limits.as_ref()).await;
            if let (Err(_), Some(helper), Some(limits)) = (&result, written, &limits)
                && let Err(error) = update(&helper, &limits.back).await
            {
                tracing::error!(id = %handle.id, %error, "limits could not be set back");
            }
            result?;
            handle.notify();
            Ok(handle.clone())
        })
        .await
    }

    /// The limits that the patch comes to; nothing is changed yet.
    async fn new_limits(
        &self,
        handle: &Handle,
        patch: &ContainerPatch,
    ) -> Result<Option<NewLimits>, EngineError> {
        let Some(change) = &patch.resources else {
            return Ok(None);
        };
        let config = self.config(handle).await?;
        let resources = change.apply(&config.resources);
        let new = limits_of(&limits::on_this_machine(&resources)?)?;
        // What the machine had at the create may be gone; what was set in it is then, too.
        let old = limits::without_missing_devices(&config.resources);
        let old = limits_of(&old)?;
        if lifecycle::is_live(handle.state()) {
            check_lifted_files(&old, &new)?;
        }
        let config = ContainerConfig {
            resources,
            ..(*config).clone()
        };
        Ok(Some(NewLimits {
            config: Arc::new(config),
            forth: cgroup::difference(&old, &new),
            back: cgroup::difference(&new, &old),
        }))
    }

    /// Records the patch and waits until that is durable.
    async fn record_patch(
        &self,
        handle: &Arc<Handle>,
        patch: ContainerPatch,
        limits: Option<&NewLimits>,
    ) -> Result<(), EngineError> {
        let (before, committed) = self.apply_patch(handle, patch, limits)?;
        let Err(error) = committed.await.unwrap_or(Err(StoreError::Closed)) else {
            return Ok(());
        };
        // What was refused may not be shown either.
        let mut live = handle.live();
        self.rename(handle, &mut live, before.name)?;
        live.record.labels = before.labels;
        live.record.restart = before.restart;
        live.config = before.config;
        Err(error.into())
    }

    fn apply_patch(
        &self,
        handle: &Arc<Handle>,
        patch: ContainerPatch,
        limits: Option<&NewLimits>,
    ) -> Result<
        (
            Before,
            tokio::sync::oneshot::Receiver<Result<(), StoreError>>,
        ),
        EngineError,
    > {
        let mut live = handle.live();
        let before = Before {
            name: live.record.name.clone(),
            labels: live.record.labels.clone(),
            restart: live.record.restart.clone(),
            config: live.config.clone(),
        };
        let mut kind = "container.updated";
        if let Some(name) = patch.name.filter(|n| *n != live.record.name) {
            self.rename(handle, &mut live, name)?;
            kind = "container.renamed";
        }
        if let Some(labels) = patch.labels {
            live.record.labels = labels;
        }
        if let Some(policy) = patch.restart {
            live.record.restart.change(policy);
        }
        let mut data = serde_json::json!({ "old_name": before.name.to_string() });
        let mut extra = SaveExtra {
            durable: true,
            ..SaveExtra::default()
        };
        if let Some(limits) = limits {
            data["resources"] = serde_json::to_value(&patch.resources).unwrap_or_default();
            extra.writes.push(Write::Config {
                id: handle.id,
                config: serde_json::to_string(&*limits.config).unwrap_or_default(),
            });
            if live.config.is_some() {
                live.config = Some(limits.config.clone());
            }
        }
        live.record.generation += 1;
        let told = event(&live.record, kind, data);
        let committed = self.save(&live, Some(told), extra);
        Ok((before, committed))
    }
}

fn check_generation(handle: &Handle, expected: Option<u64>) -> Result<(), EngineError> {
    let live = handle.live();
    if live.removed {
        return Err(EngineError::ContainerNotFound(live.record.name.to_string()));
    }
    let current = live.record.generation;
    if expected.is_some_and(|e| e != current) {
        return Err(EngineError::PreconditionFailed { current });
    }
    Ok(())
}

fn limits_of(resources: &Resources) -> Result<ResourcePlan, EngineError> {
    let limits = spec::limits(resources)?;
    cgroup::plan_resources(&limits).map_err(|e| {
        EngineError::Config(ConfigError {
            pointer: e.pointer.trim_start_matches("/linux").to_owned(),
            detail: e.message,
            hint: None,
        })
    })
}

/// What a file held before littlebox wrote to it, nobody knows any more.
fn check_lifted_files(old: &ResourcePlan, new: &ResourcePlan) -> Result<(), EngineError> {
    let lifted = old.unified.keys().find(|k| !new.unified.contains_key(*k));
    let Some(file) = lifted else { return Ok(()) };
    Err(EngineError::Config(ConfigError {
        pointer: "/resources/unified".into(),
        detail: format!("{file} cannot be lifted while the container runs"),
        hint: Some(format!("set {file} to its default instead")),
    }))
}

/// Has the helper of a container that runs write the limits. Returns the helper that has.
async fn write_limits(
    handle: &Handle,
    limits: &ResourcePlan,
) -> Result<Option<Helper>, EngineError> {
    let helper = {
        let live = handle.live();
        let runs = lifecycle::is_live(live.record.state);
        live.helper.clone().filter(|_| runs)
    };
    let Some(helper) = helper.filter(|_| !limits.is_empty()) else {
        return Ok(None);
    };
    match update(&helper, limits).await {
        Ok(cgroups) => {
            handle.live().record.cgroups = cgroups;
            Ok(Some(helper))
        }
        // It has just ended: the limits are for its next start.
        Err(HelperError::Gone) => Ok(None),
        Err(HelperError::Step(failure)) => Err(EngineError::UpdateFailed(Box::new(describe_step(
            &failure, "",
        )))),
        Err(error) => Err(error.into()),
    }
}

/// The cgroup directories after it.
async fn update(
    helper: &Helper,
    limits: &ResourcePlan,
) -> Result<BTreeMap<String, String>, HelperError> {
    let call = Call::Update {
        resources: Box::new(limits.clone()),
    };
    match helper.call(call).await? {
        (Reply::Updated { cgroups }, _) => Ok(cgroups
            .into_iter()
            .map(|(name, path)| (name, path.to_string_lossy().into_owned()))
            .collect()),
        _ => Err(HelperError::Protocol),
    }
}
