//! Out of a container: stat and tar.

use std::io::Write;
use std::os::fd::BorrowedFd;

use lbctl::types::FileStat;

use super::{FileError, IdView};

/// What lies at a container path. The last component is not followed when it is a symbolic link
/// (unless the path ends in `/`).
///
/// # Errors
/// [`FileError::NotFound`], [`FileError::NotADirectory`], [`FileError::Escape`].
pub fn stat(_root: BorrowedFd<'_>, _path: &str, _ids: &IdView) -> Result<FileStat, FileError> {
    unimplemented!()
}

/// Writes the file or directory at a container path as tar; entry names start with its base name
/// (`.` for the root and for paths that end in `/.`).
///
/// # Errors
/// As [`stat`], and [`FileError::Stream`] when `out` fails.
pub fn pack(
    _root: BorrowedFd<'_>,
    _path: &str,
    _ids: &IdView,
    _out: impl Write,
) -> Result<(), FileError> {
    unimplemented!()
}

/// Writes everything below the root as tar, with names like `etc/passwd`; other mounts are left
/// out (their mount points stand as empty directories and files).
///
/// # Errors
/// As [`pack`].
pub fn pack_all(_root: BorrowedFd<'_>, _ids: &IdView, _out: impl Write) -> Result<(), FileError> {
    unimplemented!()
}
