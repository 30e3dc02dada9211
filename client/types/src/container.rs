//! Containers as they are.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ContainerConfig, ContainerId, ExecId, Exit, Failure, IdMap, Name, ResourcesPatch, RestartPolicy,
};

/// Where a container is in its life (the table is in `daemon/src/lifecycle.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Recorded, never started.
    Created,
    /// A helper builds it.
    Starting,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// Told to end; not ended yet.
    Stopping,
    /// Its program ended.
    Exited,
    /// The start did not succeed; `failure` tells the step.
    Failed,
    /// Being removed.
    Removing,
}

impl ContainerState {
    /// The wire name.
    pub fn name(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Starting => "starting",
            ContainerState::Running => "running",
            ContainerState::Paused => "paused",
            ContainerState::Stopping => "stopping",
            ContainerState::Exited => "exited",
            ContainerState::Failed => "failed",
            ContainerState::Removing => "removing",
        }
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `PATCH /v1/containers/{c}`: only what is present changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerPatch {
    /// A new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Replaces all labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Another restart policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Limits to change; of a container that runs, at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesPatch>,
}

/// A container, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: ContainerSummary,
    /// What was asked for.
    pub config: ContainerConfig,
    /// Why the start did not succeed (state `failed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How often its restart policy has started it since a client did.
    #[serde(default)]
    pub restart_count: u32,
    /// When its restart policy will start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<String>,
    /// What could not be done and was not essential.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// By what it is less closed than a default container, for people.
    #[serde(default)]
    pub relaxations: Vec<String>,
    /// cgroup directories in use, by controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroups: BTreeMap<String, String>,
    /// The rules of its device filter as last started, in order; the last one that matches decides,
    /// and what none matches is denied. Absent without a filter, and before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_filter: Option<Vec<String>>,
    /// Its user namespace, as last started or as it will be.
    pub user_namespace: UserNamespace,
    /// Of a container in a user namespace, once it was started: whether its root (`/`) and its
    /// binds are seen through the id map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idmaps: Vec<MountIdmap>,
    /// Processes that the kernel's OOM killer has ended since the last start, those of execs included.
    #[serde(default)]
    pub oom_kills: u64,
    /// PID of the helper while the container runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper_pid: Option<u32>,
    /// Why the helper cannot be asked, while it cannot: the container is then shown as it was last
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<HelperCondition>,
    /// Execs that run or whose result can still be read.
    #[serde(default)]
    pub execs: Vec<ExecId>,
    /// Where its writes go (overlay), a host path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_dir: Option<String>,
    /// Where its log is kept, a host path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<String>,
}

/// Why a helper cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperCondition {
    /// It does not answer in time.
    Silent,
    /// It speaks another version's protocol.
    Foreign,
}

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// `new`, `host`, `container:NAME` or `pid:N`.
    pub source: String,
    /// Where the ids of a new one come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdSource>,
    /// User ids, empty with the host's (every id is its own) and where they are not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_map: Vec<IdMap>,
    /// Group ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_map: Vec<IdMap>,
}

/// Where the ids of a new user namespace come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdSource {
    /// A range of the daemon's pool, this container's alone until it is removed.
    Pool,
    /// The request's `id_maps`.
    Given,
}

/// Whether one mount is seen through the id map of the container's user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdmap {
    /// Container path; `/` is the root.
    pub destination: String,
    /// Whether it is.
    pub state: IdmapState,
}

/// How a mount is seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdmapState {
    /// Through the id map.
    Mapped,
    /// Through the id map, but for some mounts below it; a warning says so.
    Partly,
    /// With the host's owners, because its file system cannot do it; a warning says so.
    Refused,
    /// With the host's owners: not asked for.
    Off,
    /// With the host's owners: a device, or a file system of the kernel's own.
    NotApplicable,
}

/// What a list shows of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// Id.
    pub id: ContainerId,
    /// Name.
    pub name: Name,
    /// State.
    pub state: ContainerState,
    /// Where its root comes from.
    pub rootfs: String,
    /// Its program.
    pub command: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// PID 1's PID on the host, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it was created.
    pub created_at: String,
    /// When its program last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When its program last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// How its program last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Counts every change; the `ETag`.
    pub generation: u64,
}
