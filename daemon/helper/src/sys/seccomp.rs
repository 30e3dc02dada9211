//! seccomp(2).

use rustix::io::{Errno, Result};

use super::check;
use crate::protocol::BpfInstruction;

/// `struct sock_fprog` of `linux/filter.h`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const BpfInstruction,
}

/// Loads a filter for this thread; it cannot be taken off. Needs no_new_privs or CAP_SYS_ADMIN in
/// the user namespace.
pub fn load_seccomp_filter(program: &[BpfInstruction], flags: u32) -> Result<()> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
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
    .map(drop)
}
