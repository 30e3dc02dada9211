//! Into an archive.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::sys::{failed, link_of, magic_path, shown};
use crate::tar::{Entry, Kind, SEGMENTS, Segment, Time, Writer};
use crate::walk::{PATH, Walk};
use crate::{FileError, capability_into_archive};

/// The most bytes of a file whose size is not known before it was read (`/proc`, `/sys`).
const UNSIZED: u64 = 16 * 1024 * 1024;
const BUFFER: usize = 128 * 1024;
/// The most bytes of names of files with several links.
const LINK_NAMES: usize = 16 * 1024 * 1024;
/// What such a name takes beside its bytes.
const LINK_COST: usize = 64;

/// Whose files the archive says they are.
pub trait Owners {
    /// The user in the archive for one on the disk.
    fn user(&self, id: u32) -> u32;
    /// The group in the archive for one on the disk.
    fn group(&self, id: u32) -> u32;
    /// The root of file capabilities; `None` when they count for nobody there.
    fn capability_root(&self, id: u32) -> Option<u32>;
    /// Whether extended attributes go into the archive, and set-user-id and set-group-id bits.
    fn attributes(&self) -> bool;
    /// Whether device nodes do.
    fn devices(&self) -> bool;
}

/// How far an archive reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Other mounts below too, but for those of the kernel's own filesystems.
    Mounts,
    /// The mount of the topmost directory alone; the mount points of others stand as empty
    /// directories and files.
    OneMount,
}

/// Something that will be packed: what can be refused was checked, so that no archive breaks off
/// for a reason that was there before it began.
#[derive(Debug)]
pub struct Packing<O> {
    top: OwnedFd,
    status: Statx,
    /// Of a regular file.
    file: Option<File>,
    name: Vec<u8>,
    owners: O,
    scope: Scope,
}

impl<O: Owners> Packing<O> {
    /// Prepares what an `O_PATH` descriptor refers to, under a name; without one, a directory's
    /// entries have names like `etc/passwd`, and it has none itself.
    ///
    /// # Errors
    /// [`FileError`] when the file cannot be opened, or the tree is deeper than names reach.
    pub fn new(top: OwnedFd, name: Vec<u8>, owners: O, scope: Scope) -> Result<Self, FileError> {
        let status = status(&top, &name)?;
        let mut packing = Self {
            top,
            status,
            file: None,
            name,
            owners,
            scope,
        };
        match kind_of(&status) {
            FileType::RegularFile => {
                let opened = open_file(&packing.top);
                let file = opened.map_err(|errno| failed("open", &packing.name, errno))?;
                packing.file = Some(file);
            }
            FileType::Directory => packing.measure()?,
            _ => {}
        }
        Ok(packing)
    }

    /// Walks through the directories alone, to know that their names fit.
    fn measure(&self) -> Result<(), FileError> {
        let mut walk = Walk::new(&self.top, self.level())?;
        loop {
            let Some((name, kind)) = walk.next_name()? else {
                if !walk.leave() {
                    return Ok(());
                }
                continue;
            };
            if !self.fits(walk.path(), &name) {
                return Err(FileError::Limit {
                    path: shown(&self.name),
                    what: "bytes in the path of something below it".into(),
                    limit: PATH as u64,
                });
            }
            if !matches!(kind, FileType::Directory | FileType::Unknown) {
                continue;
            }
            let Some(directory) = walk
                .directory()
                .and_then(|at| open_directory(at, &name).ok())
            else {
                continue;
            };
            let path = walk.path_of(&name);
            let below = Level::of(&directory, &status(&directory, &path)?, walk.data());
            if self.enters(walk.data(), &below) {
                walk.enter(directory, &name, below)?;
            }
        }
    }

    /// Whether something may have that name in the archive, with a slash at its end.
    fn fits(&self, directory: &[u8], name: &CStr) -> bool {
        self.name.len() + directory.len() + name.count_bytes() + 3 <= PATH
    }

    fn level(&self) -> Level {
        Level::of(&self.top, &self.status, None)
    }

    fn enters(&self, from: Option<&mut Level>, to: &Level) -> bool {
        let Some(from) = from else {
            return true;
        };
        match self.scope {
            Scope::OneMount => to.mount == from.mount,
            Scope::Mounts => to.mount == from.mount || from.pseudo || !to.pseudo,
        }
    }

