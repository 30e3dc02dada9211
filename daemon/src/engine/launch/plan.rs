//! The launch plan of a container, and what a start makes on the host before there is a helper.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use littlebox_plan::Envelope;
use littlebox_protocol::{LaunchPlan, LogPlan, NamespaceKind, RootfsSource};
use littlebox_types::{ContainerConfig, ContainerId, IdMaps, MountConfig, Resources};

use super::{absent, bind_sources};
use crate::engine::host::checks;
use crate::engine::host::looking::{self, Wanted};
use crate::engine::{Engine, EngineError, Handle};
use crate::faults;
use crate::paths;
use crate::spec::{self, ConfigError, Prepared, RootSource};
use crate::supervisor::helper_map;

impl Engine {
    pub(in crate::engine) async fn plan_launch(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        config: &Arc<ContainerConfig>,
        prepared: Prepared,
    ) -> Result<(LaunchPlan, Vec<OwnedFd>), EngineError> {
        self.make_start_directories(handle, config)?;
        let (planned, config) = (handle.clone(), config.clone());
        let paths = looking::named(&config);
        let look = move |engine: &Arc<Self>, wanted: &Wanted| {
            engine.plan_with_sources(&planned, &config, prepared, wanted)
        };
        let (plan, fds, joined_ids) = self.look_and_change(paths, look).await?;
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
            paths::remove_tree(&work).map_err(EngineError::io("remove", work.clone()))?;
        }
        self.make_directories(handle.id)?;
        let run_dir = self.paths.run_dir(handle.id);
        // What an earlier run left there is recorded: its exit was saved before this start.
        paths::remove_tree(&run_dir).map_err(EngineError::io("remove", run_dir.clone()))?;
        paths::make_leaf(&run_dir).map_err(EngineError::io("make", run_dir))
    }

    /// Makes and opens what is the host's, which may wait.
    fn plan_with_sources(
        &self,
        handle: &Handle,
        config: &ContainerConfig,
        prepared: Prepared,
        wanted: &Wanted,
    ) -> Result<(LaunchPlan, Vec<OwnedFd>, Option<IdMaps>), EngineError> {
        if let RootfsSource::Overlay { lower, upper, .. } =
            self.rootfs(handle.id, config, &prepared.root)
        {
            for lower in lower {
                absent::make(&upper, &lower, &self.hidden(&lower), wanted)
                    .map_err(EngineError::io("hide from", upper.clone()))?;
            }
        }
        make_sources(config, &prepared, handle.record().id_maps, wanted)?;
        let (joins, fds) = self.open_namespaces(&prepared.namespaces)?;
        let joined_ids = self.joined_ids(&prepared.namespaces)?;
        let maps = joined_ids.clone();
        let plan = self.launch_plan(handle.id, config, prepared, joins, joined_ids)?;
        Ok((plan, fds, maps))
    }

    /// The launch plan of a container. Changes nothing.
    pub(in crate::engine) fn launch_plan(
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
        envelope.cgroup_best_effort = asks_for_no_limits(config);
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
            envelope.hidden.append(&mut checks::thermal_directories());
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
    pub(in crate::engine) fn rootfs(
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
    fn hidden(&self, root: &Path) -> Vec<PathBuf> {
        crate::files::below(root, &self.directories())
    }

    /// The directories of every littlebox on this machine, as real paths.
    pub(in crate::engine) fn directories(&self) -> Vec<PathBuf> {
        let own = [self.paths.state.clone(), self.paths.run.clone()];
        let all: BTreeSet<PathBuf> = own.into_iter().chain(self.ids.neighbours()).collect();
        all.into_iter().collect()
    }

    pub(in crate::engine) fn make_directories(&self, id: ContainerId) -> Result<(), EngineError> {
        let base = self.paths.container(id);
        for dir in [base.clone(), base.join("work"), base.join("log")] {
            paths::make_leaf(&dir).map_err(EngineError::io("make", dir.clone()))?;
        }
        // The upper directory's mode becomes that of the container's `/`.
        let upper = base.join("upper");
        match std::fs::create_dir(&upper) {
            Ok(()) => set_mode(&upper, 0o755).map_err(EngineError::io("chmod", upper)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(EngineError::io("make", upper)(e)),
        }
    }
}

/// Makes the bind sources that are missing. Of a mount that is not idmapped the container's root
/// is the owner, who could not write there otherwise.
fn make_sources(
    config: &ContainerConfig,
    prepared: &Prepared,
    maps: Option<IdMaps>,
    wanted: &Wanted,
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
        bind_sources::make(source, plain(source).then_some(owner), wanted)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Whether nothing of a container needs a cgroup but defaults: then it also starts where there is
/// none. Who may make device nodes needs the filter.
fn asks_for_no_limits(config: &ContainerConfig) -> bool {
    if spec::is_from_spec(config) {
        // Its limits and rules are in the spec.
        return false;
    }
    let makes_nodes = config.capabilities.add.iter().any(|name| {
        let name = name.to_ascii_uppercase();
        matches!(name.as_str(), "ALL" | "MKNOD" | "CAP_MKNOD")
    });
    let devices = !config.devices.is_empty() || !config.device_rules.is_empty();
    let filtered = !config.privileged && (makes_nodes || devices);
    config.resources == Resources::default() && !filtered
}
