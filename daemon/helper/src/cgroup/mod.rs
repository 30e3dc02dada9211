//! The container's cgroup through one small interface, on v2, hybrid and v1 hosts.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::protocol::{CgroupPlan, Step, StepFailure};

/// The directories of one container in every hierarchy that is used. Dropping it removes nothing.
#[derive(Debug, Default)]
pub struct Cgroup {}

impl Cgroup {
    /// Makes the directories and writes the limits. A limit whose controller the host does not
    /// have is a failure. Undoes itself on failure.
    pub fn create(_plan: &CgroupPlan) -> Result<Cgroup, StepFailure> {
        Err(StepFailure {
            step: Step::Cgroup,
            errno: libc::ENOSYS,
            syscall: String::new(),
            path: None,
            detail: None,
        })
    }

    /// The directories that exist under the plan's path, whoever made them: for ending and
    /// removing a cgroup that an earlier helper left.
    pub fn open(_plan: &CgroupPlan) -> io::Result<Cgroup> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// Absolute directories by controller (`unified`, `memory`...).
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        Vec::new()
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`, where there is a v2 hierarchy.
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Freezes or thaws, and waits until it is so (bounded).
    pub fn set_frozen(&self, _frozen: bool) -> io::Result<()> {
        Ok(())
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Sends a signal to every process in it and below.
    pub fn signal_all(&self, _signal: i32) -> io::Result<()> {
        Ok(())
    }

    /// Kills everything in it and below (`cgroup.kill`; v1: freeze, kill, thaw).
    pub fn kill_all(&self) -> io::Result<()> {
        Ok(())
    }

    /// How many processes the OOM killer has ended in it so far; 0 without a memory controller.
    pub fn oom_kills(&self) -> u64 {
        0
    }

    /// Removes the directories and everything below them, with bounded retries while dead
    /// processes leave. What is already gone is no error.
    pub fn remove(&self) -> io::Result<()> {
        Ok(())
    }
}
