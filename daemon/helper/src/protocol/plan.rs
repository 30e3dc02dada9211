//! The launch plan: all that a helper will do, already validated, in one message.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::resources::ResourcePlan;
use super::{Defence, LabelPlan, SchedulingPlan};

/// The eight namespace types of Linux, by the names of `/proc/PID/ns` (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Mount points: mount_namespaces(7).
    Mnt,
    /// Host and NIS domain name: uts_namespaces(7).
    Uts,
    /// System V IPC and POSIX message queues: ipc_namespaces(7).
    Ipc,
    /// Network devices, stacks, ports: network_namespaces(7).
    Net,
    /// Process ids: pid_namespaces(7).
    Pid,
    /// User and group ids, capabilities: user_namespaces(7).
    User,
    /// The cgroup root directory: cgroup_namespaces(7).
    Cgroup,
    /// Monotonic and boot time clocks: time_namespaces(7).
    Time,
}

impl NamespaceKind {
    /// All eight, in the order in which people list them.
    pub const ALL: [NamespaceKind; 8] = [
        NamespaceKind::Mnt,
        NamespaceKind::Uts,
        NamespaceKind::Ipc,
        NamespaceKind::Net,
        NamespaceKind::Pid,
        NamespaceKind::User,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];

    /// The file name in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            NamespaceKind::Mnt => "mnt",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Net => "net",
            NamespaceKind::Pid => "pid",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}

/// Where one of the container's namespaces comes from. A kind that is not in the plan is the
/// helper's own, which is the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespacePlan {
    /// A fresh one (`clone3` flag, `unshare` for cgroup).
    New,
    /// An existing one: the descriptor at this index beside the launch message.
    Join(usize),
}

/// One line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside the container.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// How many ids.
    pub size: u32,
}

/// A clock that a time namespace has an offset of, by its name in `/proc/PID/timens_offsets`
/// (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeClock {
    /// `CLOCK_MONOTONIC` and its coarse and raw kin.
    Monotonic,
    /// `CLOCK_BOOTTIME` and its kin; what `/proc/uptime` shows.
    Boottime,
}

impl TimeClock {
    /// The name in `/proc/PID/timens_offsets`.
    pub fn name(self) -> &'static str {
        match self {
            TimeClock::Monotonic => "monotonic",
            TimeClock::Boottime => "boottime",
        }
    }
}

/// What a clock of a time namespace is ahead of the host's: `secs` (behind when negative) and
/// then `nanos`, under 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds beside them.
    #[serde(default)]
    pub nanos: u32,
}

/// Everything a helper needs to build and supervise one container.
///
/// Made only by the `littlebox-plan` crate from an OCI runtime spec and littlebox's envelope;
/// the helper trusts its grammar but not what the paths in it turn out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// [`super::PROTOCOL_VERSION`] of the maker.
    pub version: u32,
    /// The container's id, for messages, thread name and derived names.
    pub id: String,
    /// Absolute path of the helper's own 0700 directory (socket, exit record).
    pub run_dir: PathBuf,
    /// Which namespaces are new or joined.
    pub namespaces: BTreeMap<NamespaceKind, NamespacePlan>,
    /// The user ids of the container's user namespace: written to a new one; what is known of a
    /// joined one. Empty in the host's.
    #[serde(default)]
    pub uid_map: Vec<IdMapping>,
    /// Its group ids.
    #[serde(default)]
    pub gid_map: Vec<IdMapping>,
    /// For a new time namespace: what its clocks are ahead of the host's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: BTreeMap<TimeClock, TimeOffset>,
    /// For a new UTS namespace: sethostname(2), at most 64 bytes.
    #[serde(default)]
    pub hostname: Option<String>,
    /// For a new UTS namespace: setdomainname(2), at most 64 bytes.
    #[serde(default)]
    pub domainname: Option<String>,
    /// How `/` is made.
    pub rootfs: RootfsPlan,
    /// What is mounted below `/`, in this order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes to make in `/dev` when `/dev` is a fresh tmpfs of this plan.
    #[serde(default)]
    pub devices: Vec<DevicePlan>,
    /// Container paths that read empty.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// Container paths that are bound over themselves read-only.
    #[serde(default)]
    pub readonly_paths: Vec<PathBuf>,
    /// Namespaced sysctls, `net.ipv4.ip_forward` style, written before the program starts.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The program.
    pub process: ProcessPlan,
    /// Whether littlebox's own reaping init is PID 1 and the program its child.
    #[serde(default)]
    pub init: bool,
    /// Whether stdin of the program is a pipe that clients can write to (else `/dev/null`). With a
    /// terminal: whether clients may type.
    #[serde(default)]
    pub stdin: bool,
    /// The container's cgroup.
    pub cgroup: CgroupPlan,
    /// The container's log.
    pub log: LogPlan,
    /// Bring `lo` up in a new network namespace.
    #[serde(default)]
    pub loopback_up: bool,
    /// Lossless output: reading pauses when a reader is this far behind (see [`super::Request::Gate`]).
    #[serde(default)]
    pub gate: bool,
    /// Programs of the host's administrator that run beside the container's. Only a container that
    /// is started by the OCI command line has any.
    #[serde(default, skip_serializing_if = "HooksPlan::is_empty")]
    pub hooks: HooksPlan,
    /// Test only: fail with this errno when the named step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<Injection>,
    /// Test only: leave one defence out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaken: Option<Defence>,
}

