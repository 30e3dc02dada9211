//! System calls that rustix does not have, and nothing else. The only place with `unsafe`.
//!
//! Every function is a thin wrapper: it takes borrowed descriptors, returns owned ones that are
//! close-on-exec, and turns a negative result into [`rustix::io::Errno`].
#![expect(
    unsafe_code,
    reason = "the system call layer: the one place where it is allowed"
)]

mod bpf;
mod closing;
mod exec;
mod fsids;
mod keyring;
mod mount;
mod net;
mod nsfs;
mod process;
mod scheduling;
mod seccomp;
mod shared;
mod signal;
mod zygote;

pub use bpf::*;
pub use closing::*;
pub use exec::*;
pub use fsids::*;
pub use keyring::*;
pub use mount::*;
pub use net::*;
pub use nsfs::*;
pub use process::*;
pub use scheduling::*;
pub use seccomp::*;
pub use shared::*;
pub use signal::*;
pub use zygote::*;

use rustix::io::Errno;

/// The result of `libc::syscall`: a negative one means that errno is set.
fn check(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

fn last_errno() -> Errno {
    // SAFETY: __errno_location always returns a valid pointer to this thread's errno.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
