//! Paths inside a container's root.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::FileError;
use crate::faults::Defence;

/// The most symbolic-link races that one resolution bears.
const ATTEMPTS: u32 = 256;

/// Opens a path as a process would whose root is `root`: absolute links and `..` stay inside.
///
/// The kernel answers `EAGAIN` when something is renamed during the walk and it cannot be sure
/// (openat2(2)); that is tried again a bounded number of times.
pub(super) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // As a relative path it begins at `root`, whatever the flags are.
    let start = path.iter().take_while(|byte| **byte == b'/').count();
    let path = match &path[start..] {
        b"" => b".",
        relative => relative,
    };
    let resolve = match Defence::FilesInRoot.stands() {
        true => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        false => ResolveFlags::empty(),
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if attempt < ATTEMPTS => {}
            result => return result,
        }
    }
}

/// A path that leads to exactly what a descriptor refers to, whatever its type and its name by
/// now (proc_pid_fd(5)): for the calls that take no `O_PATH` descriptor.
pub(super) fn magic_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// A container path for people.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The error of a system call on a container path.
pub(super) fn failed(op: &'static str, path: &[u8], errno: Errno) -> FileError {
    let path = shown(path);
    match errno {
        Errno::NOENT => FileError::NotFound { path },
        Errno::NOTDIR => FileError::NotADirectory { path },
        Errno::LOOP | Errno::XDEV => FileError::Escape { path },
        Errno::NAMETOOLONG => FileError::Limit {
            path,
            what: "bytes in a path",
            limit: 4095,
        },
        Errno::NOSPC | Errno::DQUOT => FileError::NoSpace { path },
        _ => FileError::Io {
            op,
            path,
            source: errno.into(),
        },
    }
}
