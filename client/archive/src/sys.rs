//! System calls' errors and descriptors, as both sides use them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::FileError;

/// A path that leads to exactly what a descriptor refers to, whatever its type and its name by
/// now (proc_pid_fd(5)): for the calls that take no `O_PATH` descriptor.
pub fn magic_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// A path for people.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The target of the symbolic link that an `O_PATH` descriptor refers to.
///
/// # Errors
/// As readlinkat(2); `path` is for the message.
pub fn link_of(fd: impl AsFd, path: &[u8]) -> Result<Vec<u8>, FileError> {
    let target = rustix::fs::readlinkat(fd, c"", Vec::new());
    target
        .map(CString::into_bytes)
        .map_err(|errno| failed("readlinkat", path, errno))
}

/// The error of a system call on a path.
pub fn failed(op: &'static str, path: &[u8], errno: Errno) -> FileError {
    let path = shown(path);
    match errno {
        Errno::NOENT => FileError::NotFound { path },
        Errno::NOTDIR => FileError::NotADirectory { path },
        Errno::LOOP | Errno::XDEV => FileError::Escape { path },
        Errno::NAMETOOLONG => FileError::Limit {
            path,
            what: "bytes in a path".into(),
            limit: 4095,
        },
        Errno::NOSPC => FileError::NoSpace { path },
        // Those of this process and of the host.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => FileError::Io {
            op: op.into(),
            path,
            source: errno.into(),
        },
        // A container decides which filesystems are mounted in it, and the server of a FUSE mount
        // answers with any number it likes.
        _ => FileError::Refused {
            op: op.into(),
            path,
            source: errno.into(),
        },
    }
}