/// The hooks of a container, each list in its order (OCI config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HooksPlan {
    /// On the host, when all is mounted and before `pivot_root`; before `create_runtime`.
    pub prestart: Vec<HookPlan>,
    /// As `prestart`, which it replaces.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, by a path of the host, before `pivot_root`.
    pub create_container: Vec<HookPlan>,
    /// In the container, when its program is asked to start.
    pub start_container: Vec<HookPlan>,
    /// On the host, when the program runs.
    pub poststart: Vec<HookPlan>,
    /// On the host, when the container is gone.
    pub poststop: Vec<HookPlan>,
}

impl HooksPlan {
    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        *self == HooksPlan::default()
    }

    /// Whether the child has to stop before `pivot_root`.
    pub fn any_before_pivot(&self) -> bool {
        ![&self.prestart, &self.create_runtime, &self.create_container]
            .iter()
            .all(|list| list.is_empty())
    }
}

/// One hook: it is executed as it stands, with the container's state on its stdin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// argv, the program's name included; empty: the path alone.
    #[serde(default)]
    pub args: Vec<String>,
    /// The whole environment, `KEY=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds after which it is killed and has failed.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}

/// A failure that tests ask for, at the beginning of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Where.
    pub step: Step,
    /// The errno to fail with; 0 means: the helper kills itself with SIGKILL there.
    pub errno: i32,
}

/// How the container's root is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// What it is made from.
    pub source: RootfsSource,
    /// The root mount itself is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Propagation of the whole tree inside the container.
    #[serde(default)]
    pub propagation: Propagation,
    /// Test only: takes a way that this kernel or file system would not need.
    #[serde(default)]
    pub idmap: LayerIdmap,
}

/// How the layers of an overlay are seen through the id map of the container's user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerIdmap {
    /// The best way that works.
    #[default]
    Auto,
    /// Idmapped mounts that are attached in a mount namespace for the purpose (kernel 5.19).
    Attached,
    /// Not at all: the container's root owns the upper layer, and nobody what is below.
    Refused,
}

/// What the root is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RootfsSource {
    /// overlayfs: directories below, one writable above. Paths are host paths.
    Overlay {
        /// Uppermost first, never empty.
        lower: Vec<PathBuf>,
        /// Where writes go.
        upper: PathBuf,
        /// overlayfs' scratch directory on the same filesystem as `upper`.
        work: PathBuf,
        /// Skip syncs of the upper filesystem: for containers that are removed when they end.
        #[serde(default)]
        volatile: bool,
    },
    /// A directory bound as it is.
    Bind {
        /// Host path of a directory.
        path: PathBuf,
    },
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Nothing in, nothing out (recursive).
    #[default]
    Rprivate,
    /// This mount only.
    Private,
    /// Host's later mounts come in, none go out (recursive).
    Rslave,
    /// This mount only.
    Slave,
    /// Both ways (recursive).
    Rshared,
    /// This mount only.
    Shared,
    /// As `rprivate`, and no bind mount can be made of it (recursive).
    Runbindable,
    /// This mount only.
    Unbindable,
}

