//! Out of an archive, trusting nothing.
//!
//! What comes out of a container is its own: names, links and modes may be chosen to hit this
//! machine. So every name is resolved below the destination with `openat2(2)` and
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, existing files are replaced rather than written
//! through, devices are left out, and set-user-id bits are kept only on demand.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use littlebox_archive::{
    Bounds, Entry, Kind, Reader, Time, capability_from_archive, is_portable, shown, write_content,
};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::flat;

/// Where to unpack.
#[derive(Debug)]
pub struct Unpacking {
    /// An existing directory.
    pub directory: PathBuf,
    /// Stands for the first name of every entry; `.` for none.
    pub rename: Option<OsString>,
    /// The archive's owners, set-user-id bits and extended attributes.
    pub keep_owners: bool,
}

/// Unpacks an archive; returns what was left out.
pub fn unpack(input: impl Read, unpacking: &Unpacking) -> io::Result<Vec<String>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&unpacking.directory, flags, Mode::empty())
        .map_err(|e| named(&unpacking.directory, e))?;
    let mut unpacker = Unpacker {
        unpacking,
        root,
        directories: Vec::new(),
        remembered: 0,
        buffer: vec![0; BUFFER],
        skipped: Vec::new(),
    };
    let bounds = Bounds::default();
    let mut reader = Reader::new(input, &bounds);
    while let Some(entry) = reader.next_entry().map_err(flat)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.skipped.extend(reader.left_out());
    unpacker.finish()
}

const BUFFER: usize = 128 * 1024;
/// The most bytes of directories' names that wait for their attributes.
const REMEMBERED: usize = 16 * 1024 * 1024;

struct Unpacker<'a> {
    unpacking: &'a Unpacking,
    root: OwnedFd,
    /// Made or met; their modes and times are set at the end, when nothing is written below any
    /// more.
    directories: Vec<(PathBuf, Attributes)>,
    remembered: usize,
    buffer: Vec<u8>,
    skipped: Vec<String>,
}

#[derive(Debug, Clone)]
struct Attributes {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    modified: Time,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
}

