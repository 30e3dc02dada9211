//! What a container changed against its base.
//!
//! The upper directory is written by the container, also while we read: it is walked by
//! descriptors and no link in it is ever followed. Below, overlayfs sees one filesystem per
//! layer, so mounts in a lower directory are not entered (`RESOLVE_NO_XDEV`).

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lbctl::types::{Change, ChangeKind};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::FileError;
use super::resolve::{failed, magic_path, shown};

/// The most directories inside one another; each holds a descriptor per layer.
const DEPTH: usize = 256;
/// The most bytes of paths in one answer: the container decides how many there are.
const NAMES: u64 = 64 * 1024 * 1024;

/// Compares an overlay's upper directory with its lower ones (uppermost first), by path.
///
/// A path is modified when it is not a directory and lies in both, or is a directory whose mode,
/// owner or time differs; directories that overlayfs only copied up are not listed.
///
/// # Errors
/// [`FileError::Io`] when a directory cannot be read.
pub fn changes(upper: &Path, lower: &[PathBuf]) -> Result<Vec<Change>, FileError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| failed("open", path.as_os_str().as_encoded_bytes(), errno))
    };
    let top = Level {
        upper: open(upper)?,
        lower: lower
            .iter()
            .map(|path| open(path))
            .collect::<Result<_, _>>()?,
        path: Vec::new(),
        replaced: false,
    };
    let mut comparison = Comparison {
        changes: Vec::new(),
        bytes_left: NAMES,
    };
    comparison.level(&top, 0)?;
    comparison.changes.sort();
    Ok(comparison.changes)
}

/// One directory in the layers.
struct Level {
    upper: OwnedFd,
    /// The directories of this path in the lower layers, uppermost first.
    lower: Vec<OwnedFd>,
    path: Vec<u8>,
    /// The upper one hides the lower ones (overlayfs.rst: opaque): they count for the comparison
    /// alone.
    replaced: bool,
}

struct Comparison {
    changes: Vec<Change>,
    bytes_left: u64,
}

/// What the lower layers have under a name.
enum Base {
    Nothing,
    Directory(Stat),
    /// A mount point whose other side cannot be seen.
    Hidden,
    Other,
}

impl Comparison {
    fn level(&mut self, level: &Level, depth: usize) -> Result<(), FileError> {
        if depth == DEPTH {
            return Err(FileError::Limit {
                path: shown(&level.path),
                what: "directories inside one another",
                limit: DEPTH as u64,
            });
        }
        let names = names_in(&level.upper, &level.path)?;
        for name in &names {
            self.name(level, name, depth)?;
        }
        if level.replaced {
            self.hidden(level, &names)?;
        }
        Ok(())
    }

