//! Closing what other code still owns, in processes that are about to be another program.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use super::check;

/// Closes every descriptor but 0, 1, 2 and `keep`. For a process whose next call is execve(2),
/// or, when that fails, `_exit(2)`: no destructor runs that would close one a second time.
pub fn close_all_but(keep: impl AsFd) -> Result<()> {
    let keep = keep.as_fd().as_raw_fd().unsigned_abs();
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the callers are processes that use no other descriptor from here on, see above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) }).map(drop)
}
