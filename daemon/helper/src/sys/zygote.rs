//! What the zygote and the supervisor need: fork with a pidfd, SIGCHLD as a descriptor, and a few
//! calls about this process as a whole.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Proof that this process has one thread. It cannot leave the thread that got it, and nothing in
/// this crate makes threads.
#[derive(Debug, Clone, Copy)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads in `/proc/self/task`.
    ///
    /// # Errors
    /// There is more than one, or procfs cannot be read.
    pub fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            n => Err(io::Error::other(format!("{n} threads where one is expected"))),
        }
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// PID of the child in this process' PID namespace.
        pid: u32,
        /// Its pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// fork(2), with a pidfd of the child from the same call (clone3(2), `CLONE_PIDFD`).
///
/// # Errors
/// What clone3(2) says.
pub fn fork(_: SingleThreaded) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeros is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD.cast_unsigned().into();
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    // SAFETY: no CLONE_VM and no new stack: the child goes on in a copy of this process. It is
    // whole, because there is no other thread that could hold a lock (the argument proves it).
    // `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match u32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid, pidfd })
        }
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Blocks SIGCHLD and makes a non-blocking descriptor that is readable while one is pending
/// (signalfd(2)).
///
/// # Errors
/// What signalfd(2) says.
pub fn child_signals() -> io::Result<OwnedFd> {
    set_sigchld_mask(libc::SIG_BLOCK)?;
    let set = sigchld_set();
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Undoes the blocking of [`child_signals`] (in a forked child).
///
/// # Errors
/// What sigprocmask(2) says.
pub fn unblock_child_signals() -> io::Result<()> {
    set_sigchld_mask(libc::SIG_UNBLOCK)
}

fn set_sigchld_mask(how: libc::c_int) -> io::Result<()> {
    let set = sigchld_set();
    // SAFETY: the set is initialised; a null pointer asks for no old set.
    match unsafe { libc::sigprocmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn sigchld_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset then initialises it, and SIGCHLD is a signal.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Sends any signal, 1 to 64, real-time ones included (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` when the process is gone, `EINVAL` for a number that is no signal.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; a null siginfo makes the kernel fill it in as for kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the heap's free pages back to the kernel (malloc_trim(3)). Does nothing without glibc.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only memory that is free, and locks the arenas itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Closes every descriptor from 3 on that `keep` does not name (close_range(2)).
///
/// Only for the very beginning of a process, to be rid of what it inherited.
///
/// # Errors
/// What close_range(2) says.
pub fn close_inherited(keep: BorrowedFd<'_>) -> io::Result<()> {
    let keep = keep.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, keep.saturating_sub(1)), (keep.max(2) + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: called before anything else in this process owns a descriptor of its own above
        // 2, but for `keep`, which is outside of both ranges.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