    /// One name in the upper directory.
    fn name(&mut self, level: &Level, name: &CStr, depth: usize) -> Result<(), FileError> {
        let path = [&level.path[..], &b"/"[..], name.to_bytes()].concat();
        let stat = match rustix::fs::statat(&level.upper, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("fstatat", &path, errno)),
        };
        let base = base_of(level, name, &path)?;
        let exists = !matches!(base, Base::Nothing);
        if is_whiteout(&level.upper, name, &stat) {
            if exists {
                self.push(&path, ChangeKind::Deleted)?;
            }
            return Ok(());
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let kind = if exists {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            };
            self.push(&path, kind)?;
            return Ok(());
        }
        match &base {
            Base::Nothing => self.push(&path, ChangeKind::Added)?,
            Base::Directory(old) if alike(old, &stat) => {}
            Base::Hidden => {}
            Base::Directory(_) | Base::Other => self.push(&path, ChangeKind::Modified)?,
        }
        let Some(upper) = open_directory(&level.upper, name, &path)? else {
            return Ok(());
        };
        let lower = match base {
            Base::Directory(_) => lower_directories(level, name, &path)?,
            _ => Vec::new(),
        };
        let replaced = !lower.is_empty() && (level.replaced || is_opaque(&upper));
        self.level(
            &Level {
                upper,
                lower,
                path,
                replaced,
            },
            depth + 1,
        )
    }

    /// What an opaque directory hides and does not have itself.
    fn hidden(&mut self, level: &Level, kept: &BTreeSet<CString>) -> Result<(), FileError> {
        let mut hidden = BTreeSet::new();
        for lower in &level.lower {
            hidden.extend(names_in(lower, &level.path)?);
        }
        for name in hidden.difference(kept) {
            let path = [&level.path[..], &b"/"[..], name.to_bytes()].concat();
            if !matches!(base_of(level, name, &path)?, Base::Nothing) {
                self.push(&path, ChangeKind::Deleted)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) -> Result<(), FileError> {
        let left = self.bytes_left.checked_sub(path.len() as u64);
        self.bytes_left = left.ok_or_else(|| FileError::Limit {
            path: shown(path),
            what: "bytes in the paths of all changes",
            limit: NAMES,
        })?;
        self.changes.push(Change {
            path: shown(path),
            kind,
        });
        Ok(())
    }
}

/// A directory that overlayfs copied up keeps all of these; what is made or removed in it changes
/// its time.
fn alike(old: &Stat, new: &Stat) -> bool {
    let of = |stat: &Stat| {
        (
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_mtime,
            stat.st_mtime_nsec,
        )
    };
    of(old) == of(new)
}

fn names_in(directory: &OwnedFd, path: &[u8]) -> Result<BTreeSet<CString>, FileError> {
    let failed = |errno| failed("getdents64", path, errno);
    let mut names = BTreeSet::new();
    let mut entries = Dir::read_from(directory).map_err(failed)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.insert(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// The first lower layer that has the name decides.
fn base_of(level: &Level, name: &CStr, path: &[u8]) -> Result<Base, FileError> {
    for lower in &level.lower {
        let stat = match rustix::fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed("fstatat", path, errno)),
        };
        if is_whiteout(lower, name, &stat) {
            return Ok(Base::Nothing);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Base::Other);
        }
        return Ok(match open_directory(lower, name, path)? {
            Some(_) => Base::Directory(stat),
            None => Base::Hidden,
        });
    }
    Ok(Base::Nothing)
}

/// The lower directories of this name that merge, down to the first that hides the rest.
fn lower_directories(level: &Level, name: &CStr, path: &[u8]) -> Result<Vec<OwnedFd>, FileError> {
    let mut found = Vec::new();
    for lower in &level.lower {
        match rustix::fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed("fstatat", path, errno)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => break,
            Ok(_) => {}
        }
        let Some(directory) = open_directory(lower, name, path)? else {
            break;
        };
        let opaque = is_opaque(&directory);
        found.push(directory);
        if opaque {
            break;
        }
    }
    Ok(found)
}

/// Opens a directory of a layer; `None` when it is one no more, or another mount covers it.
fn open_directory(
    parent: impl AsFd,
    name: &CStr,
    path: &[u8],
) -> Result<Option<OwnedFd>, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(failed("openat2", path, errno)),
    }
}

/// A character device 0:0, or an empty file with overlayfs' attribute (overlayfs.rst,
/// "whiteouts and opaque directories").
fn is_whiteout(parent: &OwnedFd, name: &CStr, stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile if stat.st_size == 0 => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty())
                .is_ok_and(|fd| has_attribute(&fd, "overlay.whiteout", |_| true))
        }
        _ => false,
    }
}

fn is_opaque(directory: &OwnedFd) -> bool {
    has_attribute(directory, "overlay.opaque", |value| value == b"y")
}

/// Whether an overlayfs attribute is set, with either prefix (`userxattr` mounts use `user.`).
fn has_attribute(fd: &OwnedFd, name: &str, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let path = magic_path(fd);
    ["trusted", "user"].iter().any(|prefix| {
        let mut value = [0u8; 8];
        let attribute = format!("{prefix}.{name}");
        rustix::fs::getxattr(path.as_str(), attribute.as_str(), &mut value[..])
            .is_ok_and(|len| wanted(&value[..len]))
    })
}
