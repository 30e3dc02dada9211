//! Remove: the row first, then what lies on the disk.
//!
//! The durable commit that deletes the row and leaves a tombstone is the moment of removal. What
//! is left on the disk after it (directories, in a crash also a cgroup) has a name derived from an
//! id that no row has any more, and is swept by the next start of the daemon. So a removal that
//! was begun is never stuck, and removing takes one commit.

use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::bounds;
use littlebox_types::{ContainerState, WaitResult};

use super::end::StopOptions;
use crate::engine::change::event;
use crate::engine::host::cgroups::cgroup_exists;
use crate::engine::{Engine, EngineError, Handle, settle};
use crate::faults;
use crate::lifecycle::{self, Transition};
use crate::store::{StoreError, Write};

/// How long the removal of a container with an announced foreground client waits for it.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// Removes a container; one that runs only with `force`. Returns whether it was gone within
    /// `wait`; the removal goes on regardless.
    pub async fn remove(
        self: &Arc<Self>,
        reference: &str,
        force: bool,
        wait: Option<Duration>,
    ) -> Result<(Arc<Handle>, bool), EngineError> {
        let handle = self.find(reference)?;
        if !force {
            handle.live().may(Transition::Remove)?;
        }
        let (engine, removed) = (self.clone(), handle.clone());
        // A task of its own: when the caller's time is up, only the waiting ends.
        let removal = tokio::spawn(async move {
            let task = engine.clone();
            engine
                .detached(async move { task.end_and_remove(&removed, force).await })
                .await
        });
        let limit = wait.unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, removal).await {
            Ok(result) => result
                .unwrap_or(Err(EngineError::Task))
                .map(|()| (handle, true)),
            Err(_elapsed) => Ok((handle, false)),
        }
    }

    async fn end_and_remove(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        force: bool,
    ) -> Result<(), EngineError> {
        // Until it is gone: nothing that waits starts it again in between.
        let ending = force.then(|| handle.operations.end());
        loop {
            if force && lifecycle::is_live(handle.state()) {
                let reference = handle.id.to_string();
                let options = StopOptions {
                    grace: Some(Duration::ZERO),
                    ..StopOptions::default()
                };
                // Returns once it has ended.
                match self.stop(&reference, options).await {
                    // It has ended, or another start or removal came first: look again.
                    Ok(_) | Err(EngineError::Illegal { .. }) => {}
                    Err(EngineError::ContainerNotFound(_)) => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
            let _turn = match &ending {
                Some(end) => end.turn().await,
                None => handle.operations.turn().await,
            };
            if handle.live().removed {
                return Ok(());
            }
            self.look_before_removal(handle).await;
            // Without force a container that was started meanwhile is refused by the table.
            if !force || !lifecycle::is_live(handle.state()) {
                return self.remove_locked(handle).await;
            }
        }
    }

    /// What the record says has ended may have left something that runs: the cgroup and the run
    /// directory tell.
    async fn look_before_removal(self: &Arc<Self>, handle: &Arc<Handle>) {
        if lifecycle::is_live(handle.state()) {
            return;
        }
        let run_dir = self.paths.run_dir(handle.id);
        let cgroup = self.paths.container_cgroup(handle.id);
        // Any error but that nothing is there is no answer.
        let gone = |found: std::io::Result<bool>| matches!(found, Ok(false));
        if !gone(run_dir.try_exists()) || !gone(cgroup_exists(&cgroup)) {
            settle(self, handle).await;
        }
    }

    /// Removes a container that does not run; the caller holds the operation's lock.
    pub(crate) async fn remove_locked(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
    ) -> Result<(), EngineError> {
        let before = {
            let mut live = handle.live();
            let before = live.record.clone();
            live.transition(Transition::Remove)?;
            before
        };
        faults::point("remove.intent");
        let mut committed = self.commit_removal(handle).await;
        if matches!(committed, Err(StoreError::Full)) && self.store.give_up_reserve() {
            committed = self.commit_removal(handle).await;
        }
        if matches!(committed, Err(StoreError::Full)) {
            // Whoever removes a container on a full disk wants its space: give it up first.
            self.remove_files(handle.id).await;
            committed = self.commit_removal(handle).await;
        }
        if let Err(error) = committed {
            handle.live().record = before;
            self.store.restore_reserve();
            return Err(error.into());
        }
        faults::point("remove.after");
        self.forget(handle);
        let (engine, id) = (self.clone(), handle.id);
        self.background(async move {
            engine.remove_files(id).await;
            engine.store.restore_reserve();
        });
        Ok(())
    }

    async fn commit_removal(&self, handle: &Handle) -> Result<(), StoreError> {
        let writes = {
            let live = handle.live();
            let record = &live.record;
            let tombstone = WaitResult {
                id: record.id,
                satisfied: true,
                state: None,
                exit: record.exit.clone(),
                failure: record.failure.clone(),
            };
            vec![
                Write::RemoveContainer {
                    id: record.id,
                    name: record.name.to_string(),
                    result: serde_json::to_string(&tombstone).unwrap_or_default(),
                },
                Write::Event(event(record, "container.removed", serde_json::json!({}))),
            ]
        };
        // Nobody was promised an automatic removal: it needs no fsync of its own.
        let durable = !handle.live().record.auto_remove;
        self.store.commit(writes, durable).await
    }

    /// Removes a container with `auto_remove` once its announced client has read everything.
    pub(crate) fn schedule_auto_remove(self: &Arc<Self>, handle: &Arc<Handle>) {
        let (engine, handle) = (self.clone(), handle.clone());
        // Not tracked: a shutdown does not wait for a client; the next daemon removes it.
        tokio::spawn(async move {
            let run = handle.live().run;
            let (announced, failed) = {
                let live = handle.live();
                let failed = live.record.state == ContainerState::Failed;
                (live.record.attach, failed)
            };
            // Who asked for a start that failed was told so, and has nothing to attach to.
            if announced && !failed {
                handle.clients_gone().await;
            }
            let removal = engine.clone();
            let result = engine
                .detached(async move {
                    let _turn = handle.operations.turn().await;
                    // Started again meanwhile: then the next end removes it.
                    let stale = {
                        let live = handle.live();
                        live.removed || live.run != run || lifecycle::is_live(live.record.state)
                    };
                    if stale {
                        Ok(())
                    } else {
                        removal.remove_locked(&handle).await
                    }
                })
                .await;
            if let Err(error) = result {
                tracing::warn!(%error, "an automatic removal did not succeed");
            }
        });
    }

    /// Takes back a launch whose row could not be written.
    pub(super) async fn undo_launch(self: &Arc<Self>, handle: &Arc<Handle>) {
        if lifecycle::is_live(handle.state()) {
            let id = handle.id.to_string();
            if let Err(error) = self.kill(&id, 9, false).await {
                tracing::warn!(%id, %error, "cannot end a container that was not recorded");
            }
            handle.ended_within(Some(bounds::END)).await;
        }
        // The insert failed, so later updates of the row found nothing; the caller forgets the rest.
    }
}

impl Handle {
    /// Waits until the announced foreground client has come and gone, or did not come in time.
    async fn clients_gone(&self) {
        let mut changed = self.watch();
        let came = async {
            loop {
                let clients = self.live().clients;
                if clients.open > 0 || clients.served {
                    return;
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CLIENT_PATIENCE, came).await.is_err() {
            return;
        }
        let mut changed = self.watch();
        while self.live().clients.open > 0 {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
