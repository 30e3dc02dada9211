//! A program to execute: as whom, with which rights and bounds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LabelPlan, SchedulingPlan, SeccompPlan};

/// A program to execute: the container's own or an exec's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// argv; never empty. `args[0]` without a slash is looked up in the plan's `PATH`.
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Absolute working directory inside the container.
    pub cwd: PathBuf,
    /// Make `cwd` when it is missing; for the program of a container.
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
    pub seccomp: Option<SeccompPlan>,
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
