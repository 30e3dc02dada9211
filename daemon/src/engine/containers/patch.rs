//! Changing a container that is there: its name, its labels, its restart policy, its limits.
//!
//! All of it or nothing. The limits of a container that runs are written first, because only the
//! kernel can refuse them; whatever fails after that sets them back. What brings them back is
//! recorded before, so that a daemon which dies in between leaves it to the next one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use littlebox_plan::cgroup;
use littlebox_protocol::{Call, Reply, ResourcePlan};
use littlebox_types::{ContainerConfig, ContainerPatch, Name, Resources};

use crate::engine::error::describe_step;
use crate::engine::handle::Live;
use crate::engine::host::{limits, looking};
use crate::engine::policies::restart::RestartState;
use crate::engine::{Engine, EngineError, Handle, Recording};
use crate::faults;
use crate::lifecycle;
use crate::spec::{self, ConfigError};
use crate::store::{Queued, Write};
use crate::supervisor::HelperError;

/// How long it may take to know what became of a container whose connection was lost.
const LOSS_PATIENCE: Duration = Duration::from_secs(15);

/// Limits to be changed, checked.
#[derive(Debug)]
struct NewLimits {
    config: Arc<ContainerConfig>,
    /// What is written to come to them.
    forth: ResourcePlan,
    /// What is written to come back.
    back: ResourcePlan,
}

impl NewLimits {
    /// Takes them into the config, and forgets the way back to the old ones.
    fn set(&self, live: &mut Live, recording: &mut Recording) {
        live.record.limits_back = None;
        recording.writes.push(Write::Config {
            id: live.record.id,
            config: serde_json::to_string(&*self.config).unwrap_or_default(),
        });
        if live.config.is_some() {
            live.config = Some(self.config.clone());
        }
    }
}

/// What a patch replaces.
#[derive(Debug)]
struct Before {
    name: Name,
    labels: BTreeMap<String, String>,
    restart: RestartState,
    limits_back: Option<Box<ResourcePlan>>,
    config: Option<Arc<ContainerConfig>>,
}