/// One mount below the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute container path, resolved inside the root (`openat2`, `RESOLVE_IN_ROOT`).
    pub destination: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Per-mount attributes.
    #[serde(default)]
    pub attrs: MountAttrs,
    /// Propagation of this mount.
    #[serde(default)]
    pub propagation: Option<Propagation>,
    /// For a bind: seen through an id map (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
    #[serde(default)]
    pub idmap: Option<MountIdmap>,
}

/// The id map of one mount (OCI config.md, "mounts": `uidMappings`, `idmap`, `ridmap`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountIdmap {
    /// With everything mounted below it.
    pub recursive: bool,
    /// The start fails where a file system refuses; else the mount stays as it is and is reported.
    pub required: bool,
    /// `container_id` on the file system is `host_id` in the mount; both maps empty: the
    /// container's user namespace.
    pub uid_map: Vec<IdMapping>,
    /// The groups.
    pub gid_map: Vec<IdMapping>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MountSource {
    /// A host file or directory.
    Bind {
        /// Host path.
        path: PathBuf,
        /// With everything mounted below it.
        #[serde(default)]
        recursive: bool,
    },
    /// A fresh filesystem made with `fsopen(2)`: proc, sysfs, tmpfs, devpts, mqueue...
    Filesystem {
        /// Filesystem type as in `/proc/filesystems`.
        fstype: String,
        /// `key=value` and flag options for `fsconfig(2)`, e.g. `size=64m`, `newinstance`.
        #[serde(default)]
        options: Vec<String>,
        /// tmpfs only: start with a copy of what the image has at the destination.
        #[serde(default)]
        copy_up: bool,
    },
    /// The cgroup hierarchies as seen from the container's cgroup namespace (v1: a tmpfs with one
    /// mount per hierarchy, v2: one mount).
    Cgroup,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Attributes of one mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountAttrs {
    /// MS_RDONLY / MOUNT_ATTR_RDONLY.
    pub read_only: bool,
    /// MOUNT_ATTR_NOSUID.
    pub nosuid: bool,
    /// MOUNT_ATTR_NODEV.
    pub nodev: bool,
    /// MOUNT_ATTR_NOEXEC.
    pub noexec: bool,
    /// MOUNT_ATTR_NOATIME.
    pub noatime: bool,
    /// MOUNT_ATTR_NOSYMFOLLOW.
    pub nosymfollow: bool,
    /// MOUNT_ATTR_STRICTATIME.
    #[serde(skip_serializing_if = "is_false")]
    pub strictatime: bool,
    /// MOUNT_ATTR_RELATIME: what a fresh mount has anyway, and a bind of another one need not.
    #[serde(skip_serializing_if = "is_false")]
    pub relatime: bool,
    /// MOUNT_ATTR_NODIRATIME.
    #[serde(skip_serializing_if = "is_false")]
    pub nodiratime: bool,
    /// Apply to every mount below as well (`AT_RECURSIVE`).
    pub recursive: bool,
}

/// A device node in `/dev` (mknod(2); a bind mount of the host's node where mknod is refused).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Absolute container path below `/dev`.
    pub path: PathBuf,
    /// `'c'`, `'b'`, or `'p'` for a FIFO, which has no numbers.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    #[serde(default)]
    pub uid: u32,
    /// Group inside the container.
    #[serde(default)]
    pub gid: u32,
}

/// A program to execute: the container's own or an exec's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// argv; never empty. `args[0]` without a slash is looked up in the plan's `PATH`.
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Absolute working directory inside the container.
    pub cwd: PathBuf,
    /// Make `cwd` when it is missing.
    #[serde(default)]
    pub create_cwd: bool,
    /// Who runs it.
    pub user: UserPlan,
    /// A terminal of this size; `None`: pipes.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// Capability sets as bit masks, bit n = capability n (capabilities(7)).
    pub capabilities: CapabilityPlan,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    #[serde(default)]
    pub no_new_privileges: bool,
    /// The system calls that it may make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<super::SeccompPlan>,
    /// setrlimit(2).
    #[serde(default)]
    pub rlimits: Vec<RlimitPlan>,
    /// `/proc/self/oom_score_adj`, best effort when lowering it is not allowed.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Labels of Linux security modules.
    #[serde(default, skip_serializing_if = "LabelPlan::is_empty")]
    pub labels: LabelPlan,
    /// Scheduler, I/O priority, CPUs, execution domain.
    #[serde(default, skip_serializing_if = "SchedulingPlan::is_empty")]
    pub scheduling: SchedulingPlan,
}

