//! What a container changed against its base.
//!
//! The upper directory is written by the container, also while we read: it is walked by
//! descriptors and no link in it is ever followed. Below, overlayfs sees one filesystem per
//! layer, so mounts in a lower directory are not entered (`RESOLVE_NO_XDEV`).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use littlebox_archive::Walk;
use littlebox_types::{Change, ChangeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{FileError, failed, magic_path, shown};

/// The most bytes that all changes may take in memory: the container decides how many there are.
const MEMORY: u64 = 64 * 1024 * 1024;
/// What a change takes beside its path.
const COST: u64 = 64;

/// Compares an overlay's upper directory with its lower ones (uppermost first), by path.
///
/// A path is modified when it is not a directory and lies in both, or is a directory whose mode,
/// owner or time differs; directories that overlayfs only copied up are not listed.
///
/// # Errors
/// [`FileError::Refused`] when a directory cannot be read, [`FileError::Limit`] when there are more
/// changes than fit into memory, or deeper ones than paths reach.
pub fn changes(upper: &Path, lower: &[PathBuf]) -> Result<Vec<Change>, FileError> {
    let layers: Vec<OwnedFd> = lower
        .iter()
        .map(|path| open_layer(path))
        .collect::<Result<_, _>>()?;
    let top = Level {
        layers: (0..layers.len()).collect(),
        replaced: false,
    };
    let mut comparison = Comparison {
        walk: Walk::new(open_layer(upper)?, top)?,
        layers,
        lower: Vec::new(),
        changes: Vec::new(),
        left: MEMORY,
    };
    comparison.run()?;
    comparison.changes.sort();
    Ok(comparison.changes)
}

/// Opens a layer's topmost directory. It lies on the host: an error names it as the container does.
fn open_layer(path: &Path) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => FileError::Refused {
            op: "open a layer of".into(),
            path: "/".into(),
            source: errno.into(),
        },
        errno => failed("open a layer of", b"/", errno),
    })
}

/// What belongs to a directory of the upper layer.
#[derive(Debug, Clone)]
struct Level {
    /// The lower layers whose directories of this path merge with it, uppermost first.
    layers: Vec<usize>,
    /// The upper one hides the lower ones (overlayfs.rst: opaque): they count for the comparison
    /// alone.
    replaced: bool,
}

struct Comparison {
    walk: Walk<Level>,
    /// The topmost directories of the lower layers.
    layers: Vec<OwnedFd>,
    /// The lower directories of the current path, each with its layer.
    lower: Vec<(usize, OwnedFd)>,
    changes: Vec<Change>,
    /// Bytes of memory for more of them.
    left: u64,
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
    fn run(&mut self) -> Result<(), FileError> {
        self.open_lower()?;
        loop {
            if let Some((name, _)) = self.walk.next_name()? {
                self.name(&name)?;
                continue;
            }
            if !self.walk.leave() {
                return Ok(());
            }
            self.open_lower()?;
        }
    }

    /// Opens the lower directories of the current path. Those of the paths above are opened again
    /// on the way back, so that they do not add up.
    fn open_lower(&mut self) -> Result<(), FileError> {
        self.lower.clear();
        let path = match self.walk.path() {
            b"" => b".".to_vec(),
            path => path.to_vec(),
        };
        let layers = self.walk.data().map(|level| level.layers.clone());
        for layer in layers.unwrap_or_default() {
            let name = CString::new(path.clone()).unwrap_or_default();
            if let Some(directory) = open_directory(&self.layers[layer], &name, &path)? {
                self.lower.push((layer, directory));
            }
        }
        Ok(())
    }

