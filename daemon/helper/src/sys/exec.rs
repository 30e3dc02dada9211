//! execve(2).

use std::ffi::{CStr, CString, c_char};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;

use super::last_errno;

/// argv or environment as execve(2) takes it, ready before the call.
#[derive(Debug)]
pub struct Arguments {
    /// Each but the last points into `_strings`, the last is null.
    pointers: Vec<*const c_char>,
    /// Never changed: the bytes of a `CString` stay where they are when it is moved.
    _strings: Vec<CString>,
}

impl Arguments {
    /// Keeps the strings.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr());
        Self {
            pointers: pointers.chain([std::ptr::null()]).collect(),
            _strings: strings,
        }
    }
}

/// Replaces this process by `path`. Returns only when that failed. Makes no other system call.
pub fn execve(path: &CStr, argv: &Arguments, env: &Arguments) -> Errno {
    // SAFETY: both arrays end with a null pointer, and the strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// Has a command do something in the child, right before its execve(2).
///
/// The child must have been forked from a process with one thread: then it may do whatever the parent
/// may. Neither the helper nor the OCI command line ever starts one.
pub fn before_exec(
    command: &mut Command,
    work: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: with one thread no lock is held by another one that the child lacks.
    unsafe { command.pre_exec(work) };
}
