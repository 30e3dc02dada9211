//! What the helper looks up in a container that runs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::system::uname;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

use super::Built;
use super::namespaces::join_process;
use crate::fault::{Fault, OrFault};
use crate::sys;

/// The container's root directory as an `O_PATH` descriptor.
///
/// # Errors
///
/// `ESRCH` when PID 1 has ended.
pub fn container_root(container: &Built) -> io::Result<OwnedFd> {
    root_of(container.launched.pid, container.pidfd.as_fd())
        .map_err(|fault| io::Error::from_raw_os_error(fault.errno))
}

/// The root directory of a process, as an `O_PATH` descriptor.
pub fn root_of(pid: u32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(&path, flags, Mode::empty()).fault_at("open", path)?;
    // The number was still its own when the path was opened, or this fails.
    sys::pidfd_send_signal(pidfd, 0).fault("pidfd_send_signal")?;
    Ok(root)
}

/// `(nodename, domainname)` of the container's UTS namespace, read from the kernel.
///
/// The helper goes there and back: it has one thread, nothing else of it depends on the
/// namespace, and a child for it would cost a hundred times as much.
pub fn container_hostname(container: &Built) -> io::Result<(String, String)> {
    let uts = ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    if !container.membership.mask().contains(uts) {
        return Ok(names());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = open("/proc/self/ns/uts", flags, Mode::empty())?;
    join_process(container.pidfd.as_fd(), uts)
        .map_err(|fault| io::Error::from_raw_os_error(fault.errno))?;
    let names = names();
    move_into_link_name_space(
        own.as_fd(),
        Some(LinkNameSpaceType::HostNameAndNISDomainName),
    )?;
    Ok(names)
}

fn names() -> (String, String) {
    let names = uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    (text(names.nodename()), text(names.domainname()))
}

/// Field 3 of `/proc/PID/stat`: what the process does (`T`: stopped by a signal).
pub fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

/// Field 22 of `/proc/PID/stat`: when the process started, in clock ticks since boot.
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.split(' ').nth(19)?.parse().ok()
}

/// Whether a process is on its way out of the kernel, and with it (as PID 1 of its namespace) all that
/// live there: flag `PF_EXITING` in field 9 of `/proc/PID/stat`.
pub fn is_exiting(pid: u32) -> bool {
    const PF_EXITING: u64 = 0x4;
    let flags = stat(pid).and_then(|stat| stat.split(' ').nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// `/proc/PID/stat` from its third field on. The second is the program's name, in parentheses, and may
/// contain anything.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

/// The parent of a process: field 4 of `/proc/PID/stat`.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

/// The children that this thread has made and not reaped (proc_pid_task(5), "children").
pub fn own_children() -> Vec<u32> {
    listed(Path::new("/proc/thread-self/children"))
}

/// The children of all threads of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads
        .flat_map(|thread| listed(&thread.path().join("children")))
        .collect()
}

fn listed(children: &Path) -> Vec<u32> {
    let list = fs::read_to_string(children).unwrap_or_default();
    let pids = list.split_whitespace().map(str::parse);
    pids.filter_map(Result::ok).collect()
}