    /// Writes the archive.
    ///
    /// What appears only now and cannot be packed, and files that cannot be read, are left out,
    /// with a comment in the archive; the first thousand of these are returned.
    ///
    /// # Errors
    /// [`FileError::Stream`] when `out` fails, and [`FileError`] when a directory cannot be read.
    pub fn write(mut self, out: impl Write) -> Result<Vec<String>, FileError> {
        let file = self.file.take();
        let mut packer = Packer {
            out: Writer::new(BufWriter::with_capacity(BUFFER, out)),
            packing: &self,
            links: HashMap::new(),
            link_bytes: 0,
            left_out: Vec::new(),
            buffer: vec![0u8; BUFFER],
        };
        let level = self.level();
        let directory = match self.name.is_empty() {
            true => true,
            false => packer.object(&self.top, &self.status, file, self.name.clone(), &level)?,
        };
        if directory {
            packer.tree(level)?;
        }
        packer.out.finish().map_err(FileError::Stream)?;
        Ok(packer.left_out)
    }
}

/// What is to be known of a directory while its entries are packed.
#[derive(Debug, Clone, Copy)]
struct Level {
    mount: (u64, u32, u32),
    /// It lies in a filesystem of the kernel: sizes are not to be believed.
    pseudo: bool,
}

impl Level {
    fn of(fd: &OwnedFd, status: &Statx, above: Option<&mut Level>) -> Self {
        let mount = mount_of(status);
        let pseudo = match above {
            Some(above) if above.mount == mount => above.pseudo,
            _ => is_pseudo(fd),
        };
        Self { mount, pseudo }
    }
}

struct Packer<'a, O, W: Write> {
    /// Headers are small and a client's pipe is not: they are gathered.
    out: Writer<BufWriter<W>>,
    packing: &'a Packing<O>,
    /// Names of the files with several links that were written.
    links: HashMap<(u32, u32, u64), Vec<u8>>,
    link_bytes: usize,
    left_out: Vec<String>,
    buffer: Vec<u8>,
}

