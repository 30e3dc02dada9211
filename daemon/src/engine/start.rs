//! Start: from a configuration to a running helper, and what a helper tells afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbctl::types::{ContainerConfig, ContainerId, ContainerState, IdMaps, MountConfig};
use littlebox_helper::protocol::{
    Event, LaunchPlan, Launched, LogPlan, NamespaceKind, RootfsSource,
};
use littlebox_plan::Envelope;
use tokio::sync::watch;

use super::error::describe_start;
use super::files_root::NoCopies;
use super::record::{ProcessIdentity, maps_of, mount_idmap};
use super::{Engine, EngineError, Handle, SaveExtra, absent, event, limits};
use crate::faults;
use crate::idpool::IdRange;
use crate::lifecycle::Transition;
use crate::spec::{self, ConfigError, Prepared, RootSource};
use crate::supervisor::{Helper, Incoming, Listener, StartError, helper_map};
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
            let _operation = handle.operation.lock().await;
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
        let prepared = self.prepare_start(handle, &config).await;
        if cause == Cause::Client
            && let Err(error) = prepared
        {
            return Err(error);
        }
        {
            let mut live = handle.live();
            live.transition(Transition::Start)?;
            live.record.begin_run(cause == Cause::Policy, &self.boot_id);
            let starting = event(&live.record, "container.starting", serde_json::json!({}));
            // Nobody waits: if the daemon dies now, the helper's directory tells.
            drop(self.save(&live, Some(starting), SaveExtra::default()));
        }
        handle.notify();
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
        let no_copies = handle.no_copies().await?;
        let range = self.range_for_start(handle, config)?;
        let prepared = self.prepare(handle.id, range, config.clone()).await?;
        Ok((prepared, no_copies))
    }

    /// The container's range of the pool, known to be its own. One that was recorded by a version
    /// without a pool gets its range now.
    fn range_for_start(
        &self,
        handle: &Handle,
        config: &ContainerConfig,
    ) -> Result<Option<IdRange>, EngineError> {
        if !spec::takes_range(config)? {
            return Ok(None);
        }
        let mut live = handle.live();
        let range = match live.record.id_range {
            Some(range) => {
                self.ids.ensure(range)?;
                range
            }
            None => self.ids.allocate(handle.id)?,
        };
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
        let built = match self.plan_launch(handle, config, prepared).await {
            Ok((plan, fds)) => self
                .supervisor
                .launch(plan, &fds)
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

    async fn plan_launch(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        config: &Arc<ContainerConfig>,
        prepared: Prepared,
    ) -> Result<(LaunchPlan, Vec<OwnedFd>), EngineError> {
        self.make_start_directories(handle, config)?;
        let (handle, config) = (handle.clone(), config.clone());
        let planned = handle.clone();
        let look = move |engine: &Arc<Self>| engine.plan_with_sources(&planned, &config, prepared);
        let (plan, fds, joined_ids) = self.look(look).await?;
        if joined_ids.is_some() {
            handle.live().record.id_maps = joined_ids;
        }
        Ok((plan, fds))
    }

    /// Makes littlebox's own directories as a start needs them.
    fn make_start_directories(
        &self,
        handle: &Handle,
        config: &ContainerConfig,
    ) -> Result<(), EngineError> {
        let restarted = handle.live().record.started_at.is_some();
        if restarted && config.auto_remove {
            // A volatile overlay refuses a work directory that was used before.
            let work = self.paths.work(handle.id);
            super::paths::remove_tree(&work).map_err(EngineError::io("remove", work.clone()))?;
        }
        self.make_directories(handle.id)?;
        let run_dir = self.paths.run_dir(handle.id);
        // What an earlier run left there is recorded: its exit was saved before this start.
        super::paths::remove_tree(&run_dir).map_err(EngineError::io("remove", run_dir.clone()))?;
        super::paths::make_leaf(&run_dir).map_err(EngineError::io("make", run_dir))
    }

    /// Makes and opens what is the host's, which may wait; that of a start that was given up meanwhile
    /// harms nobody.
    fn plan_with_sources(
        &self,
        handle: &Handle,
        config: &ContainerConfig,
        prepared: Prepared,
    ) -> Result<(LaunchPlan, Vec<OwnedFd>, Option<IdMaps>), EngineError> {
        if let RootfsSource::Overlay { lower, upper, .. } =
            self.rootfs(handle.id, config, &prepared.root)
        {
            for lower in lower {
                absent::make(&upper, &lower, &self.hidden(&lower))
                    .map_err(EngineError::io("hide from", upper.clone()))?;
            }
        }
        make_sources(config, &prepared, handle.record().id_maps)?;
        let (joins, fds) = self.open_namespaces(&prepared.namespaces)?;
        let joined_ids = self.joined_ids(&prepared.namespaces)?;
        let maps = joined_ids.clone();
        let plan = self.launch_plan(handle.id, config, prepared, joins, joined_ids)?;
        Ok((plan, fds, maps))
    }

    /// The launch plan of a container. Changes nothing.
    pub(super) fn launch_plan(
        &self,
        id: ContainerId,
        config: &ContainerConfig,
        prepared: Prepared,
        joins: BTreeMap<NamespaceKind, usize>,
        joined_ids: Option<IdMaps>,
    ) -> Result<LaunchPlan, EngineError> {
        let rootfs = self.rootfs(id, config, &prepared.root);
        let log = LogPlan {
            path: self.paths.log(id),
            max_size: prepared.log.max_size,
            max_files: prepared.log.max_files,
        };
        let mut envelope = Envelope::new(id.to_string(), self.paths.run_dir(id), rootfs, log);
        envelope.cgroup_path = Some(self.paths.container_cgroup(id));
        envelope.cgroup_best_effort = limits::asks_for_no_limits(config);
        envelope.joins = joins;
        envelope.user = Some(prepared.user);
        envelope.create_cwd = prepared.create_cwd;
        envelope.terminal_size = prepared.terminal_size;
        envelope.stdin = config.stdin;
        envelope.init = config.init;
        envelope.gate = config.attach;
        if let RootSource::Bind(path) = &prepared.root {
            // From any other root they are absent.
            envelope.hidden = self.hidden(path);
        }
        envelope.seccomp = prepared.seccomp;
        envelope.state = self.oci_state(id, config);
        if prepared.default_masks {
            envelope
                .hidden
                .append(&mut super::machine::thermal_directories());
        }
        envelope.joined_ids = joined_ids.map(|maps| (helper_map(&maps.uid), helper_map(&maps.gid)));
        envelope.idmap_where_possible = prepared.idmap_where_possible;
        envelope.start_timeout_ms = Some(self.supervisor.start_timeout_ms());
        if faults::enabled() {
            envelope.weaken = prepared.weaken;
            envelope.inject = prepared.inject;
            envelope.layer_idmap = prepared.layer_idmap;
        }
        littlebox_plan::launch_plan(&prepared.spec, envelope).map_err(|e| {
            EngineError::Config(ConfigError {
                pointer: String::new(),
                detail: e.to_string(),
                hint: None,
            })
        })
    }

    /// What a container's root is made from.
    pub(super) fn rootfs(
        &self,
        id: ContainerId,
        config: &ContainerConfig,
        root: &RootSource,
    ) -> RootfsSource {
        let lower = match root {
            RootSource::Host => PathBuf::from("/"),
            RootSource::Dir(path) => path.clone(),
            RootSource::Bind(path) => return RootfsSource::Bind { path: path.clone() },
        };
        RootfsSource::Overlay {
            lower: vec![lower],
            upper: self.paths.upper(id),
            work: self.paths.work(id),
            volatile: config.auto_remove,
        }
    }

    /// The directories of every littlebox on this machine, as far as they lie below the container's
    /// root: paths in the container that are not to be seen.
    pub(crate) fn hidden(&self, root: &Path) -> Vec<PathBuf> {
        // The path may lead over links; the daemons' own are real.
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let own = [self.paths.state.clone(), self.paths.run.clone()];
        let all: BTreeSet<PathBuf> = own.into_iter().chain(self.ids.neighbours()).collect();
        all.iter()
            .filter_map(|dir| dir.strip_prefix(&root).ok())
            .filter(|below| !below.as_os_str().is_empty())
            .map(|below| Path::new("/").join(below))
            .collect()
    }

    pub(crate) fn make_directories(&self, id: ContainerId) -> Result<(), EngineError> {
        let base = self.paths.container(id);
        for dir in [base.clone(), base.join("work"), base.join("log")] {
            super::paths::make_leaf(&dir).map_err(EngineError::io("make", dir.clone()))?;
        }
        // The upper directory's mode becomes that of the container's `/`.
        let upper = base.join("upper");
        match std::fs::create_dir(&upper) {
            Ok(()) => set_mode(&upper, 0o755).map_err(EngineError::io("chmod", upper)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(EngineError::io("make", upper)(e)),
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
        let launched_json = serde_json::to_string(&launched).unwrap_or_default();
        {
            let mut live = handle.live();
            // The state is `starting`: only this task changes it.
            if let Err(error) = live.transition(Transition::Launched) {
                tracing::error!(id = %handle.id, %error, "a start in an unexpected state");
            }
            live.helper = Some(helper);
            live.pidfd = Some(Arc::new(pidfd));
            self.fill_identity(&mut live.record, &launched);
            live.record.started_at = Some(now_ns());
            let data = serde_json::json!({ "pid": launched.pid });
            let started = event(&live.record, "container.started", data);
            let extra = SaveExtra {
                launched: Some(launched_json),
                ..SaveExtra::default()
            };
            drop(self.save(&live, Some(started), extra));
        }
        handle.notify();
        self.listen(handle, incoming);
    }

    pub(crate) fn fill_identity(&self, record: &mut super::Record, launched: &Launched) {
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

    /// Drives a helper's connection. Not tracked: it ends with the helper, not with the daemon.
    fn listen(self: &Arc<Self>, handle: &Arc<Handle>, incoming: Incoming) {
        let run = handle.live().run;
        tokio::spawn(incoming.run(self.listener(handle, run)));
    }

    /// Turns what the helper of a run tells into changes of its container.
    pub(crate) fn listener(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
    ) -> impl Listener + use<> {
        ContainerListener {
            engine: self.clone(),
            handle: handle.clone(),
            run,
        }
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
        if matches!(
            refusal,
            Refusal::Start(StartError::Silent(_) | StartError::Lost(_) | StartError::Io(_))
        ) {
            self.remove_cgroup_of(handle.id).await;
        }
        let (failure, code) = match refusal {
            Refusal::Start(error) => describe_start(error, &program),
            Refusal::Engine(error) => (
                lbctl::types::Failure {
                    step: "prepare".into(),
                    errno: error.errno(),
                    syscall: None,
                    path: None,
                    detail: error.to_string(),
                },
                125,
            ),
        };
        let (auto_remove, again) = {
            let mut live = handle.live();
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
            let failed = event(&live.record, "container.start_failed", data);
            let again = self.again_after_failed_start(&mut live.record);
            let due_at = self.save_ending(&live, failed, again).1;
            (live.record.auto_remove, due_at)
        };
        handle.notify();
        let run_dir = self.paths.run_dir(handle.id);
        if let Err(error) = super::paths::remove_tree(&run_dir) {
            // Its next start and its removal try again.
            tracing::warn!(%error, path = %run_dir.display(), "cannot remove a helper's directory");
        }
        if auto_remove {
            self.schedule_auto_remove(handle);
        }
        if let Some(due_at) = again {
            self.restart_at(handle, due_at);
        }
        EngineError::StartFailed {
            failure: Box::new(failure),
            exit_code: code,
            id: Some(handle.id.to_string()),
        }
    }
}

/// Why a launch did not come about.
enum Refusal {
    Start(StartError),
    Engine(EngineError),
}

/// Turns a helper's word into changes of its container.
struct ContainerListener {
    engine: Arc<Engine>,
    handle: Arc<Handle>,
    run: u64,
}

impl Listener for ContainerListener {
    fn event(&self, event: Event) {
        match event {
            Event::OomKilled { kills } => self.engine.oom_killed(&self.handle, self.run, kills),
            Event::Exited(record) => self.engine.exited(&self.handle, self.run, &record),
            Event::ExecExited { id, record } => {
                self.engine.exec_exited(&self.handle, &id, &record);
            }
        }
    }

    fn lost(&self) {
        let state = {
            let live = self.handle.live();
            if live.run != self.run {
                return;
            }
            live.record.state
        };
        match state {
            ContainerState::Running | ContainerState::Paused | ContainerState::Stopping => {
                let engine = self.engine.clone();
                let handle = self.handle.clone();
                let run = self.run;
                tokio::spawn(async move { engine.helper_lost(&handle, run).await });
            }
            ContainerState::Created
            | ContainerState::Starting
            | ContainerState::Exited
            | ContainerState::Failed
            | ContainerState::Removing => {}
        }
    }
}

/// Makes the bind sources that are missing. Of a mount that is not idmapped the container's root
/// is the owner, who could not write there otherwise.
fn make_sources(
    config: &ContainerConfig,
    prepared: &Prepared,
    maps: Option<IdMaps>,
) -> Result<(), EngineError> {
    let view = crate::files::IdView::new(maps);
    let plain = |source: &Path| {
        let of_it = |m: &&MountConfig| m.source.as_deref().map(Path::new) == Some(source);
        let mut mounts = config.mounts.iter().filter(of_it);
        mounts.all(|mount| mount.idmap == Some(false))
    };
    for source in &prepared.create_sources {
        if source.exists() {
            continue;
        }
        let owner = (view.user_on_host(0), view.group_on_host(0));
        super::bind_sources::make(source, plain(source).then_some(owner))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