impl Engine {
    /// Changes a container's name, labels, restart policy or limits.
    ///
    /// # Errors
    /// Nothing has changed then. [`EngineError::UpdateFailed`]: the kernel refuses a limit; it says
    /// when others could not be set back.
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
            let _turn = handle.operations.turn().await;
            check_generation(&handle, expected)?;
            let limits = engine.new_limits(&handle, &patch);
            let limits = handle.unless_it_ends(limits).await?;
            if let Some(limits) = &limits {
                engine.write_limits(&handle, limits).await?;
                faults::point("patch.written");
            }
            let result = engine.record_patch(&handle, patch, limits.as_ref()).await;
            if result.is_err() {
                engine.set_limits_back(&handle).await;
            }
            result?;
            Ok(handle.clone())
        })
        .await
    }

    /// The limits that the patch comes to; nothing is changed yet.
    async fn new_limits(
        self: &Arc<Self>,
        handle: &Handle,
        patch: &ContainerPatch,
    ) -> Result<Option<NewLimits>, EngineError> {
        let Some(change) = &patch.resources else {
            return Ok(None);
        };
        let config = self.config(handle).await?;
        let resources = change.apply(&config.resources);
        let (asked, before) = (resources.clone(), config.clone());
        let mut disks = looking::disks(&asked);
        disks.extend(looking::disks(&before.resources));
        let (new, old) = self
            .look(disks, move |_| {
                let new = limits_of(&limits::on_this_machine(&asked)?)?;
                // What the machine had at the create may be gone; what was set in it is then, too.
                let old = limits::without_missing_devices(&before.resources);
                Ok((new, limits_of(&old)?))
            })
            .await?;
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

    /// Has the helper of a container that runs write the limits.
    async fn write_limits(&self, handle: &Handle, limits: &NewLimits) -> Result<(), EngineError> {
        if limits.forth.is_empty() || !lifecycle::is_live(handle.state()) {
            return Ok(());
        }
        // What an earlier change left comes first: this one's way back would not know of it.
        if !self.set_limits_back(handle).await {
            return Err(EngineError::NotAvailable(
                "the limits of an earlier change that failed cannot be set back yet".into(),
            ));
        }
        let back = Some(Box::new(limits.back.clone()));
        self.record_way_back(handle, back).await?;
        let error = match update_over_losses(handle, &limits.forth).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // The helper has undone what it wrote, as far as it could: this makes sure of it.
        let restored = self.set_limits_back(handle).await;
        Err(match error {
            EngineError::Helper(HelperError::Step(failure)) => EngineError::UpdateFailed {
                failure: Box::new(describe_step(&failure, "")),
                restored,
            },
            error => error,
        })
    }

    /// Records what brings the limits back, before others are written. Survives the daemon's death;
    /// with the machine the limits go, too.
    async fn record_way_back(
        &self,
        handle: &Handle,
        back: Option<Box<ResourcePlan>>,
    ) -> Result<(), EngineError> {
        let noted = self.change(handle, |live, _| {
            live.record.limits_back = back;
            Ok::<_, EngineError>(())
        });
        Ok(noted?.1.committed().await?)
    }

    /// Sets the limits back to the recorded ones after a change that failed, or whose daemon died.
    /// `false`: it cannot be done now, and is tried again before the next change and at the next
    /// start of the daemon.
    pub(in crate::engine) async fn set_limits_back(&self, handle: &Handle) -> bool {
        let Some(back) = handle.live().record.limits_back.clone() else {
            return true;
        };
        if let Err(error) = update_over_losses(handle, &back).await {
            tracing::error!(id = %handle.id, %error, "limits could not be set back");
            return false;
        }
        if let Err(error) = self.record_way_back(handle, None).await {
            // They are written once more then, which changes nothing.
            tracing::warn!(id = %handle.id, %error, "cannot record that limits were set back");
        }
        true
    }

    /// Records the patch and waits until that is durable.
    async fn record_patch(
        &self,
        handle: &Arc<Handle>,
        patch: ContainerPatch,
        limits: Option<&NewLimits>,
    ) -> Result<(), EngineError> {
        let (before, queued) = self.apply_patch(handle, patch, limits)?;
        let result = queued.committed().await;
        let unused = match result {
            Ok(()) => before.name,
            Err(_) => self.take_back(handle, before),
        };
        self.release_name(handle, &unused);
        Ok(result?)
    }

    /// What was refused may not be shown either; and something else may have been recorded meanwhile
    /// with all of it. Returns the refused name.
    fn take_back(&self, handle: &Handle, before: Before) -> Name {
        let taken = self.change(handle, |live, _| {
            let refused = std::mem::replace(&mut live.record.name, before.name);
            live.record.labels = before.labels;
            live.record.restart = before.restart;
            live.record.limits_back = before.limits_back;
            live.config = before.config;
            Ok::<_, Infallible>(refused)
        });
        let Ok((refused, _queued)) = taken;
        refused
    }

    fn apply_patch(
        &self,
        handle: &Arc<Handle>,
        patch: ContainerPatch,
        limits: Option<&NewLimits>,
    ) -> Result<(Before, Queued), EngineError> {
        // Only who holds the operation's lock changes the name.
        let old_name = handle.record().name;
        let new_name = patch.name.filter(|n| *n != old_name);
        if let Some(name) = &new_name {
            self.claim_name(handle, name)?;
        }
        self.change(handle, |live, recording| {
            let before = Before {
                name: live.record.name.clone(),
                labels: live.record.labels.clone(),
                restart: live.record.restart.clone(),
                limits_back: live.record.limits_back.clone(),
                config: live.config.clone(),
            };
            let mut kind = "container.updated";
            let mut data = serde_json::json!({});
            if let Some(name) = new_name {
                kind = "container.renamed";
                data["old_name"] = before.name.to_string().into();
                live.record.name = name;
            }
            if let Some(labels) = patch.labels {
                live.record.labels = labels;
            }
            if let Some(policy) = patch.restart {
                live.record.restart.change(policy);
            }
            if let Some(limits) = limits {
                limits.set(live, recording);
                data["resources"] = serde_json::to_value(&patch.resources).unwrap_or_default();
            }
            live.record.generation += 1;
            recording.durable = true;
            recording.event(kind, data);
            Ok(before)
        })
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

/// Has the helper write limits. A lost connection is no answer: what became of the container is
/// waited for. One that has ended needs none: its next start writes what is recorded.
async fn update_over_losses(handle: &Handle, limits: &ResourcePlan) -> Result<(), EngineError> {
    let mut changed = handle.watch();
    let deadline = tokio::time::Instant::now() + LOSS_PATIENCE;
    loop {
        let helper = {
            let live = handle.live();
            if !lifecycle::is_live(live.record.state) {
                return Ok(());
            }
            live.helper.clone()
        };
        if let Some(helper) = helper.filter(|h| !h.is_gone()) {
            let resources = Box::new(limits.clone());
            let due = handle.due(&helper, Call::Update { resources }).await?;
            match updated(due.call().await) {
                Ok(cgroups) => {
                    handle.live().record.cgroups = cgroups;
                    return Ok(());
                }
                Err(HelperError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            // Of one that cannot be asked this is the error.
            handle.running_helper("new limits")?;
        }
        if tokio::time::timeout_at(deadline, changed.changed())
            .await
            .is_err()
        {
            return Err(HelperError::Gone.into());
        }
    }
}

/// The cgroup directories after it.
fn updated(
    answer: Result<(Reply, Vec<OwnedFd>), HelperError>,
) -> Result<BTreeMap<String, String>, HelperError> {
    match answer? {
        (Reply::Updated { cgroups }, _) => Ok(cgroups
            .into_iter()
            .map(|(name, path)| (name, path.to_string_lossy().into_owned()))
            .collect()),
        _ => Err(HelperError::Protocol),
    }
}
