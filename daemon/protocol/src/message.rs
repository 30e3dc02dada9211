//! The messages. Every enum is matched without a wildcard arm on both sides.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    CgroupPlan, ExecPlan, IdMapping, LaunchPlan, NamespaceKind, ResourcePlan, RootfsPlan, Step,
    TerminalSize,
};

/// How a message lies in its datagram.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framed<T> {
    /// Here.
    Inline(T),
    /// In the memfd that is the last descriptor beside the datagram; so many bytes of JSON of `T`.
    Memfd(u64),
}

/// Daemon to zygote. The zygote is a helper binary without a container: a small single-threaded
/// process whose only work is to fork helpers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZygoteRequest {
    /// Fork a helper; descriptor 0 beside the message becomes its first connection. The helper
    /// then reads one [`First`] from it. Answered by [`ZygoteEvent::Forked`] or
    /// [`ZygoteEvent::ForkFailed`], in the order of the requests.
    Fork,
}

/// Zygote to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZygoteEvent {
    /// The zygote listens.
    Ready {
        /// [`super::PROTOCOL_VERSION`].
        version: u32,
        /// The zygote's own PID.
        pid: u32,
    },
    /// A helper was forked; descriptor 0 beside the message is its pidfd.
    Forked {
        /// Its PID in the daemon's PID namespace.
        pid: u32,
    },
    /// The fork itself failed.
    ForkFailed {
        /// errno of clone3(2).
        errno: i32,
    },
    /// A helper ended; told once, whenever it happens.
    Reaped {
        /// Its PID.
        pid: u32,
        /// How.
        status: ProcessExit,
    },
}

/// The first message on a helper's first connection: what this process is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// Build a container and supervise it. Descriptors for `NamespacePlan::Join` lie beside it.
    /// Answered by [`Reply::Launched`] or [`Reply::Failed`].
    Launch(Box<LaunchPlan>),
    /// Make the root filesystem of a container that does not run, detached, and hand over a
    /// descriptor of its root ([`Reply::Done`] with descriptor 0); then exit.
    OpenRootfs {
        /// How it is made.
        plan: RootfsPlan,
        /// The id map of its user namespace, through which it is seen; empty without one.
        uid_map: Vec<IdMapping>,
        /// The groups.
        gid_map: Vec<IdMapping>,
    },
    /// End everything in this cgroup and remove its directories ([`Reply::Done`]); then exit.
    RemoveCgroup(Box<CgroupPlan>),
    /// Ask the kernel (ioctl_nsfs(2)) about these namespaces ([`Reply::NamespaceRelations`]); then
    /// exit.
    NamespaceRelations(Vec<NamespaceRef>),
}

/// A namespace, by a process that lives in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRef {
    /// The process, in the daemon's PID namespace.
    pub pid: u32,
    /// Which of its namespaces.
    pub kind: NamespaceKind,
    /// The inode it is known by. A process that has another one by now is passed over.
    pub inode: u64,
}

/// What the kernel tells of a namespace by ioctl alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRelation {
    /// Which kind.
    pub kind: NamespaceKind,
    /// Its inode.
    pub inode: u64,
    /// Inode of the user namespace that owns it (`NS_GET_USERNS`; of a user namespace: its
    /// parent). `None` where the helper may not see it.
    #[serde(default)]
    pub owner_inode: Option<u64>,
    /// Inode of the namespace it is nested in (`NS_GET_PARENT`; PID and user namespaces).
    #[serde(default)]
    pub parent_inode: Option<u64>,
    /// Its 64-bit id (`NS_GET_ID`; `NS_GET_MNTNS_ID` on older kernels).
    #[serde(default)]
    pub id: Option<u64>,
}

/// A numbered request to a running helper. The reply carries the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon, unique per connection.
    pub seq: u64,
    /// What to do.
    pub call: Call,
}

