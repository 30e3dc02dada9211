//! Processes: clone3(2), pidfd signals, namespaces, descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::check;

/// `struct clone_args` of clone3(2), up to the field `cgroup` (kernel 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3's flag to be born in the cgroup of a descriptor (kernel 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The one that called.
    Parent {
        /// The child's PID in the caller's PID namespace.
        pid: u32,
        /// The child's pidfd.
        pidfd: OwnedFd,
    },
    /// The new process: a copy-on-write copy of the caller.
    Child,
}

/// `clone3` without shared memory, i.e. a fork into new namespaces: `flags` are `CLONE_NEW*` and
/// `CLONE_PARENT`. With `cgroup`, the child is born in that v2 cgroup.
///
/// The caller must have one thread: the child has a copy of the calling thread alone, and a lock
/// that another thread held would stay locked in it. The helper never starts a thread.
pub fn fork_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD.unsigned_abs() as u64,
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArgs::default()
    };
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: `args` and the pidfd it points to outlive the call and have the layout of clone3(2);
    // without CLONE_VM and a stack of its own the child goes on with a copy of this one.
    let result =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if result == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has just opened this descriptor for us (CLONE_PIDFD sets O_CLOEXEC).
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent {
        pid: u32::try_from(result).map_err(|_| Errno::OVERFLOW)?,
        pidfd,
    })
}

/// `_exit(2)`: ends this process at once, without running destructors or exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// `kill(2)` with a raw signal number (real-time signals included; 0 only asks).
pub fn kill(pid: u32, signal: i32) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or(Errno::SRCH)?;
    // SAFETY: kill takes plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// `pidfd_send_signal(2)` with a raw signal number (0 only asks whether the process is there).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0u32);
    // SAFETY: the descriptor is borrowed for the call; a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            flags,
        )
    })
    .map(drop)
}

/// Moves this process into new namespaces (`CLONE_NEW*`; all but PID and time, which take a child).
pub fn unshare(flags: u64) -> Result<()> {
    let flags = libc::c_int::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: flags of namespaces change nothing that memory safety depends on.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Moves this process into a cgroup namespace of its own (`unshare(CLONE_NEWCGROUP)`).
pub fn unshare_cgroup_namespace() -> Result<()> {
    // SAFETY: CLONE_NEWCGROUP changes nothing that memory safety depends on.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Gives this thread a mount namespace of its own (`unshare(CLONE_NEWNS)`), for tests that mount.
#[cfg(test)]
pub fn unshare_mount_namespace() -> Result<()> {
    // SAFETY: unshare takes a plain flag and changes only which namespace and which working
    // directory this thread has.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Makes a time namespace for this process' children to come (`unshare(CLONE_NEWTIME)`); it
/// stays in its own.
pub fn unshare_time_namespace() -> Result<()> {
    // CLONE_NEWTIME of time_namespaces(7); libc lacks it on some targets.
    const CLONE_NEWTIME: libc::c_int = 0x80;
    // SAFETY: CLONE_NEWTIME changes nothing that memory safety depends on.
    check(unsafe { libc::unshare(CLONE_NEWTIME) }.into()).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), kernel 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no descriptor is closed here, only flagged.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from `first` on. For a process that owns none of them any more.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: called only by littlebox's init right before its loop, which never returns and
    // owns no descriptor, so no OwnedFd is left that would close one a second time.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) }).map(drop)
}
