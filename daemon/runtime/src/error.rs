//! What can go wrong, in the words that engines look for.
//!
//! An engine reads the last error of `--log` and the exit code, and some of them compare the text:
//! containerd looks for `does not exist` and `container not running`, Podman for `executable file not
//! found in`, `no such file or directory`, `permission denied`. Those words are kept.

use std::io;
use std::path::PathBuf;

use littlebox_helper::fault::Fault;
use littlebox_plan::PlanError;
use littlebox_protocol::{Step, StepFailure};

use crate::id::Id;
use crate::store::Status;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id is not one.
    #[error(
        "invalid container id {0:?}: letters, digits, '_', '+', '-' and '.', at most 255 bytes, and not '.' or '..'"
    )]
    BadId(String),
    /// Nothing has this id.
    #[error("container does not exist: {0}")]
    NotFound(Id),
    /// Something has it already.
    #[error("container with given ID already exists: {0}")]
    Exists(Id),
    /// The command needs another state.
    #[error("{0}")]
    WrongState(String),
    /// A signal for a container whose process has ended.
    #[error("container not running: {0}")]
    NotRunning(Id),
    /// `config.json`, `process.json` or a resource document.
    #[error("{document}: {pointer}: {message}")]
    Document {
        /// Which.
        document: PathBuf,
        /// JSON pointer of the value (RFC 6901).
        pointer: String,
        /// What is wrong with it.
        message: String,
    },
    /// A step of the build failed.
    #[error("{}", describe(.0))]
    Step(StepFailure),
    /// A flag that cannot be served.
    #[error("{0}")]
    Usage(String),
    /// A system call of this program failed.
    #[error("{what}: {}", words(.source))]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A plan's error about a document.
    pub fn document(document: impl Into<PathBuf>, error: PlanError) -> Error {
        Error::Document {
            document: document.into(),
            pointer: error.pointer,
            message: error.message,
        }
    }

    /// A state that the command cannot work with.
    pub fn wrong_state(what: &str, id: &Id, status: Status) -> Error {
        Error::WrongState(format!("cannot {what} container {id} that is {status}"))
    }
}

impl From<StepFailure> for Error {
    fn from(failure: StepFailure) -> Error {
        Error::Step(failure)
    }
}

/// Names what was tried on the way out: `read(..).doing(|| "read x")?`.
pub trait Doing<T> {
    /// Adds what was tried.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io {
            what: what(),
            source: error.into(),
        })
    }
}

/// The same for a fault of the helper library.
pub fn fault(fault: Fault) -> Error {
    Error::Step(fault.of_step(Step::Checks))
}

/// A failed step as a sentence.
fn describe(failure: &StepFailure) -> String {
    let path = failure.path.as_deref().unwrap_or_default();
    if failure.step == Step::Exec && failure.syscall == "execve" {
        return describe_exec(failure, path);
    }
    let mut text = format!("step {}", failure.step.name());
    if !failure.syscall.is_empty() {
        text.push_str(&format!(": {}", failure.syscall));
    }
    if !path.is_empty() {
        text.push_str(&format!(" {path}"));
    }
    if failure.errno != 0 {
        text.push_str(&format!(": {}", errno_words(failure.errno)));
    }
    if let Some(detail) = &failure.detail {
        text.push_str(&format!(": {detail}"));
    }
    text
}

/// A program that cannot be executed: what engines turn into the exit codes 126 and 127.
fn describe_exec(failure: &StepFailure, program: &str) -> String {
    let is_missing = failure.errno == rustix::io::Errno::NOENT.raw_os_error();
    if is_missing && !program.contains('/') && !failure.lacks_interpreter() {
        return format!("exec: {program:?}: executable file not found in $PATH");
    }
    let why = errno_words(failure.errno);
    match &failure.detail {
        Some(detail) => format!("exec: {program:?}: {why}: {detail}"),
        None => format!("exec: {program:?}: {why}"),
    }
}

/// An error of the system as engines and users search for it: `no such file or directory`, in lower
/// case.
pub fn words(error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error() else {
        return error.to_string();
    };
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn errno_words(errno: i32) -> String {
    words(&io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec_failure(program: &str, errno: rustix::io::Errno) -> String {
        let fault = Fault::of("execve", errno).at(program);
        Error::from(fault.of_step(Step::Exec)).to_string()
    }

    #[test]
    fn programs_that_cannot_run_are_told_as_engines_know_it() {
        use rustix::io::Errno;
        assert_eq!(
            exec_failure("nope", Errno::NOENT),
            "exec: \"nope\": executable file not found in $PATH"
        );
        assert!(exec_failure("/nope", Errno::NOENT).contains("no such file or directory"));
        assert!(exec_failure("/etc", Errno::ACCESS).contains("permission denied"));
    }

    #[test]
    fn a_failed_step_names_its_path_and_the_cause_in_the_systems_words() {
        let fault = Fault::of("openat2", rustix::io::Errno::NOENT).at("/x/y");
        let error = Error::from(fault.of_step(Step::Mounts));
        assert_eq!(
            error.to_string(),
            "step mounts: openat2 /x/y: no such file or directory"
        );
        let error = Err::<(), _>(rustix::io::Errno::ACCESS).doing(|| "read /z".to_owned());
        assert_eq!(
            error.expect_err("an error").to_string(),
            "read /z: permission denied"
        );
    }
}
