//! Errors as problem documents (RFC 9457). One exhaustive match: a new [`EngineError`] does not
//! compile until its status and code are chosen here.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use littlebox_types::{ContainerState, Problem};
use rustix::io::Errno;

use super::file_error;
use crate::engine::{EngineError, describe_step};
use crate::idpool::PoolError;
use crate::spec::errno_name;
use crate::store::StoreError;
use crate::supervisor::HelperError;

/// Every code that a problem can have, with its status and title; `api.yaml` lists the same.
pub const PROBLEMS: &[(&str, u16, &str)] = &[
    ("invalid_request", 400, "The request is not valid"),
    ("invalid_reference", 400, "Neither an id nor a name"),
    (
        "ambiguous_reference",
        400,
        "The reference fits several objects",
    ),
    ("bad_archive", 400, "The archive cannot be unpacked"),
    ("forbidden", 403, "Access denied"),
    ("container_not_found", 404, "No such container"),
    ("exec_not_found", 404, "No such exec"),
    ("namespace_not_found", 404, "No such namespace"),
    ("path_not_found", 404, "No such path in the container"),
    ("not_found", 404, "No such resource"),
    ("method_not_allowed", 405, "The resource has no such method"),
    (
        "not_acceptable",
        406,
        "None of the accepted media types can be given",
    ),
    ("name_in_use", 409, "The name is in use"),
    ("invalid_state", 409, "The state forbids it"),
    (
        "id_range_taken",
        409,
        "The ids of the container are in use elsewhere",
    ),
    (
        "file_refused",
        409,
        "The filesystem in the container refuses it",
    ),
    (
        "idempotency_conflict",
        409,
        "The idempotency key was used for something else",
    ),
    ("precondition_failed", 412, "The object has changed"),
    ("body_too_large", 413, "The body is too large"),
    (
        "unsupported_media_type",
        415,
        "The body's media type is not supported",
    ),
    ("start_failed", 422, "The program could not be started"),
    (
        "pause_failed",
        422,
        "The container could not be frozen or thawed",
    ),
    ("update_failed", 422, "The limits could not be changed"),
    ("upgrade_required", 426, "WebSocket required"),
    ("internal", 500, "Internal error"),
    ("unavailable", 503, "The daemon cannot serve this now"),
    (
        "helper_unreachable",
        503,
        "The container's helper cannot be asked",
    ),
    ("resources_exhausted", 503, "The host is out of a resource"),
    ("no_space", 507, "The disk is full"),
];

/// The codes of [`PROBLEMS`].
pub const CODES: [&str; PROBLEMS.len()] = {
    let mut codes = [""; PROBLEMS.len()];
    let mut i = 0;
    while i < PROBLEMS.len() {
        codes[i] = PROBLEMS[i].0;
        i += 1;
    }
    codes
};

/// An error on its way to the client, and for the log what it is based on.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    cause: Option<String>,
}

impl ApiError {
    /// A problem of a known code.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let found = PROBLEMS.iter().find(|(c, _, _)| *c == code);
        // A code that the table lacks is a fault of ours and shows as one.
        let (code, status, title) = found
            .copied()
            .unwrap_or(("internal", 500, "Internal error"));
        let problem = Problem {
            kind: format!("urn:littlebox:problem:{code}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            ..Problem::default()
        };
        Self {
            problem: Box::new(problem),
            cause: None,
        }
    }

    /// A malformed request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new("invalid_request", detail)
    }

    /// With a word on what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// With the place in the body.
    pub fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.problem.pointer = Some(pointer.into());
        self
    }

    pub(super) fn errno(mut self, errno: i32) -> Self {
        self.problem.errno = (errno != 0).then(|| errno_name(errno));
        self
    }

    pub(super) fn set_path(&mut self, path: Option<String>) {
        self.problem.path = path;
    }

    /// The document.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The document, for a stream's last record.
    pub fn into_problem(self) -> Problem {
        *self.problem
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&*self.problem)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response.extensions_mut().insert(Failed {
            problem: self.problem,
            cause: self.cause,
        });
        response
    }
}

/// The problem behind a response, for the log and for the request id.
#[derive(Debug, Clone)]
pub struct Failed {
    /// As the client gets it.
    pub problem: Box<Problem>,
    /// The error with all that it is based on; `None` where the problem is all that there is.
    pub cause: Option<String>,
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let cause = with_sources(&error);
        let mut problem = Self::of(error);
        problem.cause.get_or_insert(cause);
        problem
    }
}

/// An error's text and those of its sources, without what an outer one repeats.
fn with_sources(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}