impl<O: Owners, W: Write> Packer<'_, O, W> {
    /// Writes everything in the topmost directory, depth first.
    fn tree(&mut self, level: Level) -> Result<(), FileError> {
        let packing = self.packing;
        let mut walk = Walk::new(&packing.top, level)?;
        loop {
            let Some((name, _)) = walk.next_name()? else {
                if !walk.leave() {
                    return Ok(());
                }
                continue;
            };
            let path = self.name_of(&walk.path_of(&name));
            let Some(fd) = walk.directory().and_then(|at| open_path(at, &name)) else {
                // Removed since the directory was read.
                continue;
            };
            let status = status(&fd, &path)?;
            let below = Level::of(&fd, &status, walk.data());
            if !packing.fits(walk.path(), &name) {
                self.leave_out(&path, "its path is too long")?;
                continue;
            }
            let at = walk.data().map_or(below, |level| *level);
            let directory = self.object(&fd, &status, None, path.clone(), &at)?;
            if !directory || !packing.enters(walk.data(), &below) {
                continue;
            }
            match open_directory(&fd, c".") {
                Ok(directory) => walk.enter(directory, &name, below)?,
                Err(errno) => self.leave_out(&path, &errno.to_string())?,
            }
        }
    }

    fn name_of(&self, path: &[u8]) -> Vec<u8> {
        match self.packing.name.is_empty() {
            true => path.to_vec(),
            false => [&self.packing.name, &b"/"[..], path].concat(),
        }
    }

    /// Writes one object of a directory; whether it is a directory itself.
    fn object(
        &mut self,
        fd: &OwnedFd,
        status: &Statx,
        opened: Option<File>,
        path: Vec<u8>,
        at: &Level,
    ) -> Result<bool, FileError> {
        let kind = match kind_of(status) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            // Of no use without the process that listens on it.
            FileType::Socket | FileType::Unknown => {
                return self.leave_out(&path, "a socket").map(|()| false);
            }
        };
        if matches!(kind, Kind::Char | Kind::Block) && !self.packing.owners.devices() {
            return self.leave_out(&path, "a device").map(|()| false);
        }
        let owners = &self.packing.owners;
        // A set-user-id bit means its owner, so that it goes where the owner goes.
        let bits = if owners.attributes() { 0o7777 } else { 0o1777 };
        let mut entry = Entry {
            kind,
            mode: u32::from(status.stx_mode) & bits,
            uid: owners.user(status.stx_uid),
            gid: owners.group(status.stx_gid),
            mtime: Time {
                secs: status.stx_mtime.tv_sec,
                nanos: status.stx_mtime.tv_nsec,
            },
            size: 0,
            sparse: None,
            link: Vec::new(),
            device: (status.stx_rdev_major, status.stx_rdev_minor),
            xattrs: Vec::new(),
            path,
        };
        match kind {
            Kind::Directory => {
                entry.xattrs = self.xattrs(fd);
                entry.path.push(b'/');
                self.write(&entry)?;
            }
            Kind::Symlink => {
                entry.link = link_of(fd, &entry.path)?;
                self.write(&entry)?;
            }
            Kind::File => self.file(fd, status, opened, entry, at)?,
            Kind::HardLink | Kind::Char | Kind::Block | Kind::Fifo => self.write(&entry)?,
        }
        Ok(kind == Kind::Directory)
    }

    fn write(&mut self, entry: &Entry) -> Result<(), FileError> {
        self.out.entry(entry).map_err(FileError::Stream)
    }

    fn leave_out(&mut self, path: &[u8], why: &str) -> Result<(), FileError> {
        const MOST: usize = 1000;
        let what = format!("{}: {why}", shown(path));
        if self.left_out.len() < MOST {
            self.left_out.push(what.clone());
        }
        self.out.left_out(&what).map_err(FileError::Stream)
    }

    fn file(
        &mut self,
        fd: &OwnedFd,
        status: &Statx,
        opened: Option<File>,
        mut entry: Entry,
        at: &Level,
    ) -> Result<(), FileError> {
        let key = (status.stx_dev_major, status.stx_dev_minor, status.stx_ino);
        if let Some(first) = self.links.get(&key) {
            entry.kind = Kind::HardLink;
            entry.link.clone_from(first);
            return self.write(&entry);
        }
        if self.packing.scope == Scope::OneMount && mount_of(status) != at.mount {
            // A file that is mounted over another one.
            return self.write(&entry);
        }
        let mut file = match opened.map_or_else(|| open_file(fd), Ok) {
            Ok(file) => file,
            // A lease on it (fcntl(2)), or rights that are missing: the others are packed.
            Err(errno) if !at.pseudo => return self.leave_out(&entry.path, &errno.to_string()),
            // There are files in `/proc` and `/sys` that nobody may read.
            Err(_) => return self.write(&entry),
        };
        entry.xattrs = self.xattrs(fd);
        if at.pseudo {
            return self.unsized_file(file, entry);
        }
        if status.stx_nlink > 1 {
            self.remember_link(key, &entry.path);
        }
        entry.size = status.stx_size;
        if status.stx_blocks.saturating_mul(512) < entry.size {
            entry.sparse = segments(&mut file, entry.size);
        }
        self.write(&entry)?;
        self.content(&mut file, &entry)
    }

    /// What the container has so many of must not fill the daemon's memory: the names that are too
    /// much are written as files of their own.
    fn remember_link(&mut self, key: (u32, u32, u64), path: &[u8]) {
        self.link_bytes += path.len() + LINK_COST;
        if self.link_bytes <= LINK_NAMES {
            self.links.insert(key, path.to_vec());
        }
    }

    /// Copies exactly as many bytes as the header says: a file that shrinks meanwhile ends in
    /// zeros, of one that grows the rest is left out.
    fn content(&mut self, file: &mut File, entry: &Entry) -> Result<(), FileError> {
        let whole = [Segment {
            offset: 0,
            len: entry.size,
        }];
        let mut missing = None;
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            if entry.sparse.is_some() && file.seek(SeekFrom::Start(segment.offset)).is_err() {
                missing.get_or_insert_with(|| String::from("it could not be read"));
            }
            let part = file.take(segment.len);
            missing = missing.or(self.copy(part, segment.len)?);
        }
        self.out.pad(entry.stored()).map_err(FileError::Stream)?;
        match missing {
            None => Ok(()),
            Some(why) => self.leave_out(&entry.path, &format!("the end, as zeros: {why}")),
        }
    }

    /// Copies `left` bytes; says why the last of them are zeros.
    fn copy(&mut self, mut from: impl Read, mut left: u64) -> Result<Option<String>, FileError> {
        let mut missing = None;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            let part = &mut self.buffer[..len];
            let read = match missing {
                Some(_) => 0,
                None => match from.read(part) {
                    Ok(read) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        missing = Some(error.to_string());
                        0
                    }
                },
            };
            let read = match read {
                0 => {
                    missing.get_or_insert_with(|| String::from("it shrank meanwhile"));
                    part.fill(0);
                    len
                }
                read => read,
            };
            let bytes = &self.buffer[..read];
            self.out.content(bytes).map_err(FileError::Stream)?;
            left -= read as u64;
        }
        Ok(missing)
    }

    /// A file of the kernel's: read whole before its size is written.
    fn unsized_file(&mut self, file: File, mut entry: Entry) -> Result<(), FileError> {
        let mut bytes = Vec::new();
        // Whatever was read before an error counts.
        let _ = file.take(UNSIZED + 1).read_to_end(&mut bytes);
        let cut = bytes.len() as u64 > UNSIZED;
        entry.size = UNSIZED.min(bytes.len() as u64);
        bytes.truncate(usize::try_from(UNSIZED).unwrap_or(usize::MAX));
        self.write(&entry)?;
        self.out.content(&bytes).map_err(FileError::Stream)?;
        self.out.pad(entry.size).map_err(FileError::Stream)?;
        match cut {
            true => self.leave_out(&entry.path, "what lies beyond 16 MiB of a kernel's file"),
            false => Ok(()),
        }
    }

    /// The attributes that mean the same elsewhere. `trusted.*` and the labels of security modules
    /// belong to this machine.
    fn xattrs(&mut self, fd: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.packing.owners.attributes() {
            return Vec::new();
        }
        let path = magic_path(fd);
        let names = match rustix::fs::listxattr(path.as_str(), &mut self.buffer[..]) {
            Ok(0) | Err(_) => return Vec::new(),
            Ok(len) => self.buffer[..len].to_vec(),
        };
        let mut found = Vec::new();
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| is_portable(name))
        {
            if let Ok(len) = rustix::fs::getxattr(path.as_str(), name, &mut self.buffer[..]) {
                let value = self.attribute(name, &self.buffer[..len]);
                found.extend(value.map(|value| (name.to_vec(), value)));
            }
        }
        found
    }

    fn attribute(&self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match name {
            b"security.capability" => {
                capability_into_archive(value, |id| self.packing.owners.capability_root(id))
            }
            _ => Some(value.to_vec()),
        }
    }
}

