//! How programs end, and why starts fail.

use serde::{Deserialize, Serialize};

/// How a program ended. `unknown` is a value: it is never shown as 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How.
    #[serde(flatten)]
    pub status: ExitStatus,
    /// The kernel's OOM killer struck.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// It ran into its time limit and was killed (execs).
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