impl ApiError {
    fn of(error: EngineError) -> Self {
        let detail = error.to_string();
        match error {
            EngineError::Config(e) => {
                let mut problem = Self::invalid(detail).pointer(e.pointer);
                problem.problem.hint = e.hint;
                problem
            }
            EngineError::Request(_) => Self::invalid(detail),
            EngineError::ContainerNotFound(_) => Self::new("container_not_found", detail)
                .hint("GET /v1/containers (lbctl ps -a) lists what there is"),
            EngineError::ExecNotFound(_) => Self::new("exec_not_found", detail),
            EngineError::NamespaceNotFound { .. } => Self::new("namespace_not_found", detail)
                .hint("GET /v1/namespaces (lbctl ns) lists what there is"),
            EngineError::Ambiguous { .. } => {
                Self::new("ambiguous_reference", detail).hint("give more of the id, or the name")
            }
            EngineError::BadReference(_) => Self::new("invalid_reference", detail),
            EngineError::NameInUse { .. } => Self::new("name_in_use", detail)
                .hint("choose another name, or remove the container that has it"),
            EngineError::Illegal { illegal, .. } => {
                let mut problem = Self::new("invalid_state", detail);
                problem.problem.state = Some(illegal.state.name().to_owned());
                problem.problem.hint = hint_for(illegal);
                problem
            }
            EngineError::NotRunning { state, .. } => {
                let mut problem = Self::new("invalid_state", detail);
                problem.problem.state = Some(state.name().to_owned());
                problem
            }
            EngineError::ExecEnded { .. } => {
                let mut problem = Self::new("invalid_state", detail);
                problem.problem.state = Some("exited".into());
                problem
            }
            EngineError::ExecStarting { .. } => Self::new("invalid_state", detail)
                .hint("try again when it runs, or end the start with SIGKILL"),
            EngineError::NotAvailable(_) => Self::new("invalid_state", detail),
            EngineError::StartFailed {
                failure,
                exit_code,
                id,
            } => start_failed(*failure, exit_code, id),
            EngineError::HelperUnreachable { .. } => helper_unreachable(detail),
            EngineError::DoesNotEnd { .. } => Self::new("unavailable", detail).hint(
                "look for a dead network or FUSE mount that it uses; its end is recorded when it comes",
            ),
            EngineError::FilesInUse { .. } => {
                Self::new("invalid_state", detail).hint("try again when that has ended")
            }
            EngineError::Unanswered(_) => Self::new("unavailable", detail)
                .hint("look for a dead network or FUSE mount among its root, mounts and devices"),
            EngineError::Unreadable { .. } => Self::new("unavailable", detail)
                .hint("try again; a process of the container may be blocked in the kernel"),
            EngineError::FilesUnanswered(_) => Self::new("unavailable", detail)
                .hint("look for a dead network or FUSE mount inside the container"),
            EngineError::Busy { .. } => Self::new("resources_exhausted", detail).hint(
                "try again when one of them has ended; one that does not end is blocked on a dead \
                 network or FUSE mount",
            ),
            EngineError::Worker(source) => worker(&source, detail),
            EngineError::TooManyWait => Self::new("resources_exhausted", detail)
                .hint("look for a dead network or FUSE mount among roots, mounts and devices"),
            EngineError::Cancelled { .. } => Self::new("invalid_state", detail),
            EngineError::NotStarted { why, id } => {
                let mut problem = Self::from(*why);
                problem.problem.step = Some("prepare".into());
                problem.problem.exit_code = Some(125);
                problem.problem.id = Some(id);
                problem
            }
            EngineError::PauseFailed(failure) => pause_failed(*failure),
            EngineError::UpdateFailed { failure, restored } => update_failed(*failure, restored),
            EngineError::IdempotencyConflict(_) => Self::new("idempotency_conflict", detail)
                .hint("use a fresh key for each new request"),
            EngineError::PreconditionFailed { .. } => Self::new("precondition_failed", detail)
                .hint("read the container again and repeat the change"),
            EngineError::Store(StoreError::Full) => Self::new("no_space", detail)
                .hint("make room on the disk that holds the state directory"),
            EngineError::Store(StoreError::NameTaken) => Self::new("name_in_use", detail),
            EngineError::Store(StoreError::Closed) | EngineError::ShuttingDown => {
                Self::new("unavailable", "the daemon is shutting down")
                    .hint("ask again when it is back")
            }
            EngineError::Store(
                StoreError::Dead | StoreError::Io(_) | StoreError::Sql(_) | StoreError::Migrate(_),
            )
            | EngineError::Task => Self::new("internal", detail),
            EngineError::Helper(e) => helper(e),
            EngineError::Io { source, .. } | EngineError::Kernel { source, .. } => {
                io_problem(&source, detail)
            }
            EngineError::Files(e) => file_error::problem(e, detail),
            EngineError::Ids(e) => ids(e, detail),
        }
    }
}