/// What a running helper can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Who are you, what runs. Answered by [`Reply::Status`] with the container's pidfd as
    /// descriptor 0 while it runs.
    Status,
    /// Send a signal to PID 1, to everything in the cgroup, or to an exec. Fails with `ESRCH` when the
    /// target's process has ended, also while its output is still read. To an exec on its way SIGKILL
    /// ends the start; any other signal, as any request about it, waits until it has started, and
    /// fails with `EAGAIN` when that takes longer than [`super::bounds::EXEC_ON_ITS_WAY`].
    Signal {
        /// To whom.
        target: Target,
        /// 1 to 64.
        signal: i32,
        /// Every process in the container's cgroup (only with `Target::Container`).
        #[serde(default)]
        all: bool,
    },
    /// Start a process inside. Answered by [`Reply::ExecStarted`] or [`Reply::Failed`] when the program
    /// runs or will not; other requests may be answered before. A lost connection ends the execs that
    /// it waits for.
    Exec(Box<ExecPlan>),
    /// Set a terminal's size.
    Resize {
        /// Whose.
        target: Target,
        /// To what.
        size: TerminalSize,
    },
    /// A duplicate of the write end of stdin (the pty's master with a terminal) as descriptor 0
    /// of [`Reply::Done`]. The open file description is non-blocking.
    OpenStdin {
        /// Whose.
        target: Target,
    },
    /// Close the helper's own write end of stdin: with the client's gone too, the program reads
    /// end of file.
    CloseStdin {
        /// Whose.
        target: Target,
    },
    /// Lossless output. `Some(n)`: a reader has consumed the target's log up to byte `n` (counted
    /// over rotations, [`super::LOG_START`]); the helper stops reading the program's output while
    /// more than [`super::GATE_WINDOW`] bytes are unread. `None`: the gate is lifted for good. A lost
    /// connection lifts the gates that it set.
    Gate {
        /// Whose output.
        target: Target,
        /// The reader's position.
        consumed: Option<u64>,
    },
    /// Freeze or thaw the container's cgroup. Answered when it is done; other requests may be answered
    /// before. A freeze that fails is taken back.
    Freeze {
        /// Freeze (true) or thaw.
        frozen: bool,
    },
    /// Change limits of the container: what is set in the plan is written, all of it or nothing.
    /// Answered by [`Reply::Updated`].
    Update {
        /// The limits; its device rules are not looked at.
        resources: Box<ResourcePlan>,
    },
    /// The names in the container's UTS namespace, read from the kernel. Answered by
    /// [`Reply::Hostname`].
    Hostname,
    /// A descriptor (`O_PATH`) of the container's root directory, as descriptor 0 of
    /// [`Reply::Done`].
    OpenRoot,
}

impl Call {
    /// The program that it is about, where it is about one that runs already.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Call::Signal { target, .. }
            | Call::Resize { target, .. }
            | Call::OpenStdin { target }
            | Call::CloseStdin { target }
            | Call::Gate { target, .. } => Some(target),
            Call::Status
            | Call::Exec(_)
            | Call::Freeze { .. }
            | Call::Update { .. }
            | Call::Hostname
            | Call::OpenRoot => None,
        }
    }
}

/// The container's program or one of its execs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// PID 1 of the container.
    Container,
    /// An exec by id.
    Exec(String),
}

/// What a helper says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromHelper {
    /// The answer to the request with this number (0 answers [`First`]).
    Reply {
        /// The request's number.
        seq: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened.
    Event(Event),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The program runs (its `execve` succeeded). Descriptor 0: pidfd of the container's PID 1.
    Launched(Box<Launched>),
    /// The exec runs.
    ExecStarted {
        /// Its PID in the daemon's PID namespace.
        pid: u32,
        /// Its start time in clock ticks since boot (`/proc/PID/stat` field 22).
        start_time: u64,
        /// What could not be done and was not essential.
        warnings: Vec<String>,
    },
    /// What runs here.
    Status(Box<Status>),
    /// The limits are as asked for.
    Updated {
        /// As in [`Launched::cgroups`]: a new limit may need another hierarchy.
        cgroups: Vec<(String, PathBuf)>,
    },
    /// uname(2) inside the container.
    Hostname {
        /// nodename.
        hostname: String,
        /// domainname.
        domainname: String,
    },
    /// The answer to [`First::NamespaceRelations`]; namespaces that are gone are left out.
    NamespaceRelations(Vec<NamespaceRelation>),
    /// Done; descriptors as the request says.
    Done,
    /// Not done, and why. For [`First::Launch`] everything that was made has been undone.
    Failed(StepFailure),
}

/// A step that failed: what travels from the deepest child to the HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailure {
    /// Which step of the start (of an exec: `join_namespaces`, `exec`...).
    pub step: Step,
    /// errno(3); 0 where no system call failed (a check of our own).
    pub errno: i32,
    /// The system call, `openat2`; empty with errno 0.
    pub syscall: String,
    /// What it was about.
    #[serde(default)]
    pub path: Option<String>,
    /// A sentence for the user where the three above do not say enough; lower case, no full stop.
    #[serde(default)]
    pub detail: Option<String>,
}

