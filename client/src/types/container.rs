//! Containers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    ContainerId, DeviceConfig, Name, Resources, ResourcesPatch, RestartPolicy, Seccomp, TimeOffsets,
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

/// `POST /v1/containers`: what a container is to be. Kept as it was asked for and shown by inspect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerConfig {
    /// A unique name; made up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// `host` or `dir:/absolute/path`. Required, but for a bundle or a spec.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// The program and its arguments. Required, not empty, but for a bundle or a spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Absolute host path of an OCI bundle: a directory with a `config.json`, which says instead of
    /// the fields here what the container is. It is read once, into `spec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// An OCI runtime spec, with an absolute `root.path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<serde_json::Value>,
    /// Put an overlay over the root of the bundle or spec, instead of using it as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overlay: bool,
    /// Environment, beside the defaults `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute working directory inside the container; `/` when absent. Made when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `USER[:GROUP]`, each a number or a name of the container's own database; `0:0` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Supplementary groups, numbers or names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Octal, e.g. `"022"`; `022` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// Host name; the last 12 characters of the id when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Free labels for filters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Give the program a terminal.
    pub terminal: bool,
    /// The terminal's first size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TermSize>,
    /// Keep stdin open for attached clients; else it is `/dev/null`.
    pub stdin: bool,
    /// A foreground client will attach: output is lossless towards it (the program is held back
    /// when the client reads slowly), the log is not rotated, and with `auto_remove` the removal
    /// waits until the client has read everything or has gone.
    pub attach: bool,
    /// Remove the container when its program has ended.
    pub auto_remove: bool,
    /// Put littlebox's small init in front of the program: it reaps orphans and forwards signals.
    pub init: bool,
    /// Read-only root filesystem.
    pub read_only: bool,
    /// Propagation of the root tree: `rprivate` (default), `private`, `rslave`, `slave`,
    /// `rshared`, `shared`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// Bind mounts, volumes by path and tmpfs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountConfig>,
    /// By type (`mnt uts ipc net pid user cgroup time`): `new`, `host`, `container:NAME`, `pid:N`.
    /// Absent: `new`; `user` of a `privileged` container: `host`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// For `user: new`; a range of the daemon's pool that no other container has when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_maps: Option<IdMaps>,
    /// What the clocks of the new time namespace are ahead of the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<TimeOffsets>,
    /// Limits.
    pub resources: Resources,
    /// By name (`nofile`, `core`, ...).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<String, Rlimit>,
    /// Namespaced sysctls, `net.ipv4.ip_forward` style.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities to add to and drop from the default eleven, `NET_ADMIN` or `CAP_NET_ADMIN`
    /// style; `ALL` is understood.
    pub capabilities: CapabilityChange,
    /// Set no_new_privs; `true` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// Which system calls the program may make; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// All capabilities, no seccomp filter unless `seccomp` asks for one, nothing masked, `/sys`
    /// writable, the host's user namespace unless `namespaces.user` says otherwise.
    pub privileged: bool,
    /// Container paths that read empty, instead of the default ones
    /// ([`super::DEFAULT_MASKED_PATHS`], none when privileged).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    /// Container paths that cannot be written, instead of the default ones
    /// ([`super::DEFAULT_READONLY_PATHS`], none when privileged).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    /// Devices of the host, beside null, zero, full, random, urandom and tty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceConfig>,
    /// Further devices that may be used once there is a node: `c 1:3 rwm`, `*` for any number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<String>,
    /// An AppArmor profile that is loaded, or `unconfined`, which is so when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// An SELinux context, `USER:ROLE:TYPE:LEVEL`; littlebox's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Signal that asks the program to end: name or number; `SIGTERM` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_s: Option<u32>,
    /// Whether the daemon starts it again when it has ended; `no` when absent. Not with
    /// `auto_remove`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// The log's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// What kind.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// Absolute host path for `bind`; absent for `tmpfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Absolute container path.
    pub destination: String,
    /// No writes.
    #[serde(default)]
    pub read_only: bool,
    /// `bind`: with everything mounted below the source; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// As for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// `bind`: make the source as a directory when it is missing (a volume by path).
    #[serde(default)]
    pub create: bool,
    /// `bind`: seen through the id map of the container's user namespace, so that files of the
    /// host's 0 belong to the container's root. Absent: where the file system can do that; `true`:
    /// the start fails where it cannot; `false`: files keep the host's owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idmap: Option<bool>,
    /// `tmpfs`: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `tmpfs`: octal permission bits, `"1777"` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `nosuid`, `nodev`, `noexec`, `noatime`, `nosymfollow`, beside the type's defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A host path.
    Bind,
    /// A fresh tmpfs.
    Tmpfs,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Id maps of a new user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMaps {
    /// Users.
    pub uid: Vec<IdMap>,
    /// Groups.
    pub gid: Vec<IdMap>,
}

