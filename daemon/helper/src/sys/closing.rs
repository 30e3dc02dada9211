//! Closing what other code still owns, in processes that are about to be another program.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;

use super::check;

/// Closes every descriptor from `first` on but those that are `kept`. For a process that never goes
/// back to the code that owns the others, and ends in execve(2) or `_exit(2)`: no destructor runs that
/// would close one a second time.
pub fn close_all_but<'f>(
    kept: impl IntoIterator<Item = BorrowedFd<'f>>,
    mut first: u32,
) -> Result<()> {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().unsigned_abs();
    let mut kept: Vec<u32> = kept.into_iter().map(number).collect();
    kept.sort_unstable();
    for keep in kept {
        if keep > first {
            close_range(first, keep - 1)?;
        }
        first = first.max(keep + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the callers are processes that use no other descriptor from here on, see above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) }).map(drop)
}

/// Lets the descriptors from `first` to before `end` pass through execve(2). For descriptors that
/// this process was given by its caller to pass on, and owns by no other name.
pub fn keep_over_exec(first: u32, end: u32) -> Result<()> {
    for fd in first..end {
        // SAFETY: F_SETFD changes a flag of the descriptor and nothing that memory safety depends on.
        check(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}