fn named(path: &Path, e: Errno) -> io::Error {
    let e = io::Error::from(e);
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_, impl Read>) -> io::Result<()> {
        let rename = self.unpacking.rename.as_deref();
        let Some(path) = target(path_of(&entry.path), rename)? else {
            return Ok(());
        };
        let attributes = self.attributes(entry)?;
        let result = match entry.kind {
            Kind::Directory => self.directory(&path, attributes),
            Kind::File => return self.file(&path, &attributes, entry, reader),
            Kind::Symlink => self.symlink(&path, OsStr::from_bytes(&entry.link), &attributes),
            Kind::HardLink => match target(path_of(&entry.link), rename)? {
                Some(existing) => self.hard_link(&path, &existing),
                None => return Err(bad(&path, "a hard link to a directory")),
            },
            Kind::Char | Kind::Block | Kind::Fifo => {
                self.skipped
                    .push(format!("{} (a device or pipe)", path.display()));
                Ok(())
            }
        };
        result.map_err(|e| named(&path, e))
    }

    fn attributes(&self, entry: &Entry) -> io::Result<Attributes> {
        let keep = self.unpacking.keep_owners;
        // Root's copy of a container's setuid file would be a way to become root.
        let bits = entry.mode & if keep { 0o7777 } else { 0o1777 };
        // -1 means "unchanged" to chown(2).
        if keep && (entry.uid == u32::MAX || entry.gid == u32::MAX) {
            let path = shown(&entry.path);
            return Err(bad(Path::new(&path), "an owner that does not exist"));
        }
        let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let attribute = |(name, value): &(Vec<u8>, Vec<u8>)| match &name[..] {
            b"security.capability" => Some((name.clone(), capability_from_archive(value, Some)?)),
            _ => Some((name.clone(), value.clone())),
        };
        let portable = entry.xattrs.iter().filter(|(name, _)| is_portable(name));
        Ok(Attributes {
            mode: Mode::from_raw_mode(bits),
            owner: keep.then_some(owner),
            modified: entry.mtime,
            extended: match keep {
                true => portable.filter_map(attribute).collect(),
                false => Vec::new(),
            },
        })
    }

    /// The directory that a path lies in, and its last name.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let fd = open_below(
            &self.root,
            parent.unwrap_or(Path::new(".")),
            OFlags::DIRECTORY | OFlags::RDONLY,
        )?;
        Ok((fd, name))
    }

    fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            // One that is there keeps its attributes, as with cp(1).
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let kind = rustix::fs::FileType::from_raw_mode(there.st_mode);
                if kind.is_dir() {
                    Ok(())
                } else {
                    Err(Errno::NOTDIR)
                }
            }
            Err(e) => Err(e),
            Ok(()) => {
                self.remembered += path.as_os_str().len() + size_of::<Attributes>();
                self.directories.push((path.to_owned(), attributes));
                if self.remembered > REMEMBERED {
                    self.set_directories()?;
                }
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        entry: &Entry,
        reader: &mut Reader<'_, impl Read>,
    ) -> io::Result<()> {
        let create = || {
            let (parent, name) = self.parent(path)?;
            remove(&parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            rustix::fs::openat(
                &parent,
                name,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        };
        let mut file = File::from(create().map_err(|e| named(path, e))?);
        write_content(reader, entry, &mut file, &mut self.buffer).map_err(flat)?;
        set_attributes(&file, attributes).map_err(|e| named(path, e))
    }

    fn symlink(&self, path: &Path, link: &OsStr, attributes: &Attributes) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        remove(&parent, name)?;
        rustix::fs::symlinkat(link, &parent, name)?;
        if let Some((uid, gid)) = attributes.owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }

    fn hard_link(&self, path: &Path, existing: &Path) -> Result<(), Errno> {
        let (from_parent, from) = self.parent(existing)?;
        let (to_parent, to) = self.parent(path)?;
        remove(&to_parent, to)?;
        rustix::fs::linkat(&from_parent, from, &to_parent, to, AtFlags::empty())
    }

    fn finish(mut self) -> io::Result<Vec<String>> {
        self.set_directories()?;
        Ok(self.skipped)
    }

    /// Sets the directories' attributes, the innermost first.
    fn set_directories(&mut self) -> Result<(), Errno> {
        self.remembered = 0;
        for (path, attributes) in std::mem::take(&mut self.directories).iter().rev() {
            let fd = open_below(&self.root, path, OFlags::DIRECTORY | OFlags::RDONLY)?;
            set_attributes(&fd, attributes)?;
        }
        Ok(())
    }
}

fn path_of(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        let opened =
            rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        match opened {
            // A rename elsewhere made the kernel unsure (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Removes what is in the way, unless it is a directory.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn set_attributes(fd: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    let fd = fd.as_fd();
    // The owner first: chown(2) clears the set-user-id bit.
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(fd, attributes.mode)?;
    for (name, value) in &attributes.extended {
        match rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            // A filesystem without attributes, or file capabilities without the right to give them.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
    }
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: attributes.modified.secs,
            tv_nsec: attributes.modified.nanos.into(),
        },
    };
    rustix::fs::futimens(fd, &times)
}

fn bad(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {what}", path.display()),
    )
}

/// The relative path of an entry, with its first name exchanged; `None` for the destination itself.
pub(super) fn target(name: &Path, rename: Option<&OsStr>) -> io::Result<Option<PathBuf>> {
    let mut components = Vec::new();
    let mut rooted_in_dot = false;
    for (i, component) in name.components().enumerate() {
        match component {
            Component::CurDir => rooted_in_dot |= i == 0,
            Component::Normal(part) => components.push(part),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(bad(name, "a name that leads out of the archive"));
            }
        }
    }
    let mut path = PathBuf::new();
    if let Some(first) = rename {
        if !rooted_in_dot && !components.is_empty() {
            components.remove(0);
        }
        if first != "." {
            path.push(first);
        }
    }
    path.extend(components);
    Ok(Some(path).filter(|p| !p.as_os_str().is_empty()))
}
