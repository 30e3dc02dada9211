//! A failed system call before it is known to which step it belongs.

use std::fmt::Display;

use rustix::io::Errno;

use littlebox_protocol::{Step, StepFailure};

/// What failed, on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// errno(3), 0 for a check of our own.
    pub errno: i32,
    /// The system call; empty for a check of our own.
    pub syscall: &'static str,
    /// What it was about.
    pub path: Option<String>,
    /// A sentence, where the errno does not say enough.
    pub detail: Option<String>,
}

impl Fault {
    /// A system call that failed.
    pub fn of(syscall: &'static str, errno: Errno) -> Fault {
        Fault {
            errno: errno.raw_os_error(),
            syscall,
            path: None,
            detail: None,
        }
    }

    /// A check of our own that failed.
    pub fn refused(detail: impl Into<String>) -> Fault {
        Fault {
            errno: 0,
            syscall: "",
            path: None,
            detail: Some(detail.into()),
        }
    }

    /// The fault of a failure that another process told. The system call is part of the sentence.
    pub fn of_failure(failure: StepFailure) -> Fault {
        let StepFailure {
            errno,
            syscall,
            path,
            detail,
            ..
        } = failure;
        Fault {
            errno,
            syscall: "",
            path,
            detail: detail.or(Some(syscall)),
        }
    }

    /// Names the object.
    pub fn at(mut self, path: impl Display) -> Fault {
        self.path = Some(path.to_string());
        self
    }

    /// Adds a sentence.
    pub fn because(mut self, detail: impl Into<String>) -> Fault {
        self.detail = Some(detail.into());
        self
    }

    /// Gives a check of our own the errno that the kernel would have said.
    pub fn with_errno(mut self, errno: Errno) -> Fault {
        self.errno = errno.raw_os_error();
        self
    }

    /// The errno in words.
    pub fn errno_text(&self) -> String {
        std::io::Error::from_raw_os_error(self.errno).to_string()
    }

    /// The fault as a sentence.
    pub fn sentence(&self) -> String {
        match (&self.detail, &self.path) {
            (Some(detail), _) => detail.clone(),
            (None, Some(path)) => format!("{} {path}: {}", self.syscall, self.errno_text()),
            (None, None) => format!("{}: {}", self.syscall, self.errno_text()),
        }
    }

    /// Whether the system call failed with this errno.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == errno.raw_os_error()
    }

    /// The failure of a step.
    pub fn of_step(self, step: Step) -> StepFailure {
        StepFailure {
            step,
            errno: self.errno,
            syscall: self.syscall.to_owned(),
            path: self.path,
            detail: self.detail,
        }
    }
}

/// Names the system call and its object on the way out: `openat(..).fault("openat")?`.
pub trait OrFault<T> {
    /// Names the system call.
    fn fault(self, syscall: &'static str) -> Result<T, Fault>;
    /// Names the system call and its object.
    fn fault_at(self, syscall: &'static str, path: impl Display) -> Result<T, Fault>;
}

impl<T> OrFault<T> for rustix::io::Result<T> {
    fn fault(self, syscall: &'static str) -> Result<T, Fault> {
        self.map_err(|errno| Fault::of(syscall, errno))
    }

    fn fault_at(self, syscall: &'static str, path: impl Display) -> Result<T, Fault> {
        self.map_err(|errno| Fault::of(syscall, errno).at(path))
    }
}

impl<T> OrFault<T> for std::io::Result<T> {
    fn fault(self, syscall: &'static str) -> Result<T, Fault> {
        self.map_err(|error| Fault::of(syscall, Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    }

    fn fault_at(self, syscall: &'static str, path: impl Display) -> Result<T, Fault> {
        self.fault(syscall).map_err(|fault| fault.at(path))
    }
}
