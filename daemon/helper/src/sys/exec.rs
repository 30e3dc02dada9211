//! execve(2).

use std::ffi::{CStr, CString, c_char};

use rustix::io::Errno;

use super::last_errno;

/// Replaces this process by `path`. Returns only when that failed.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let argv = null_terminated(argv);
    let env = null_terminated(env);
    // SAFETY: both arrays end with a null pointer, and the strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

fn null_terminated(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}