    /// One name in the upper directory.
    fn name(&mut self, name: &CStr) -> Result<(), FileError> {
        let path = self.path_of(name);
        let Some(directory) = self.walk.directory() else {
            return Ok(());
        };
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("fstatat", &path, errno)),
        };
        let base = base_of(&self.lower, name, &path)?;
        let exists = !matches!(base, Base::Nothing);
        if is_whiteout(directory, name, &stat) {
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
            return self.push(&path, kind);
        }
        let Some(upper) = open_directory(directory, name, &path)? else {
            return Ok(());
        };
        match &base {
            Base::Nothing => self.push(&path, ChangeKind::Added)?,
            Base::Directory(old) if alike(old, &stat) => {}
            Base::Hidden => {}
            Base::Directory(_) | Base::Other => self.push(&path, ChangeKind::Modified)?,
        }
        let merges = matches!(base, Base::Directory(_));
        self.enter(upper, name, &path, merges)
    }

    fn enter(
        &mut self,
        upper: OwnedFd,
        name: &CStr,
        path: &[u8],
        merges: bool,
    ) -> Result<(), FileError> {
        let above = self.walk.data().is_some_and(|level| level.replaced);
        let layers = match merges {
            true => merging_layers(&self.lower, name, path)?,
            false => Vec::new(),
        };
        let replaced = !layers.is_empty() && (above || is_opaque(&upper));
        let listed = replaced.then(|| upper.try_clone()).transpose();
        let listed = listed.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            failed("fcntl", path, errno)
        })?;
        self.walk.enter(upper, name, Level { layers, replaced })?;
        self.open_lower()?;
        match listed {
            Some(upper) => self.hidden(&upper),
            None => Ok(()),
        }
    }

    /// What an opaque directory hides and does not have itself.
    fn hidden(&mut self, upper: &OwnedFd) -> Result<(), FileError> {
        let lower = std::mem::take(&mut self.lower);
        for (n, (_, directory)) in lower.iter().enumerate() {
            let mut names = Walk::new(directory, ())?;
            while let Some((name, _)) = names.next_name()? {
                // Told already when a layer above has it.
                let known = has(upper, &name) || lower[..n].iter().any(|(_, d)| has(d, &name));
                let path = self.path_of(&name);
                if !known && !matches!(base_of(&lower, &name, &path)?, Base::Nothing) {
                    self.push(&path, ChangeKind::Deleted)?;
                }
            }
        }
        self.lower = lower;
        Ok(())
    }

    fn path_of(&self, name: &CStr) -> Vec<u8> {
        [&b"/"[..], &self.walk.path_of(name)].concat()
    }

    fn push(&mut self, path: &[u8], kind: ChangeKind) -> Result<(), FileError> {
        let left = self.left.checked_sub(path.len() as u64 + COST);
        self.left = left.ok_or_else(|| FileError::Limit {
            path: shown(path),
            what: "bytes of memory for all changes".into(),
            limit: MEMORY,
        })?;
        self.changes.push(Change {
            path: shown(path),
            kind,
        });
        Ok(())
    }
}

fn has(directory: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
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

/// The first lower layer that has the name decides.
fn base_of(lower: &[(usize, OwnedFd)], name: &CStr, path: &[u8]) -> Result<Base, FileError> {
    for (_, lower) in lower {
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

/// The layers whose directories of this name merge, down to the first that hides the rest.
fn merging_layers(
    lower: &[(usize, OwnedFd)],
    name: &CStr,
    path: &[u8],
) -> Result<Vec<usize>, FileError> {
    let mut found = Vec::new();
    for (layer, lower) in lower {
        match rustix::fs::statat(lower, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed("fstatat", path, errno)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => break,
            Ok(_) => {}
        }
        let Some(directory) = open_directory(lower, name, path)? else {
            break;
        };
        found.push(*layer);
        if is_opaque(&directory) {
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
                .is_ok_and(|fd| has_attribute(&fd, "trusted.overlay.whiteout", |_| true))
        }
        _ => false,
    }
}

fn is_opaque(directory: &OwnedFd) -> bool {
    has_attribute(directory, "trusted.overlay.opaque", |value| value == b"y")
}

/// Whether an overlayfs attribute is set. Those of `user.` count only for overlays that are mounted
/// with `userxattr`, as none here is; in the upper layer anybody in the container sets them.
fn has_attribute(fd: &OwnedFd, name: &str, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::getxattr(magic_path(fd).as_str(), name, &mut value[..])
        .is_ok_and(|len| wanted(&value[..len]))
}
