//! Building a container: the order of the helper's work, from the plan to a running program.

use std::io;
use std::os::fd::OwnedFd;

use crate::cgroup::Cgroup;
use crate::protocol::{ExecPlan, LaunchPlan, Launched, RootfsPlan, Step, StepFailure};

/// A container whose program runs (its `execve` succeeded).
#[derive(Debug)]
pub struct Built {
    /// What the daemon is told.
    pub launched: Launched,
    /// PID 1. It is a child of this process and must be waited for (`waitid`, `P_PIDFD`).
    pub pidfd: OwnedFd,
    /// The helper's ends of the program's stdio: `Some` as built, until the supervisor takes them.
    pub stdio: Option<Stdio>,
    /// The container's cgroup; the caller kills and removes it when PID 1 has ended.
    pub cgroup: Cgroup,
}

/// The helper's ends of a program's stdio: non-blocking, close-on-exec.
#[derive(Debug)]
pub enum Stdio {
    /// One pipe per stream.
    Pipes {
        /// Write end of stdin; `None` where the program reads `/dev/null`.
        stdin: Option<OwnedFd>,
        /// Read end of stdout.
        stdout: OwnedFd,
        /// Read end of stderr.
        stderr: OwnedFd,
    },
    /// A pseudo terminal of the container's own devpts.
    Terminal {
        /// The master.
        master: OwnedFd,
    },
}

/// A process that was started inside a running container.
#[derive(Debug)]
pub struct ExecBuilt {
    /// Its PID as the helper sees it.
    pub pid: u32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_time: u64,
    /// It is a child of this process and must be waited for.
    pub pidfd: OwnedFd,
    /// The helper's ends of its stdio.
    pub stdio: Stdio,
    /// What could not be done and was not essential.
    pub warnings: Vec<String>,
}

/// Builds the container of `plan` and starts its program. `fds` are the descriptors that lay
/// beside the plan (for `NamespacePlan::Join`).
///
/// On failure everything that was made is undone: the child is killed and reaped, the cgroup
/// removed, no mount is left.
pub fn launch(_plan: &LaunchPlan, _fds: Vec<OwnedFd>) -> Result<Built, StepFailure> {
    Err(not_yet(Step::Checks))
}

/// Starts a process inside a running container.
pub fn exec(
    _container: &Built,
    _launch: &LaunchPlan,
    _plan: &ExecPlan,
) -> Result<ExecBuilt, StepFailure> {
    Err(not_yet(Step::Exec))
}

/// The root filesystem of a container that does not run, as a detached mount: nothing is
/// mounted anywhere, and it is gone when the descriptor is closed.
pub fn open_rootfs(_plan: &RootfsPlan) -> Result<OwnedFd, StepFailure> {
    Err(not_yet(Step::Rootfs))
}

/// The container's root directory as an `O_PATH` descriptor.
pub fn container_root(_container: &Built) -> io::Result<OwnedFd> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// `(nodename, domainname)` of the container's UTS namespace, read from the kernel.
pub fn container_hostname(_container: &Built) -> io::Result<(String, String)> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

fn not_yet(step: Step) -> StepFailure {
    StepFailure { step, errno: libc::ENOSYS, syscall: String::new(), path: None, detail: None }
}