/// Who runs the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// Numeric ids, or names looked up in the container's own `/etc/passwd` and `/etc/group`.
    pub user: UserRef,
    /// The primary group; `None`: the user's own from passwd, else 0.
    #[serde(default)]
    pub group: Option<UserRef>,
    /// Supplementary groups beside those that `/etc/group` gives the user.
    #[serde(default)]
    pub additional_groups: Vec<UserRef>,
    /// umask(2).
    #[serde(default)]
    pub umask: Option<u32>,
}

/// An id or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UserRef {
    /// A numeric id.
    Id(u32),
    /// A name in the container's database.
    Name(String),
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Capability sets, bit n = capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapabilityPlan {
    /// The bounding set.
    pub bounding: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The effective set.
    pub effective: u64,
    /// The inheritable set (empty by default: CVE-2022-24769).
    pub inheritable: u64,
    /// The ambient set.
    pub ambient: u64,
}

/// One resource limit (getrlimit(2)). `None` is `RLIM_INFINITY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// `RLIMIT_NOFILE` style name without its prefix, lower case: `nofile`, `core`.
    pub resource: String,
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit. Raising it needs CAP_SYS_RESOURCE; without it the limit stays and the start
    /// reports a warning.
    pub hard: Option<u64>,
}

/// The container's cgroup, the same path in every hierarchy that is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Path below the hierarchy's root, `/littlebox/INSTANCE/ID`. `None`: no cgroup at all.
    pub path: Option<PathBuf>,
    /// Limits. What the host cannot enforce (no controller) is a failure, not a silence.
    #[serde(default)]
    pub resources: ResourcePlan,
    /// What becomes of a cgroup that is there already.
    #[serde(default, skip_serializing_if = "ExistingCgroup::is_default")]
    pub existing: ExistingCgroup,
    /// Nothing here was asked for by the user, all are defaults: on a host whose cgroup tree cannot
    /// be written the container starts without them, with a warning.
    #[serde(default)]
    pub best_effort: bool,
}

/// What becomes of a cgroup at the container's path that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExistingCgroup {
    /// It was left by an earlier life of the container: ended, removed and made again.
    #[default]
    Replace,
    /// Somebody else has made it for the container: used when no process is in it, else refused.
    UseEmpty,
    /// systemd has made it, with a process that holds it: used as it is.
    Use,
}

impl ExistingCgroup {
    /// Whether it is [`ExistingCgroup::Replace`].
    pub fn is_default(&self) -> bool {
        *self == ExistingCgroup::Replace
    }
}

/// Where and how the container's output is kept (see [`super::LogRecord`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// The file; rotated ones are `FILE.1` (newest) to `FILE.N`.
    pub path: PathBuf,
    /// Rotate before the file would pass this many bytes; `None`: never.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// How many rotated files are kept (at least 1 when `max_size` is set).
    #[serde(default)]
    pub max_files: u32,
}

/// A process to start inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The exec's id.
    pub id: String,
    /// The program.
    pub process: ProcessPlan,
    /// Whether clients can write to its stdin.
    #[serde(default)]
    pub stdin: bool,
    /// Where its output is kept.
    pub log: LogPlan,
    /// Lossless output, as in [`LaunchPlan::gate`].
    #[serde(default)]
    pub gate: bool,
    /// Kill it after this many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Absolute path of the file its exit record is written to.
    pub exit_record: PathBuf,
}

