//! Signal masks and dispositions as the kernel has them: 64 bits, no libc reservations.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use super::check;

/// The size of the kernel's sigset_t, which the rt_* calls want to be told.
const SIGSET_SIZE: usize = 8;

/// Every disposition back to the default. exec(2) resets handlers but keeps what is ignored
/// (SIGPIPE, by Rust's runtime; SIGHUP, when the daemon was started by nohup), and a program
/// inside a container must not inherit that.
pub fn reset_signal_dispositions() {
    // The kernel's struct sigaction: handler, flags, restorer, mask; zero is SIG_DFL.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is as large as the kernel's struct on every 64-bit architecture;
        // the failures for SIGKILL and SIGSTOP are as intended.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                SIGSET_SIZE,
            )
        };
    }
}

/// Sets this thread's mask of blocked signals; bit n-1 is signal n.
pub fn set_signal_mask(mask: u64) -> Result<()> {
    let old = std::ptr::null::<u64>();
    // SAFETY: `mask` has the kernel's size and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            old,
            SIGSET_SIZE,
        )
    })
    .map(drop)
}

/// Waits for one of the signals in `mask`, which must be blocked, and returns its number.
pub fn wait_for_signal(mask: u64) -> Result<i32> {
    let (info, forever) = (
        std::ptr::null::<libc::siginfo_t>(),
        std::ptr::null::<libc::timespec>(),
    );
    // SAFETY: a null siginfo and a null timeout are allowed (rt_sigtimedwait(2)).
    let signal = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            info,
            forever,
            SIGSET_SIZE,
        )
    })?;
    Ok(i32::try_from(signal).unwrap_or(0))
}

/// Blocks every signal and makes a descriptor that they are read from (signalfd(2)). A fork undoes
/// the blocking with `set_signal_mask(0)`.
pub fn all_signals() -> Result<OwnedFd> {
    signal_descriptor(!0, libc::SFD_CLOEXEC)
}

/// Blocks the signals of `mask`, unblocks all others, and makes a descriptor that is readable while
/// one is pending.
pub(super) fn signal_descriptor(mask: u64, flags: libc::c_int) -> Result<OwnedFd> {
    set_signal_mask(mask)?;
    // SAFETY: the mask has the size that is told; -1 asks for a new descriptor.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, SIGSET_SIZE, flags)
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: signalfd4 has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the next signal from such a descriptor; waits for one.
pub fn read_signal(descriptor: BorrowedFd<'_>) -> Result<i32> {
    // struct signalfd_siginfo: 128 bytes, the number first.
    let mut info = [0u32; 32];
    // SAFETY: the buffer has the size that is told and outlives the call.
    let read = check(unsafe {
        libc::syscall(
            libc::SYS_read,
            descriptor.as_raw_fd(),
            info.as_mut_ptr(),
            size_of_val(&info),
        )
    })?;
    match usize::try_from(read) {
        Ok(n) if n == size_of_val(&info) => Ok(info[0].cast_signed()),
        _ => Err(Errno::IO),
    }
}