fn hint_for(illegal: crate::lifecycle::Illegal) -> Option<String> {
    use crate::lifecycle::Transition as T;
    let hint = match (illegal.transition, illegal.state) {
        (T::Remove, _) => "stop it first, or remove it with force",
        (
            T::Freeze | T::Stop | T::Thaw,
            ContainerState::Created | ContainerState::Exited | ContainerState::Failed,
        ) => "start it first",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// A start that failed: of its own code, unless the machine ran out of something.
fn start_failed(failure: littlebox_types::Failure, exit_code: i32, id: Option<String>) -> ApiError {
    let code = match failure.errno.as_deref() {
        Some("ENOSPC" | "EDQUOT") => "no_space",
        Some("EMFILE" | "ENFILE" | "ENOMEM" | "EAGAIN") => "resources_exhausted",
        _ => "start_failed",
    };
    let mut error = ApiError::new(code, failure.detail);
    let problem = &mut error.problem;
    problem.step = Some(failure.step);
    problem.errno = failure.errno;
    problem.syscall = failure.syscall;
    problem.path = failure.path;
    problem.exit_code = Some(exit_code);
    problem.id = id;
    error
}

/// There is no freezer, or it did not work.
fn pause_failed(failure: littlebox_types::Failure) -> ApiError {
    let error = ApiError::new("pause_failed", failure.detail.clone());
    with_failure(error, failure)
        .hint("the warnings of the container say why it has no control group; stop it instead")
}

/// The kernel refuses a limit of a container that runs.
fn update_failed(failure: littlebox_types::Failure, restored: bool) -> ApiError {
    let hint = if restored {
        "the limits are as they were; the detail names the one that was refused"
    } else {
        "some limits have changed and could not be set back yet; that is tried again before the \
         next change and when the daemon starts"
    };
    let error = ApiError::new("update_failed", failure.detail.clone()).hint(hint);
    with_failure(error, failure)
}

/// Where in the helper it failed.
fn with_failure(mut error: ApiError, failure: littlebox_types::Failure) -> ApiError {
    let problem = &mut error.problem;
    problem.step = Some(failure.step);
    problem.errno = failure.errno;
    problem.syscall = failure.syscall;
    problem.path = failure.path;
    error
}

fn helper_unreachable(detail: String) -> ApiError {
    ApiError::new("helper_unreachable", detail).hint(
        "it is asked again until it answers; stop, kill and rm --force do not need it, and after an \
         upgrade the daemon of the version that started it can take it back",
    )
}

fn helper(error: HelperError) -> ApiError {
    match error {
        HelperError::Silent => helper_unreachable("the container's helper does not answer".into()),
        HelperError::Step(failure) => {
            let described = describe_step(&failure, "the program");
            start_failed(described, 125, None)
        }
        HelperError::Gone => {
            let mut problem = ApiError::new("invalid_state", "the container has just ended");
            problem.problem.state = Some("exited".into());
            problem
        }
        HelperError::Io(source) => {
            let detail = format!("cannot talk to the helper: {source}");
            io_problem(&source, detail)
        }
        HelperError::Protocol => ApiError::new("internal", "the helper answered out of turn"),
    }
}

/// A failed system call of the daemon's own.
pub(super) fn io_problem(source: &std::io::Error, detail: String) -> ApiError {
    let errno = source.raw_os_error().unwrap_or(0);
    let code = match Errno::from_io_error(source) {
        Some(Errno::NOSPC | Errno::DQUOT) => "no_space",
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => "resources_exhausted",
        // The process that was looked at has ended meanwhile.
        Some(Errno::NOENT | Errno::SRCH) => {
            let mut problem = ApiError::new("invalid_state", detail).errno(errno);
            problem.problem.state = Some("exited".into());
            return problem;
        }
        _ => "internal",
    };
    ApiError::new(code, detail).errno(errno)
}

/// A process that does the daemon's work outside of it.
fn worker(source: &std::io::Error, detail: String) -> ApiError {
    match source.raw_os_error() {
        Some(_) => io_problem(source, detail),
        None => ApiError::new("unavailable", detail)
            .hint("try again; the kernel's log says whether it was killed for lack of memory"),
    }
}

fn ids(error: PoolError, detail: String) -> ApiError {
    match error {
        PoolError::Exhausted { .. } => ApiError::new("resources_exhausted", detail).hint(
            "remove containers, enlarge id_pool in the configuration, or use the host's user \
             namespace (namespaces.user: host)",
        ),
        PoolError::Taken { .. } => ApiError::new("id_range_taken", detail)
            .hint("remove this container and create it again: it then gets a range that is free"),
        PoolError::Registry(source) if source.kind() == std::io::ErrorKind::TimedOut => {
            ApiError::new("unavailable", detail)
                .hint("look for a littleboxd of this machine that is stopped, and resume or end it")
        }
        PoolError::Registry(source) => io_problem(&source, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_is_based_on_is_kept_for_the_log() {
        let denied = || std::io::Error::from(Errno::NOTSOCK);
        let error = ApiError::from(EngineError::Helper(HelperError::Io(denied())));
        assert_eq!(
            error.cause.as_deref(),
            Some(&*format!("cannot talk to the helper: {}", denied()))
        );
        let error = ApiError::from(EngineError::io("read", "/x")(denied()));
        assert_eq!(error.cause, Some(format!("read /x: {}", denied())));
    }
}