impl StepFailure {
    /// What is said of a program that is there while execve(2) says ENOENT.
    pub const NO_INTERPRETER: &str =
        "its interpreter (the ELF loader, or what follows #!) does not exist in the container";

    /// Whether the program is there, and what it takes to run it is not.
    pub fn lacks_interpreter(&self) -> bool {
        self.detail.as_deref() == Some(Self::NO_INTERPRETER)
    }
}

/// A container that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// PID of the container's PID 1 in the daemon's PID namespace.
    pub pid: u32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_time: u64,
    /// The helper's own PID.
    pub helper_pid: u32,
    /// The helper's start time in clock ticks since boot.
    pub helper_start_time: u64,
    /// How long each step took.
    pub timings: Vec<StepTiming>,
    /// Inode numbers of the helper's (the host's) namespaces and of the container's.
    pub namespaces: Vec<NamespaceInodes>,
    /// Absolute paths of the cgroup directories in use, by controller (`unified`, `memory`...).
    pub cgroups: Vec<(String, PathBuf)>,
    /// What could not be done and was not essential (a hard limit that may not be raised).
    pub warnings: Vec<String>,
    /// In a user namespace: how the root (`/`) and the binds of the plan are seen through its map.
    #[serde(default)]
    pub idmaps: Vec<MountReport>,
    /// The rules of its device filter that count, in order (`deny a *:* rwm`); `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_filter: Option<Vec<String>>,
}

/// Whether one mount is idmapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReport {
    /// Container path; `/` is the root.
    pub destination: PathBuf,
    /// Whether it is.
    pub state: IdmapState,
}

/// How a mount is seen from a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdmapState {
    /// Through the id map.
    Mapped,
    /// Through the id map, but for some mounts below it.
    Partly,
    /// As it is on the host: its file system refused.
    Refused,
    /// As it is on the host: not asked for.
    Off,
    /// As it is on the host: a device, `/proc` and the like have no files to give to somebody.
    NotApplicable,
}

/// One step's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTiming {
    /// The step.
    pub step: Step,
    /// For repeated steps, which one (`/proc`).
    #[serde(default)]
    pub subject: Option<String>,
    /// Nanoseconds since the helper read the plan.
    pub start_ns: u64,
    /// Nanoseconds it took.
    pub duration_ns: u64,
}

/// A namespace before and after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInodes {
    /// Which.
    pub kind: NamespaceKind,
    /// Inode of the helper's, as `ls -Li /proc/PID/ns` prints it.
    pub host: u64,
    /// Inode of the container's.
    pub container: u64,
}

/// What a helper knows of itself; asked after a reconnect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`super::PROTOCOL_VERSION`] of the helper.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// As told at the start.
    pub launched: Launched,
    /// Set when PID 1 has ended.
    pub exit: Option<ExitRecord>,
    /// Execs that run.
    pub running_execs: Vec<String>,
    /// Whether the cgroup is frozen, by whomever.
    pub frozen: bool,
    /// Processes that the OOM killer has ended so far.
    #[serde(default)]
    pub oom_kills: u64,
}

/// What happened without being asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The kernel's OOM killer has ended a process of the container, be it one of an exec or one
    /// that nobody waits for.
    OomKilled {
        /// How many in all, since the start.
        kills: u64,
    },
    /// PID 1 ended; the exit record is on disk, the cgroup is gone. The helper exits next.
    Exited(ExitRecord),
    /// An exec ended; its exit record is on disk and its output complete.
    ExecExited {
        /// Which.
        id: String,
        /// How.
        record: ExitRecord,
    },
}

/// The exit record, as the helper writes it (temporary file, fsync, rename) before it tells anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How it ended.
    pub status: ProcessExit,
    /// Nanoseconds since the epoch (CLOCK_REALTIME).
    pub finished_at_ns: u64,
    /// The kernel's OOM killer took this exec; of the container: a process that was no exec's.
    #[serde(default)]
    pub oom_killed: bool,
    /// Processes of the container that it has taken so far, execs included.
    #[serde(default)]
    pub oom_kills: u64,
    /// The exec ran into its time limit and was killed.
    #[serde(default)]
    pub timed_out: bool,
    /// Output that a descendant kept open and that was cut off after the drain's bound.
    #[serde(default)]
    pub output_truncated: bool,
    /// The log could not be written for a while (a full disk); so many bytes are missing from it.
    #[serde(default)]
    pub lost_output_bytes: u64,
}

/// How a process ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessExit {
    /// It returned this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}
