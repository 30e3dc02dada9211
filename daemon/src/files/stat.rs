//! What lies at a path, and what is to be packed from there.

use std::os::fd::{BorrowedFd, OwnedFd};

use littlebox_archive::{Owners, Packing, Scope, link_of};
use littlebox_types::FileStat;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags};
use rustix::io::Errno;

use super::resolve::open_in_root;
use super::{FileError, IdView, failed, shown};
use crate::time;

/// What lies at a container path. The last component is not followed when it is a symbolic link
/// (unless the path ends in `/`).
///
/// # Errors
/// [`FileError::NotFound`], [`FileError::NotADirectory`], [`FileError::Escape`].
pub fn stat(root: BorrowedFd<'_>, path: &str, ids: &IdView) -> Result<FileStat, FileError> {
    let path = absolute(path);
    let fd = open_target(root, &path)?;
    let status = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(|errno| failed("statx", path.as_bytes(), errno))?;
    let kind = FileType::from_raw_mode(status.stx_mode.into());
    let link_target = match kind {
        FileType::Symlink => Some(shown(&link_of(&fd, path.as_bytes())?)),
        _ => None,
    };
    let nanos = status
        .stx_mtime
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(status.stx_mtime.tv_nsec.into());
    Ok(FileStat {
        kind: kind_name(kind).to_owned(),
        size: status.stx_size,
        mode: format!("{:04o}", status.stx_mode & 0o7777),
        uid: ids.user_inside(status.stx_uid),
        gid: ids.group_inside(status.stx_gid),
        modified_at: time::rfc3339(nanos),
        link_target,
        path,
    })
}

/// Prepares the file or directory at a container path to be packed; entry names start with its base
/// name (`.` for the root and for paths that end in `/.`).
///
/// Filesystems of the kernel (`proc`, `sysfs`, ...) are left out below a directory.
///
/// # Errors
/// As [`stat`], and those of [`Packing::new`].
pub fn pack(root: BorrowedFd<'_>, path: &str, ids: &IdView) -> Result<Packing<IdView>, FileError> {
    let path = absolute(path);
    let fd = open_target(root, &path)?;
    let name = match path.rsplit('/').find(|component| !component.is_empty()) {
        None | Some("." | "..") => ".",
        Some(name) => name,
    };
    Packing::new(fd, name.as_bytes().to_vec(), ids.clone(), Scope::Mounts)
}

/// Prepares everything below the root, with names like `etc/passwd`; other mounts are left out
/// (their mount points stand as empty directories and files).
///
/// # Errors
/// As [`pack`].
pub fn pack_all(root: BorrowedFd<'_>, ids: &IdView) -> Result<Packing<IdView>, FileError> {
    let fd = open_in_root(root, b"/", OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|errno| failed("openat2", b"/", errno))?;
    Packing::new(fd, Vec::new(), ids.clone(), Scope::OneMount)
}

/// As the container sees them.
impl Owners for IdView {
    fn user(&self, id: u32) -> u32 {
        self.user_inside(id)
    }

    fn group(&self, id: u32) -> u32 {
        self.group_inside(id)
    }

    fn capability_root(&self, id: u32) -> Option<u32> {
        self.mapped_user_inside(id)
    }

    fn attributes(&self) -> bool {
        true
    }

    fn devices(&self) -> bool {
        true
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn open_target(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, FileError> {
    open_in_root(root, path.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW).map_err(|errno| {
        match errno {
            // A NUL inside: no file has such a name.
            Errno::INVAL => FileError::NotFound {
                path: path.to_owned(),
            },
            _ => failed("openat2", path.as_bytes(), errno),
        }
    })
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
    }
}
