//! Start: from a configuration to a running helper.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use littlebox_protocol::Launched;
use littlebox_types::{ContainerConfig, Failure};
use tokio::sync::watch;

use crate::engine::error::describe_start;
use crate::engine::files::NoCopies;
use crate::engine::record::{ProcessIdentity, Record, maps_of, mount_idmap};
use crate::engine::{Engine, EngineError, Handle};
use crate::faults;
use crate::idpool::IdRange;
use crate::lifecycle::Transition;
use crate::paths;
use crate::spec::{self, Prepared};
use crate::supervisor::{Helper, Incoming, StartError};
use crate::time::now_ns;

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A client, who is told when it fails.
    Client,
    /// Its restart policy, which tries again when it fails.
    Policy,
}

impl Engine {
    /// Starts a container that was created, has ended or has failed.
    pub async fn start(self: &Arc<Self>, reference: &str) -> Result<Arc<Handle>, EngineError> {
        let handle = self.find(reference)?;
        let engine = self.clone();
        self.detached(async move {
            let _turn = handle.operations.turn().await;
            engine.start_locked(&handle, Cause::Client).await?;
            Ok(handle.clone())
        })
        .await
    }

    /// Starts; the caller holds the operation's lock.
    pub(super) async fn start_locked(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        cause: Cause,
    ) -> Result<(), EngineError> {
        let config = self.config(handle).await?;
        handle.live().may(Transition::Start)?;
        let preparing = self.prepare_start(handle, &config);
        let prepared = handle.unless_it_ends(preparing).await;
        if cause == Cause::Client
            && let Err(error) = prepared
        {
            return Err(error);
        }
        // Nobody waits for the commit: if the daemon dies now, the helper's directory tells.
        self.change(handle, |live, recording| {
            live.transition(Transition::Start)?;
            live.record.begin_run(cause == Cause::Policy, &self.boot_id);
            recording.event("container.starting", serde_json::json!({}));
            Ok::<_, EngineError>(())
        })?;
        match prepared {
            Ok((prepared, no_copies)) => self.launch(handle, &config, prepared, no_copies).await,
            Err(error) => {
                let refusal = Refusal::Engine(error);
                Err(self.start_failed(handle, refusal).await)
            }
        }
    }

    /// Checks a container's configuration, and what it needs of the machine.
    async fn prepare_start(
        self: &Arc<Self>,
        handle: &Handle,
        config: &Arc<ContainerConfig>,
    ) -> Result<(Prepared, NoCopies), EngineError> {
        let no_copies = self.no_copies(handle).await?;
        let range = self.range_for_start(handle, config).await?;
        let prepared = self.prepare(handle.id, range, config.clone()).await?;
        Ok((prepared, no_copies))
    }

    /// The container's range of the pool, known to be its own. One that was recorded by a version
    /// without a pool gets its range now.
    async fn range_for_start(
        &self,
        handle: &Handle,
        config: &ContainerConfig,
    ) -> Result<Option<IdRange>, EngineError> {
        if !spec::takes_range(config)? {
            return Ok(None);
        }
        let recorded = handle.live().record.id_range;
        let range = match recorded {
            Some(range) => {
                self.ids.ensure(range).await?;
                range
            }
            None => self.ids.allocate(handle.id).await?,
        };
        let mut live = handle.live();
        live.record.id_range = Some(range);
        live.record.id_maps = Some(maps_of(range));
        Ok(Some(range))
    }

    /// Has a helper build the container. The state is `starting`; afterwards it is `running` or
    /// `failed`.
    pub(super) async fn launch(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        config: &Arc<ContainerConfig>,
        prepared: Prepared,
        _no_copies: NoCopies,
    ) -> Result<(), EngineError> {
        {
            // Whoever attached before the first start keeps following the same sender.
            let mut live = handle.live();
            live.config = Some(config.clone());
            if *live.ended.borrow() {
                live.ended = watch::Sender::new(false);
            }
        }
        let planning = self.plan_launch(handle, config, prepared);
        let built = match handle.unless_it_ends(planning).await {
            Ok((plan, fds)) => self
                .supervisor
                .launch(plan, &fds, handle.operations.is_held_up())
                .await
                .map_err(Refusal::Start),
            Err(error) => Err(Refusal::Engine(error)),
        };
        faults::point("launched.before");
        match built {
            Ok((helper, incoming, launched, pidfd)) => {
                self.started(handle, helper, incoming, launched, pidfd);
                faults::point("launched.after");
                Ok(())
            }
            Err(refusal) => Err(self.start_failed(handle, refusal).await),
        }
    }