/// Whether an extended attribute goes into and comes out of archives (xattr(7)). `user.overlay.*`
/// does not: to an overlay that is mounted with `userxattr` it says what to hide and where to look
/// (overlayfs.rst).
pub fn is_portable(name: &[u8]) -> bool {
    let user = name.strip_prefix(b"user.");
    name == b"security.capability"
        || user.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(b"overlay."))
}

fn status(fd: &OwnedFd, path: &[u8]) -> Result<Statx, FileError> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, flags)
        .map_err(|errno| failed("statx", path, errno))
}

fn kind_of(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
}

fn open_path(directory: &OwnedFd, name: &CStr) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).ok()
}

fn open_directory(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// By the descriptor: what was seen to be a regular file is what is opened.
fn open_file(fd: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(magic_path(fd), flags, Mode::empty()).map(File::from)
}

/// Where a file has data (lseek(2), `SEEK_DATA`); `None` where the filesystem cannot tell. The
/// last part of a file with very many of them has its holes as zeros.
fn segments(file: &mut File, size: u64) -> Option<Vec<Segment>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) {
            Ok(offset) if offset < size => offset,
            // Nothing but a hole until the end.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => {
                found.clear();
                0
            }
        };
        let end = match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Hole(offset)) {
            Ok(end) if end > offset && found.len() + 1 < SEGMENTS => end.min(size),
            _ => size,
        };
        found.push(Segment {
            offset,
            len: end - offset,
        });
        at = end;
    }
    let whole = found.first().is_some_and(|first| first.len == size);
    file.seek(SeekFrom::Start(0)).ok()?;
    (!whole).then_some(found)
}

/// Which mount an object lies in: its id, where the kernel tells (Linux 5.8), else its device.
fn mount_of(status: &Statx) -> (u64, u32, u32) {
    if status.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        (status.stx_mnt_id, 0, 0)
    } else {
        (0, status.stx_dev_major, status.stx_dev_minor)
    }
}

/// Whether a descriptor lies in a filesystem that the kernel makes up (statfs(2), `linux/magic.h`).
fn is_pseudo(fd: &OwnedFd) -> bool {
    const PSEUDO: [u64; 13] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x27_e0eb,   // cgroup
        0x6367_7270, // cgroup2
        0x1cd1,      // devpts
        0x1980_0202, // mqueue
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0xf97c_ff8c, // selinuxfs
        0x6e73_6673, // nsfs
        0x4249_4e4d, // binfmt_misc
    ];
    // The field is signed on some architectures; the magic numbers have 32 bits.
    rustix::fs::fstatfs(fd).is_ok_and(|stat| {
        let magic = u64::try_from(i128::from(stat.f_type) & 0xffff_ffff);
        magic.is_ok_and(|magic| PSEUDO.contains(&magic))
    })
}
