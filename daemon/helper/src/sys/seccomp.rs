//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use super::check;
use littlebox_protocol::BpfInstruction;

const SECCOMP_SET_MODE_FILTER: u32 = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0).
const NEW_LISTENER: u32 = 1 << 3;

/// `struct sock_fprog` of `linux/filter.h`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const BpfInstruction,
}

/// Loads a filter for this thread; it cannot be taken off. Needs no_new_privs or CAP_SYS_ADMIN in
/// the user namespace.
pub fn load_seccomp_filter(program: &[BpfInstruction], flags: u32) -> Result<()> {
    set_mode_filter(program, flags).map(drop)
}

/// As [`load_seccomp_filter`], with a listener for what the filter leaves to others
/// (seccomp_unotify(2)). It is close-on-exec. Makes no other system call.
pub fn load_seccomp_filter_with_listener(
    program: &[BpfInstruction],
    flags: u32,
) -> Result<OwnedFd> {
    let fd = set_mode_filter(program, flags | NEW_LISTENER)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with this flag the result is a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows all these flags of a filter with a listener (seccomp(2): with a filter at
/// address 0 it says EFAULT, and of flags that it does not know EINVAL).
pub fn knows_seccomp_flags(flags: u32) -> bool {
    let nowhere = std::ptr::null::<Program>();
    // SAFETY: the kernel reads nothing at a null pointer, and loads nothing.
    let asked = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags | NEW_LISTENER,
            nowhere,
        )
    });
    asked == Err(Errno::FAULT)
}

fn set_mode_filter(program: &[BpfInstruction], flags: u32) -> Result<libc::c_long> {
    let program = Program {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr(),
    };
    // SAFETY: the program and its instructions have the layouts of linux/filter.h and outlive the
    // call, which only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}
