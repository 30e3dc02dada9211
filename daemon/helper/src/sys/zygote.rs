//! What a process needs at the beginning of its life as a zygote or helper, and for its upkeep.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Result;

use super::check;
use super::signal::{set_signal_mask, signal_descriptor};

/// The kernel's signal set with SIGCHLD alone: bit n-1 is signal n.
const SIGCHLD_SET: u64 = 1 << (libc::SIGCHLD - 1);

/// Blocks every signal, so that none but SIGKILL ends this process or a fork of it, and makes a
/// non-blocking descriptor that is readable while SIGCHLD is pending (signalfd(2)). What is to be
/// ended by signals again undoes the blocking with `set_signal_mask(0)`.
pub fn child_signals() -> Result<OwnedFd> {
    let descriptor = signal_descriptor(SIGCHLD_SET, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)?;
    set_signal_mask(!0)?;
    Ok(descriptor)
}

/// Gives the heap's free pages back to the kernel (malloc_trim(3)). Does nothing without glibc.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only memory that is free, and locks the arenas itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Closes every descriptor from 3 on but `keep` (close_range(2)): for the very beginning of a
/// process, to be rid of what it inherited.
pub fn close_inherited(keep: BorrowedFd<'_>) -> Result<()> {
    let keep = keep.as_raw_fd().cast_unsigned();
    let below = (3, keep.saturating_sub(1));
    let above = (keep.max(2) + 1, u32::MAX);
    for (first, last) in [below, above] {
        if first <= last {
            // SAFETY: called before anything in this process owns a descriptor above 2, but for
            // `keep`, which lies in neither range.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) })?;
        }
    }
    Ok(())
}