/// One line of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// First id inside.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// A resource limit; absent values are unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rlimit {
    /// Soft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// Hard; not below `soft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

/// Changes to the default capability set; `drop` is applied first, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilityChange {
    /// To add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// To drop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// The log's bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Bytes per file before it is rotated; 16 MiB when absent, 0 for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Rotated files kept beside the current one; 4 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
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
    /// Execs that run or whose result can still be read.
    #[serde(default)]
    pub execs: Vec<super::ExecId>,
    /// Where its writes go (overlay), a host path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_dir: Option<String>,
    /// Where its log is kept, a host path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<String>,
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

/// How a program ended. `unknown` is a value: it is never shown as 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How.
    #[serde(flatten)]
    pub status: ExitStatus,
    /// The kernel's OOM killer struck.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// Ended because its time was up (execs).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// Output held open by a descendant was cut off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_truncated: bool,
    /// Bytes of output that could not be written to the log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_output_bytes: u64,
}

// serde's skip_serializing_if passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum ExitStatus {
    /// It returned `code`, 0 to 255.
    Exited {
        /// The code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The number.
        signal: i32,
        /// `SIGKILL` style.
        signal_name: String,
    },
    /// Nobody saw it end: its helper was lost.
    Unknown {
        /// What is known.
        detail: String,
    },
}

impl ExitStatus {
    /// The exit code as a shell shows it: the code, 128 + signal, or `None` when unknown.
    pub fn shell_code(&self) -> Option<i32> {
        match self {
            ExitStatus::Exited { code } => Some(*code),
            ExitStatus::Signaled { signal, .. } => Some(128 + signal),
            ExitStatus::Unknown { .. } => None,
        }
    }
}

/// A step of a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `pivot_root`, `exec`, ...
    pub step: String,
    /// `ENOENT` style; absent where no system call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// `openat2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// What it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A sentence.
    pub detail: String,
}

/// `GET .../wait`'s conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// The program has ended, or the start failed, or the container was removed.
    Exited,
    /// The program runs or has run.
    Running,
    /// The container was removed.
    Removed,
}

impl FromStr for WaitFor {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "exited" => Ok(WaitFor::Exited),
            "running" => Ok(WaitFor::Running),
            "removed" => Ok(WaitFor::Removed),
            _ => Err(()),
        }
    }
}

/// The answer of a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitResult {
    /// The container.
    pub id: ContainerId,
    /// Whether the condition came true (false: the wait's own time was up).
    pub satisfied: bool,
    /// The state then; absent once removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    /// How the program ended, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why the start failed, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// `POST .../kill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KillRequest {
    /// Name or number; `SIGKILL` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Every process in the container, not only PID 1.
    pub all: bool,
}

/// `POST .../stop` and `.../restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Name or number; the container's own stop signal when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Seconds until SIGKILL; the container's own when absent; 0 kills at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

/// `GET .../plan` and `POST /v1/containers?dry_run`: how the container is (was) built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<PlanStep>,
    /// Namespace inodes before and after, once started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<PlanNamespace>,
    /// Nanoseconds from the reading of the plan to the program's start, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<u64>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// `pivot_root`, ...
    pub step: String,
    /// A sentence: what happens and why.
    pub what: String,
    /// Equivalent shell commands (`unshare`, `mount`, `pivot_root`, ...), where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Nanoseconds since the plan was read, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// Nanoseconds it took, once started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// The failure, when this is the step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A namespace before and after a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNamespace {
    /// `mnt`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Inode on the host.
    pub host: u64,
    /// Inode in the container.
    pub container: u64,
}

/// One process of `GET .../top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopProcess {
    /// PID on the host.
    pub pid: u32,
    /// PID inside the container.
    pub container_pid: u32,
    /// Parent's PID on the host.
    pub ppid: u32,
    /// User id on the host.
    pub uid: u32,
    /// User id inside the container.
    pub container_uid: u32,
    /// `R`, `S`, `D`, ...
    pub state: String,
    /// Threads.
    pub threads: u32,
    /// CPU time used, milliseconds.
    pub cpu_ms: u64,
    /// Resident set, bytes.
    pub rss: u64,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// argv joined by spaces (or the kernel's short name in brackets).
    pub command: String,
}

/// `GET .../top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// The processes, by PID.
    pub processes: Vec<TopProcess>,
}

/// One path of `GET .../changes`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Absolute container path. Bytes outside UTF-8 are shown as U+FFFD.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path against the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Contents or attributes differ.
    Modified,
    /// Gone.
    Deleted,
}

/// `GET .../changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// By path.
    pub items: Vec<Change>,
}

/// What lies at a container path (`GET .../files?path=&stat=true`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// As asked, made absolute.
    pub path: String,
    /// `file`, `directory`, `symlink`, `char`, `block`, `fifo`, `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits, octal, e.g. `"0644"`.
    pub mode: String,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
    /// RFC 3339.
    pub modified_at: String,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}
