//! Into a container: tar, trusting nothing.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use littlebox_archive::{Entry, Kind, Reader, Time, bad, write_content};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::{self, timestamps};
use super::ids::Rights;
use super::kernel_trees::not_the_kernels;
use super::place::Place;
use super::resolve::open_in_root;
use super::{Bounds, FileError, IdView, failed, magic_path, shown};

const BUFFER: usize = 128 * 1024;
/// The most bytes of directories' names that wait for their times: what an archive says must not
/// fill the memory. With more of them, one that is written into later has that time.
const REMEMBERED: usize = 16 * 1024 * 1024;

/// Whose root directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootOf {
    /// A container that is not running: littlebox has mounted the root, and nothing below it.
    Stopped,
    /// A running program, which may have changed it (chroot(2)).
    Program,
}

/// Unpacks a tar archive into the directory `dir` of the container.
///
/// Every entry is resolved inside the root, as by a tar that runs chrooted there: links out of it
/// lead back into it, and a directory in the archive goes through a link to a directory. What lies
/// there and is no directory is replaced. Holes of sparse files stay holes. Refused: `..` in names,
/// devices.
///
/// # Errors
/// [`FileError::NotADirectory`] and [`FileError::NotFound`] for `dir`, [`FileError::BadArchive`],
/// [`FileError::Limit`], [`FileError::NoSpace`]; what was unpacked before stays.
pub fn unpack(
    root: (BorrowedFd<'_>, RootOf),
    dir: &str,
    ids: &IdView,
    input: impl Read,
    bounds: &Bounds,
) -> Result<(), FileError> {
    ids.as_root(|rights| unpack_as_root(root, dir, (ids, rights), input, bounds))
        .map_err(|errno| FileError::Io {
            op: "setresuid".into(),
            path: dir.to_owned(),
            source: errno.into(),
        })?
}

fn unpack_as_root(
    (root, of): (BorrowedFd<'_>, RootOf),
    dir: &str,
    (ids, rights): (&IdView, &Rights<'_>),
    input: impl Read,
    bounds: &Bounds,
) -> Result<(), FileError> {
    let base = [&b"/"[..], dir.as_bytes()].concat();
    let mut unpacker = Unpacker {
        root,
        own_mount: match of {
            RootOf::Stopped => Some(opened(root, b"/")?.stx_mnt_id),
            RootOf::Program => None,
        },
        base,
        ids,
        rights,
        parent: None,
        directories: Vec::new(),
        remembered: 0,
        bytes_left: bounds.bytes,
        buffer: vec![0u8; BUFFER],
    };
    // Told before anything is read.
    unpacker.open_directory(&unpacker.base)?;
    let mut reader = Reader::new(input, bounds);
    while let Some(entry) = reader.next_entry()? {
        let unpacked = unpacker.entry(entry, &mut reader, bounds);
        unpacked.map_err(|error| unpacker.whose_space(error))?;
    }
    unpacker.set_directory_times();
    Ok(())
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    /// A mount with only the container's own files (statx(2), `stx_mnt_id`).
    own_mount: Option<u64>,
    /// Container path of the directory that is unpacked into.
    base: Vec<u8>,
    ids: &'a IdView,
    rights: &'a Rights<'a>,
    /// The directory of the last entry: archives name its neighbours next.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories and the times that they get when nothing more is written into them.
    directories: Vec<(Vec<u8>, Time)>,
    /// Bytes of their names.
    remembered: usize,
    bytes_left: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry(
        &mut self,
        entry: Entry,
        reader: &mut Reader<'_, impl Read>,
        bounds: &Bounds,
    ) -> Result<(), FileError> {
        let Some(place) = Place::of(&entry.path)? else {
            // The directory that is unpacked into stays as it is.
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(bad(&format!(
                    "{}: a {} without a name",
                    shown(&entry.path),
                    entry.kind.name()
                ))),
            };
        };
        match entry.kind {
            Kind::Directory => self.directory(&place, &entry),
            Kind::File => {
                self.bytes_left = self.bytes_left.checked_sub(entry.stored()).ok_or_else(|| {
                    FileError::Limit {
                        path: shown(&place.path),
                        what: "bytes in the archive".into(),
                        limit: bounds.bytes,
                    }
                })?;
                self.file(&place, &entry, reader)
            }
            Kind::Symlink => self.symlink(&place, &entry),
            Kind::HardLink => self.hard_link(&place, &entry),
            Kind::Fifo => self.fifo(&place, &entry),
            Kind::Char | Kind::Block => Err(bad(&format!(
                "{}: device nodes are not unpacked",
                shown(&place.path)
            ))),
        }
    }

    /// A filesystem that is mounted in the container and is full is its own, and no lack of ours.
    fn whose_space(&self, error: FileError) -> FileError {
        let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_dev).ok();
        let parent = self.parent.as_ref().map(|(_, fd)| device(fd.as_fd()));
        match error {
            FileError::NoSpace { path } if parent.is_some_and(|p| p != device(self.root)) => {
                FileError::Refused {
                    op: "write".into(),
                    path,
                    source: Errno::NOSPC.into(),
                }
            }
            error => error,
        }
    }

    /// Container path of something below the directory that is unpacked into.
    fn full(&self, path: &[u8]) -> Vec<u8> {
        [&self.base[..], &b"/"[..], path].concat()
    }

    /// The directory that an entry goes into, made where it is missing.
    fn parent(&mut self, place: &Place) -> Result<Rc<OwnedFd>, FileError> {
        if let Some((path, fd)) = &self.parent
            && path == place.parent()
        {
            self.act_on(fd, path)?;
            return Ok(Rc::clone(fd));
        }
        let full = self.full(place.parent());
        let fd = match self.open_directory(&full) {
            Err(FileError::NotFound { .. }) => self.make_directories(place.parent())?,
            result => result?,
        };
        self.act_on(&fd, &full)?;
        let fd = Rc::new(fd);
        self.parent = Some((place.parent().to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Follows the path with the capabilities of the host.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        self.with_capabilities(true, path)?;
        open_directory(self.root, path)
    }

    fn with_capabilities(&self, wanted: bool, path: &[u8]) -> Result<(), FileError> {
        let had = self.rights.with_capabilities(wanted);
        had.map_err(|errno| failed("capset", path, errno))
    }

    /// Takes the rights for what follows: changes to this file, or to the names in this directory.
    fn act_on(&self, fd: impl AsFd, path: &[u8]) -> Result<(), FileError> {
        let own = self.is_own(&opened(fd, path)?);
        self.with_capabilities(own, path)
    }

    /// Whether the container's root has capabilities over a file. On its own mount it gets them for all files.
    fn is_own(&self, file: &Statx) -> bool {
        self.own_mount == Some(file.stx_mnt_id) || self.rights.map((file.stx_uid, file.stx_gid))
    }

    /// Makes the directories that the archive leaves out.
    fn make_directories(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        let mut done = self.base.clone();
        let mut fd = self.open_directory(&done)?;
        for component in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            done.push(b'/');
            done.extend_from_slice(component);
            fd = match self.open_directory(&done) {
                Err(FileError::NotFound { .. }) => self.make_directory(&fd, component, &done)?,
                result => result?,
            };
        }
        Ok(fd)
    }

    fn make_directory(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<OwnedFd, FileError> {
        self.act_on(parent, path)?;
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // A link to nowhere.
            Err(Errno::EXIST) => return Err(FileError::NotADirectory { path: shown(path) }),
            Err(errno) => return Err(failed("mkdirat", path, errno)),
        }
        let fd = self.directory_below(parent, name, path)?;
        attributes::set_owner_and_mode(&fd, self.ids, (0, 0, 0o755), path)?;
        Ok(fd)
    }

    /// Opens a directory with the rights over that directory, not its parent's, and keeps them.
    fn directory_below(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<OwnedFd, FileError> {
        let fd = open_below(parent, name, OFlags::PATH | OFlags::DIRECTORY, path)?;
        self.act_on(&fd, path)?;
        open_below(&fd, b".", OFlags::RDONLY | OFlags::DIRECTORY, path)
    }

    fn directory(&mut self, place: &Place, entry: &Entry) -> Result<(), FileError> {
        let parent = self.parent(place)?;
        let name = place.name();
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match file_type(&parent, name, &place.path)? {
                FileType::Directory => {}
                // Through a link (`/lib` of a merged `/usr`), whose target stays as it is.
                FileType::Symlink => {
                    return self.open_directory(&self.full(&place.path)).map(drop);
                }
                _ => {
                    return Err(FileError::NotADirectory {
                        path: shown(&place.path),
                    });
                }
            },
            Err(errno) => return Err(failed("mkdirat", &place.path, errno)),
        }
        let fd = self.directory_below(&parent, name, &place.path)?;
        attributes::set(&fd, self.ids, entry, &place.path)?;
        self.directories.push((place.path.clone(), entry.mtime));
        self.remembered += place.path.len();
        if self.remembered > REMEMBERED {
            self.set_directory_times();
        }
        Ok(())
    }

    fn file(
        &mut self,
        place: &Place,
        entry: &Entry,
        reader: &mut Reader<'_, impl Read>,
    ) -> Result<(), FileError> {
        let parent = self.parent(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let create = || {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::openat(&parent, place.name(), flags | OFlags::CLOEXEC, mode)
        };
        let fd = match self.replacing(&parent, place, entry.kind, create) {
            // Something is mounted on it, so it can only be written into.
            Err(FileError::Refused { source, .. })
                if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) =>
            {
                let existing = existing_file(&parent, place)?;
                self.act_on(&existing, &place.path)?;
                emptied(&existing, place)?
            }
            result => result?,
        };
        let mut file = File::from(fd);
        write_content(reader, entry, &mut file, &mut self.buffer)?;
        self.act_on(&file, &place.path)?;
        attributes::set(file.as_fd(), self.ids, entry, &place.path)?;
        rustix::fs::futimens(&file, &timestamps(entry.mtime))
            .map_err(|errno| failed("futimens", &place.path, errno))
    }

    fn symlink(&mut self, place: &Place, entry: &Entry) -> Result<(), FileError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(bad(&format!(
                "{}: a link without a valid target",
                shown(&place.path)
            )));
        }
        let parent = self.parent(place)?;
        let create = || rustix::fs::symlinkat(&entry.link[..], &parent, place.name());
        self.replacing(&parent, place, entry.kind, create)?;
        self.set_unopened(&parent, place, entry, FileType::Symlink)
    }

    fn hard_link(&mut self, place: &Place, entry: &Entry) -> Result<(), FileError> {
        let Some(target) = Place::of(&entry.link)? else {
            return Err(bad(&format!(
                "{}: a hard link without a target",
                shown(&place.path)
            )));
        };
        let full = self.full(target.parent());
        let from = match self.open_directory(&full) {
            Err(FileError::NotFound { .. }) => return Err(missing(place, &target)),
            result => result?,
        };
        let linked = match open_below(&from, target.name(), OFlags::PATH, &target.path) {
            Err(FileError::NotFound { .. }) => return Err(missing(place, &target)),
            result => result?,
        };
        let status = opened(&linked, &target.path)?;
        if kind(&status) == FileType::Directory {
            return Err(bad(&format!(
                "{}: a hard link to a directory",
                shown(&place.path)
            )));
        }
        let parent = self.parent(place)?;
        let own = self.is_own(&opened(&parent, &place.path)?) && self.is_own(&status);
        self.with_capabilities(own, &place.path)?;
        if is_file(&status, &parent, place.name()) {
            return Ok(());
        }
        // By descriptor: the name may mean another file by now.
        let linked = magic_path(&linked);
        let create = || {
            let follow = AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, &linked, &parent, place.name(), follow)
        };
        self.replacing(&parent, place, entry.kind, create)
    }

    fn fifo(&mut self, place: &Place, entry: &Entry) -> Result<(), FileError> {
        let parent = self.parent(place)?;
        let create = || {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(&parent, place.name(), FileType::Fifo, mode, 0)
        };
        self.replacing(&parent, place, entry.kind, create)?;
        self.set_unopened(&parent, place, entry, FileType::Fifo)
    }

    fn set_unopened(
        &self,
        parent: &OwnedFd,
        place: &Place,
        entry: &Entry,
        kind: FileType,
    ) -> Result<(), FileError> {
        match attributes::made(parent, place, kind)? {
            Some(fd) => {
                self.act_on(&fd, &place.path)?;
                attributes::set_unopened(&fd, self.ids, entry)
            }
            None => Ok(()),
        }
    }

    /// Creates something, in the place of what is there unless that is a directory.
    fn replacing<T>(
        &mut self,
        parent: &OwnedFd,
        place: &Place,
        kind: Kind,
        create: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, FileError> {
        // More often only when somebody inside makes it again and again.
        const ATTEMPTS: u32 = 16;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match create() {
                Err(Errno::EXIST) if attempt < ATTEMPTS => {}
                result => return result.map_err(|errno| failed("create", &place.path, errno)),
            }
            if matches!(
                file_type(parent, place.name(), &place.path),
                Ok(FileType::Directory)
            ) {
                let path = shown(&place.path);
                return Err(FileError::IsADirectory {
                    path,
                    kind: kind.name().into(),
                });
            }
            if is_mount_point(parent, place.name()) {
                return Err(failed("unlinkat", &place.path, Errno::BUSY));
            }
            // What was known by this name may have been a link to the cached directory.
            self.parent = None;
            match rustix::fs::unlinkat(parent, place.name(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("unlinkat", &place.path, errno)),
            }
        }
    }

    /// Sets the directories' times, the innermost first. One that somebody inside has removed
    /// meanwhile needs none.
    fn set_directory_times(&mut self) {
        self.remembered = 0;
        for (path, time) in std::mem::take(&mut self.directories).iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if self.rights.with_capabilities(true).is_ok()
                && let Ok(fd) = open_in_root(self.root, &self.full(path), flags)
                && let Ok(fd) = not_the_kernels(fd, path)
                && self.act_on(&fd, path).is_ok()
            {
                let _ = rustix::fs::futimens(&fd, &timestamps(*time));
            }
        }
    }
}

fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, FileError> {
    let opened = open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY);
    let opened = opened.map_err(|errno| match errno {
        // A NUL inside: no file has such a name.
        Errno::INVAL => FileError::NotFound { path: shown(path) },
        _ => failed("openat2", path, errno),
    });
    not_the_kernels(opened?, path)
}

fn open_below(
    parent: &OwnedFd,
    name: &[u8],
    flags: OFlags,
    path: &[u8],
) -> Result<OwnedFd, FileError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
    let opened = opened.map_err(|errno| failed("openat", path, errno));
    not_the_kernels(opened?, path)
}

/// The regular file that cannot be replaced, as an `O_PATH` descriptor.
fn existing_file(parent: &OwnedFd, place: &Place) -> Result<OwnedFd, FileError> {
    let fd = open_below(parent, place.name(), OFlags::PATH, &place.path)?;
    if kind(&opened(&fd, &place.path)?) != FileType::RegularFile {
        return Err(failed("open", &place.path, Errno::BUSY));
    }
    Ok(fd)
}

fn emptied(file: &OwnedFd, place: &Place) -> Result<OwnedFd, FileError> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    rustix::fs::open(magic_path(file), flags, Mode::empty())
        .map_err(|errno| failed("open", &place.path, errno))
}

/// Whether something is mounted on a name (statx(2), Linux 5.8). unlink(2) says so only of mounts in
/// its caller's own mount namespace; those in others, as the container's are, it takes away.
fn is_mount_point(parent: &OwnedFd, name: &[u8]) -> bool {
    statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn file_type(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<FileType, FileError> {
    let found = statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    let found = found.map_err(|errno| failed("statx", path, errno))?;
    Ok(kind(&found))
}

fn kind(file: &Statx) -> FileType {
    FileType::from_raw_mode(file.stx_mode.into())
}

fn opened(fd: impl AsFd, path: &[u8]) -> Result<Statx, FileError> {
    let fields = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(fd, c"", AtFlags::EMPTY_PATH, fields).map_err(|errno| failed("statx", path, errno))
}

fn is_file(file: &Statx, parent: &OwnedFd, name: &[u8]) -> bool {
    let device = rustix::fs::makedev(file.stx_dev_major, file.stx_dev_minor);
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, file.stx_ino))
}

fn missing(place: &Place, target: &Place) -> FileError {
    bad(&format!(
        "{}: a hard link to {}, which is not there",
        shown(&place.path),
        shown(&target.path)
    ))
}
