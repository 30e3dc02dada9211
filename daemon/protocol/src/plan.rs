//! The launch plan: all that a helper will do, already validated, in one message.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    CgroupPlan, Defence, DevicePlan, IdMapping, MountPlan, NamespaceKind, NamespacePlan,
    ProcessPlan, RootfsPlan, Step, TimeClock, TimeOffset,
};

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
    /// How long the start may take, in milliseconds, until the program runs; `None`: without limit. A
    /// start that takes longer is undone and has failed with `ETIMEDOUT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
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
    /// The whole environment, `KEY=VALUE`; `None`: that of who runs it, or of the container's process
    /// inside.
    #[serde(default)]
    pub env: Option<Vec<String>>,
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
    /// Kill it, and all that it has started, after this many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// As in [`LaunchPlan::start_timeout_ms`]; `None`: 60 s under supervision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
    /// Absolute path of the file its exit record is written to.
    pub exit_record: PathBuf,
}