/// The steps of a start, in order; each is timed, and a failure names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The plan read and checked, the helper hardened (not dumpable, oom score).
    Checks,
    /// The helper's directory, socket and log opened.
    RunDir,
    /// cgroup directories made and limits written.
    Cgroup,
    /// The root filesystem made, detached (`fsopen` overlay, `open_tree`).
    Rootfs,
    /// Pipes made.
    Stdio,
    /// `clone3` with the new namespaces.
    Clone,
    /// `uid_map` and `gid_map` written.
    IdMaps,
    /// The child put into its cgroup where `CLONE_INTO_CGROUP` could not.
    CgroupAttach,
    /// `setns` into given namespaces.
    JoinNamespaces,
    /// Own cgroup namespace.
    CgroupNamespace,
    /// `sethostname`, `setdomainname`.
    Hostname,
    /// `lo` up.
    Loopback,
    /// Own time namespace, where its clocks are set before it is entered.
    TimeNamespace,
    /// Propagation of the inherited tree cut.
    Propagation,
    /// The root attached.
    AttachRoot,
    /// The mounts of the plan.
    Mounts,
    /// Device nodes and links in `/dev`.
    Devices,
    /// `/dev/console` and the pty.
    Terminal,
    /// Namespaced sysctls.
    Sysctls,
    /// Labels of security modules for the execve to come.
    SecurityLabels,
    /// Masked and read-only paths.
    MaskedPaths,
    /// Hooks before `pivot_root`, on the host and in the container's namespaces.
    Hooks,
    /// `pivot_root` and detach of the old root.
    PivotRoot,
    /// The root made read-only.
    ReadonlyRoot,
    /// A session keyring of its own.
    Keyring,
    /// New session, controlling terminal.
    Session,
    /// Scheduler, I/O priority, CPUs, execution domain.
    Scheduling,
    /// User database read, groups and ids set.
    User,
    /// Working directory entered and checked.
    Cwd,
    /// Resource limits.
    Rlimits,
    /// Capability sets.
    Capabilities,
    /// no_new_privs.
    NoNewPrivileges,
    /// Every other descriptor closed.
    CloseFds,
    /// The seccomp filter loaded.
    Seccomp,
    /// `execve`.
    Exec,
}

impl Step {
    /// The wire name (`pivot_root`).
    pub fn name(self) -> &'static str {
        match self {
            Step::Checks => "checks",
            Step::RunDir => "run_dir",
            Step::Cgroup => "cgroup",
            Step::Rootfs => "rootfs",
            Step::Stdio => "stdio",
            Step::Clone => "clone",
            Step::IdMaps => "id_maps",
            Step::CgroupAttach => "cgroup_attach",
            Step::JoinNamespaces => "join_namespaces",
            Step::CgroupNamespace => "cgroup_namespace",
            Step::Hostname => "hostname",
            Step::Loopback => "loopback",
            Step::TimeNamespace => "time_namespace",
            Step::Propagation => "propagation",
            Step::AttachRoot => "attach_root",
            Step::Mounts => "mounts",
            Step::Devices => "devices",
            Step::Terminal => "terminal",
            Step::Sysctls => "sysctls",
            Step::SecurityLabels => "security_labels",
            Step::MaskedPaths => "masked_paths",
            Step::Hooks => "hooks",
            Step::PivotRoot => "pivot_root",
            Step::ReadonlyRoot => "readonly_root",
            Step::Keyring => "keyring",
            Step::Session => "session",
            Step::Scheduling => "scheduling",
            Step::User => "user",
            Step::Cwd => "cwd",
            Step::Rlimits => "rlimits",
            Step::Capabilities => "capabilities",
            Step::NoNewPrivileges => "no_new_privileges",
            Step::CloseFds => "close_fds",
            Step::Seccomp => "seccomp",
            Step::Exec => "exec",
        }
    }

    /// Every step, in the order of the helper's work.
    pub const ALL: [Step; 35] = [
        Step::Checks,
        Step::RunDir,
        Step::Cgroup,
        Step::Rootfs,
        Step::Stdio,
        Step::Clone,
        Step::IdMaps,
        Step::CgroupAttach,
        Step::JoinNamespaces,
        Step::CgroupNamespace,
        Step::Hostname,
        Step::Loopback,
        Step::TimeNamespace,
        Step::Propagation,
        Step::AttachRoot,
        Step::Mounts,
        Step::Devices,
        Step::Terminal,
        Step::Sysctls,
        Step::SecurityLabels,
        Step::MaskedPaths,
        Step::Hooks,
        Step::PivotRoot,
        Step::ReadonlyRoot,
        Step::Keyring,
        Step::Session,
        Step::Scheduling,
        Step::User,
        Step::Cwd,
        Step::Rlimits,
        Step::Capabilities,
        Step::NoNewPrivileges,
        Step::CloseFds,
        Step::Seccomp,
        Step::Exec,
    ];
}
