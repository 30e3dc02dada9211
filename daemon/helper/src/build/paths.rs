//! Paths that an image controls, resolved so that they cannot lead outside.
//!
//! Every container path is opened with `openat2(2)`, `RESOLVE_IN_ROOT` (an absolute link or `..`
//! stays inside) and `RESOLVE_NO_MAGICLINKS` (`/proc/self/fd/N` is no way out), and from then on
//! only the descriptor is used. Making a missing directory happens below a resolved descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use crate::fault::{Fault, OrFault};
use crate::protocol::Defence;

/// How the links on the way are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed inside the root.
    Inside,
    /// Refused: what is mounted there must not be redirected (CVE-2019-19921, CVE-2023-27561).
    Refused,
}

/// A directory that is borrowed from who keeps it, or was opened on the way.
#[derive(Debug)]
pub enum Dir<'a> {
    /// Somebody else's.
    Borrowed(BorrowedFd<'a>),
    /// Ours.
    Owned(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Borrowed(fd) => *fd,
            Dir::Owned(fd) => fd.as_fd(),
        }
    }
}

/// Opens a path inside `root`. `openat2` fails with EAGAIN when a rename elsewhere made `..`
/// doubtful; it is then simply asked again, and often enough that a racer does not matter.
pub fn open_in(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    links: Links,
) -> rustix::io::Result<OwnedFd> {
    const ATTEMPTS: usize = 128;
    let mut resolve = ResolveFlags::empty();
    if Defence::InRoot.stands() {
        resolve |= ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    }
    if links == Links::Refused && Defence::RealProc.stands() {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// A directory inside `root`, made with its parents where it is missing.
pub fn ensure_dir<'a>(root: BorrowedFd<'a>, path: &Path, links: Links) -> Result<Dir<'a>, Fault> {
    if path.as_os_str().is_empty() || path == Path::new("/") {
        return Ok(Dir::Borrowed(root));
    }
    match open_in(root, path, OFlags::PATH | OFlags::DIRECTORY, links) {
        Ok(fd) => Ok(Dir::Owned(fd)),
        Err(Errno::NOENT) => make_dir(root, path, links).map(Dir::Owned),
        Err(errno) => Err(refused(Fault::of("openat2", errno), path)),
    }
}

/// A file inside `root` to mount something on, made empty where it is missing.
pub fn ensure_file(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd, Fault> {
    match open_in(root, path, OFlags::PATH, links) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(refused(Fault::of("openat2", errno), path)),
    }
    let parent = ensure_dir(root, path.parent().unwrap_or(Path::new("")), links)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, file_name(path)?, flags, Mode::from_raw_mode(0o644))
        .fault_at("openat", path.display())
}

fn make_dir(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd, Fault> {
    let parent = ensure_dir(root, path.parent().unwrap_or(Path::new("")), links)?;
    let name = file_name(path)?;
    match mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755)) {
        // Made by somebody else in the same moment, or a dangling link: the open below tells.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Fault::of("mkdirat", errno).at(path.display())),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).fault_at("openat", path.display())
}

/// The last component. `..` has none, and nothing can be made by that name.
pub fn file_name(path: &Path) -> Result<&Path, Fault> {
    path.file_name()
        .map(Path::new)
        .ok_or_else(|| Fault::refused("the path does not end in a name").at(path.display()))
}

fn refused(fault: Fault, path: &Path) -> Fault {
    let fault = fault.at(path.display());
    if fault.is(Errno::LOOP) {
        fault.because("the image has a symbolic link where a directory must be")
    } else {
        fault
    }
}
