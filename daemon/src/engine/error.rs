//! What can go wrong in a use case. The API turns each variant into one status and code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use littlebox_protocol::{Step, StepFailure};
use littlebox_types::{ContainerId, ContainerState, Failure, HelperCondition};
use rustix::io::Errno;

use crate::lifecycle::{Illegal, in_words};
use crate::spec::{ConfigError, errno_name};
use crate::store::StoreError;
use crate::supervisor::{HelperError, StartError};
use crate::worker::WorkerError;

/// Why a use case did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The request's body is wrong.
    #[error("{}", .0.detail)]
    Config(#[from] ConfigError),
    /// A query parameter or header is wrong.
    #[error("{0}")]
    Request(String),
    /// No container has this id or name.
    #[error("there is no container '{0}'")]
    ContainerNotFound(String),
    /// No exec has this id.
    #[error("there is no exec '{0}'")]
    ExecNotFound(String),
    /// No namespace of this type has this inode.
    #[error("no process lives in a {kind} namespace with inode {inode}")]
    NamespaceNotFound {
        /// Type.
        kind: String,
        /// Inode.
        inode: String,
    },
    /// Several ids begin so.
    #[error("'{reference}' is the beginning of {count} ids")]
    Ambiguous {
        /// As asked.
        reference: String,
        /// How many.
        count: usize,
    },
    /// Neither id nor name.
    #[error("'{0}' is neither a container's id nor a name")]
    BadReference(String),
    /// The name is another container's.
    #[error("the name '{name}' is in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: ContainerId,
    },
    /// The state forbids it.
    #[error("container '{name}' {illegal}")]
    Illegal {
        /// Which container.
        name: String,
        /// What was refused.
        illegal: Illegal,
    },
    /// The container must run for this.
    #[error("container '{name}' {}: {wish} needs a running container", in_words(*state))]
    NotRunning {
        /// Which container.
        name: String,
        /// Its state.
        state: ContainerState,
        /// What was asked for, as a noun.
        wish: &'static str,
    },
    /// The container's helper cannot be asked.
    #[error("container {name}: {}", match condition {
        HelperCondition::Silent => "its helper does not answer",
        HelperCondition::Foreign => "its helper speaks another version's protocol",
    })]
    HelperUnreachable {
        /// Which container.
        name: String,
        /// Why not.
        condition: HelperCondition,
    },
    /// It was killed and has not ended yet.
    #[error("container '{name}' was killed but has not exited: a process is blocked in the kernel")]
    DoesNotEnd {
        /// Which container.
        name: String,
    },
    /// Files are copied in or out of a container that is to start, or the other way round.
    #[error("container '{name}' {doing}")]
    FilesInUse {
        /// Which container.
        name: String,
        /// What is going on.
        doing: &'static str,
    },
    /// A path that the request names could not be looked at in time.
    #[error("a path in the configuration did not respond within {} s", .0.as_secs())]
    Unanswered(Duration),
    /// What a file system of the container was asked was not answered in time.
    #[error("a file system in the container did not respond within {} s", .0.as_secs())]
    FilesUnanswered(Duration),
    /// As many requests of a kind are under way as may be.
    #[error("{limit} {what} are under way, the most at one time")]
    Busy {
        /// How many.
        limit: usize,
        /// Of which kind.
        what: &'static str,
    },
    /// A worker process could not be started, or has ended.
    #[error("a worker process failed: {0}")]
    Worker(io::Error),
    /// Too many requests wait for such paths.
    #[error("too many requests are blocked on unresponsive file systems")]
    TooManyWait,
    /// An operation was held up, and somebody wants the container to end.
    #[error("cancelled: container '{name}' is being stopped or removed")]
    Cancelled {
        /// Which container.
        name: String,
    },
    /// A container was recorded, and its start failed for no fault of its own.
    #[error("{why}")]
    NotStarted {
        /// What it was.
        why: Box<EngineError>,
        /// The container.
        id: String,
    },
    /// The exec must run for this.
    #[error("exec {id} has ended")]
    ExecEnded {
        /// Which.
        id: String,
    },
    /// The exec has not come to its program for seconds.
    #[error("exec {id} is still being started")]
    ExecStarting {
        /// Which.
        id: String,
    },
    /// There is no stdin or no terminal to act on.
    #[error("{0}")]
    NotAvailable(String),
    /// A program could not be started.
    #[error("{}", .failure.detail)]
    StartFailed {
        /// The step.
        failure: Box<Failure>,
        /// 125, 126 or 127.
        exit_code: i32,
        /// The container or exec that was recorded, when one was.
        id: Option<String>,
    },
    /// A container could not be frozen or thawed; it is as it was.
    #[error("{}", .0.detail)]
    PauseFailed(Box<Failure>),
    /// Limits of a running container could not be changed.
    #[error("{}", .failure.detail)]
    UpdateFailed {
        /// The limit that was refused.
        failure: Box<Failure>,
        /// All are as they were.
        restored: bool,
    },
    /// The idempotency key was used for another request.
    #[error("{0}")]
    IdempotencyConflict(String),
    /// `If-Match` does not match.
    #[error("the container has changed: its ETag is now \"{current}\"")]
    PreconditionFailed {
        /// The generation.
        current: u64,
    },
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A helper.
    #[error("{0}")]
    Helper(#[source] HelperError),
    /// A file of the daemon's own.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was done.
        op: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading the kernel's view.
    #[error("{op}: {source}")]
    Kernel {
        /// What was read.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's view could not be read in time.
    #[error("cannot {op} within {} s", limit.as_secs())]
    Unreadable {
        /// What was read.
        op: &'static str,
        /// How long that may take.
        limit: Duration,
    },
    /// No id range for a user namespace.
    #[error("{0}")]
    Ids(#[from] crate::idpool::PoolError),
    /// The files of a container.
    #[error("{0}")]
    Files(#[from] crate::files::FileError),
    /// The daemon is going down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// A bug: an operation's task died.
    #[error("an internal task ended unexpectedly")]
    Task,
}

impl EngineError {
    /// An [`EngineError::Io`].
    pub fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| EngineError::Io { op, path, source }
    }

    /// `ENOENT` style, where a system call of the daemon's own failed.
    pub fn errno(&self) -> Option<String> {
        match self {
            EngineError::Io { source, .. }
            | EngineError::Kernel { source, .. }
            | EngineError::Worker(source) => source.raw_os_error().map(errno_name),
            _ => None,
        }
    }

    /// Whether it left a container that is recorded as failed.
    pub(super) fn is_of_a_recorded_start(&self) -> bool {
        matches!(
            self,
            EngineError::StartFailed { .. } | EngineError::NotStarted { .. }
        )
    }

    /// Whether a start that meets it says nothing about what was to be started.
    pub(super) fn is_no_fault_of_the_start(&self) -> bool {
        matches!(
            self,
            EngineError::Unanswered(_)
                | EngineError::TooManyWait
                | EngineError::Worker(_)
                | EngineError::Cancelled { .. }
        )
    }

    /// A failed start as an error, with what was recorded of it.
    pub fn start_failed(error: StartError, program: &str, id: Option<String>) -> Self {
        let (failure, exit_code) = describe_start(&error, program);
        EngineError::StartFailed {
            failure: Box::new(failure),
            exit_code,
            id,
        }
    }
}

impl From<WorkerError> for EngineError {
    fn from(e: WorkerError) -> Self {
        match e {
            WorkerError::Files(e) => EngineError::Files(e),
            WorkerError::Lost(e) => EngineError::Worker(e),
        }
    }
}

impl From<HelperError> for EngineError {
    fn from(e: HelperError) -> Self {
        EngineError::Helper(e)
    }
}

/// A failed start as the API shows it, and the exit code a shell would give.
pub(super) fn describe_start(error: &StartError, program: &str) -> (Failure, i32) {
    match error {
        StartError::Step(failure) => {
            let code = exit_code(failure);
            (describe_step(failure, program), code)
        }
        StartError::Io(e) => {
            let mut failure = helper_failure(format!("cannot start a helper: {e}"));
            failure.errno = e.raw_os_error().map(errno_name);
            (failure, 125)
        }
        StartError::Silent(patience) => {
            let mut failure = helper_failure(format!(
                "the start was given up: its helper did not answer within {} s",
                patience.as_secs()
            ));
            failure.errno = Some(errno_name(Errno::TIMEDOUT.raw_os_error()));
            (failure, 125)
        }
        StartError::Cancelled => (helper_failure("the start was cancelled".to_owned()), 125),
        StartError::Lost(detail) => {
            let detail = detail.as_ref().map(|d| format!(": {d}"));
            let detail = detail.unwrap_or_default();
            (
                helper_failure(format!("the helper ended before the program ran{detail}")),
                125,
            )
        }
    }
}

fn helper_failure(detail: String) -> Failure {
    Failure {
        step: "helper".into(),
        errno: None,
        syscall: None,
        path: None,
        detail,
    }
}

/// 127 when the program does not exist, 126 when it cannot be executed, else 125.
fn exit_code(failure: &StepFailure) -> i32 {
    if failure.step != Step::Exec {
        return 125;
    }
    if failure.errno == Errno::NOENT.raw_os_error() {
        127
    } else {
        126
    }
}

fn because(why: Option<Errno>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// A step's failure in words.
pub fn describe_step(failure: &StepFailure, program: &str) -> Failure {
    let errno = (failure.errno != 0).then(|| errno_name(failure.errno));
    // 0 is a check of the helper's own, and no errno: rustix refuses it.
    let why = if failure.errno == 0 {
        None
    } else {
        Some(Errno::from_raw_os_error(failure.errno))
    };
    let detail = match (failure.step, &failure.detail) {
        (Step::Exec, Some(detail)) if failure.lacks_interpreter() => {
            format!("'{program}' cannot be executed: {detail}")
        }
        (Step::Exec, _) if why == Some(Errno::NOENT) => {
            format!("'{program}' was not found in the container")
        }
        (Step::Exec, _) if why == Some(Errno::ACCESS) => format!("'{program}' may not be executed"),
        (Step::Exec, _) if why == Some(Errno::NOEXEC) => {
            format!("'{program}' is not a program this machine can run")
        }
        (_, Some(detail)) => detail.clone(),
        (Step::Exec, None) => format!("'{program}' cannot be executed{}", because(why)),
        (step, None) => {
            let path = failure
                .path
                .as_ref()
                .map(|p| format!(" {p}"))
                .unwrap_or_default();
            format!(
                "step {}: {}{path}{}",
                step.name(),
                failure.syscall,
                because(why)
            )
        }
    };
    Failure {
        step: failure.step.name().to_owned(),
        errno,
        syscall: (!failure.syscall.is_empty()).then(|| failure.syscall.clone()),
        path: failure.path.clone(),
        detail,
    }
}