    /// The program runs.
    fn started(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        helper: Helper,
        incoming: Incoming,
        launched: Launched,
        pidfd: OwnedFd,
    ) {
        let started = self.change(handle, |live, recording| {
            // The state is `starting`: only this task changes it.
            if let Err(error) = live.transition(Transition::Launched) {
                tracing::error!(id = %handle.id, %error, "a start in an unexpected state");
            }
            live.helper = Some(helper);
            live.pidfd = Some(Arc::new(pidfd));
            self.fill_identity(&mut live.record, &launched);
            live.record.started_at = Some(now_ns());
            let data = serde_json::json!({ "pid": launched.pid });
            recording.event("container.started", data);
            recording.launched = serde_json::to_string(&launched).ok();
            Ok::<_, Infallible>(())
        });
        let Ok(_queued) = started;
        self.listen(handle, incoming);
    }

    pub(in crate::engine) fn fill_identity(&self, record: &mut Record, launched: &Launched) {
        let identity = |pid, start_time| ProcessIdentity {
            pid,
            start_time,
            boot_id: self.boot_id.clone(),
        };
        record.process = Some(identity(launched.pid, launched.start_time));
        record.helper = Some(identity(launched.helper_pid, launched.helper_start_time));
        record.restart.boot_id.clone_from(&self.boot_id);
        record.warnings.clone_from(&launched.warnings);
        record.device_filter.clone_from(&launched.device_filter);
        record.idmaps = launched.idmaps.iter().map(mount_idmap).collect();
        record.cgroups = launched
            .cgroups
            .iter()
            .map(|(name, path)| (name.clone(), path.to_string_lossy().into_owned()))
            .collect();
    }

    async fn start_failed(self: &Arc<Self>, handle: &Arc<Handle>, refusal: Refusal) -> EngineError {
        let program = handle
            .live()
            .record
            .command
            .first()
            .cloned()
            .unwrap_or_default();
        // A helper that says why it failed has undone what it made; one that was lost has not.
        let undone = matches!(
            refusal,
            Refusal::Start(StartError::Step(_)) | Refusal::Engine(_)
        );
        if !undone {
            self.remove_cgroup_of(handle.id).await;
        }
        let refusal = match refusal {
            Refusal::Start(StartError::Cancelled) => Refusal::Engine(handle.cancelled()),
            refusal => refusal,
        };
        let (failure, code) = refusal.describe(&program);
        let failed = self.change(handle, |live, recording| {
            if let Err(error) = live.transition(Transition::LaunchFailed) {
                tracing::error!(id = %handle.id, %error, "a failed start in an unexpected state");
            }
            live.record.failure = Some(failure.clone());
            live.record.failure_code = Some(code);
            live.record.finished_at = Some(now_ns());
            live.record.process = None;
            live.record.helper = None;
            // What removes itself is gone before the last who waits for it is answered with it.
            if !live.record.auto_remove {
                live.config = None;
            }
            live.ended.send_replace(true);
            let data = serde_json::json!({ "step": failure.step, "errno": failure.errno });
            recording.event("container.start_failed", data);
            let again = self.again_after_failed_start(&mut live.record, recording);
            Ok::<_, Infallible>((live.record.auto_remove, again))
        });
        let Ok(((auto_remove, again), _queued)) = failed;
        let run_dir = self.paths.run_dir(handle.id);
        if let Err(error) = paths::remove_tree(&run_dir) {
            // Its next start and its removal try again.
            tracing::warn!(%error, path = %run_dir.display(), "cannot remove a helper's directory");
        }
        if auto_remove {
            self.schedule_auto_remove(handle);
        }
        if let Some(due_at) = again {
            self.restart_at(handle, due_at);
        }
        let id = handle.id.to_string();
        match refusal {
            // The kernel holds the helper up, at a path that answered before.
            Refusal::Start(StartError::Silent(limit)) => EngineError::NotStarted {
                why: Box::new(EngineError::Unanswered(limit)),
                id,
            },
            Refusal::Engine(why) if why.is_no_fault_of_the_start() => EngineError::NotStarted {
                why: Box::new(why),
                id,
            },
            _ => EngineError::StartFailed {
                failure: Box::new(failure),
                exit_code: code,
                id: Some(id),
            },
        }
    }
}

/// Why a launch did not come about.
enum Refusal {
    Start(StartError),
    Engine(EngineError),
}

impl Refusal {
    /// As the container's record keeps it, and the exit code a shell would give.
    fn describe(&self, program: &str) -> (Failure, i32) {
        match self {
            Refusal::Start(error) => describe_start(error, program),
            Refusal::Engine(error) => {
                let failure = Failure {
                    step: "prepare".into(),
                    errno: error.errno(),
                    syscall: None,
                    path: None,
                    detail: error.to_string(),
                };
                (failure, 125)
            }
        }
    }
}
