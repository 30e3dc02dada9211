//! Out of a container: stat and tar.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lbctl::types::FileStat;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::resolve::{failed, magic_path, open_in_root, shown};
use super::tar::{Entry, Kind, Time, Writer};
use super::{FileError, IdView};
use crate::time;

/// The most directories inside one another. Each is held open, so that nothing that the container
/// renames meanwhile can lead astray.
const DEPTH: usize = 256;
/// The most bytes of a file whose size is not known before it was read (`/proc`, `/sys`).
const UNSIZED: u64 = 16 * 1024 * 1024;
const BUFFER: usize = 128 * 1024;
/// The most bytes of names in one directory.
const NAMES: u64 = 64 * 1024 * 1024;
/// The most bytes of names of files with several links.
const LINK_NAMES: usize = 32 * 1024 * 1024;

/// What lies at a container path. The last component is not followed when it is a symbolic link
/// (unless the path ends in `/`).
///
/// # Errors
/// [`FileError::NotFound`], [`FileError::NotADirectory`], [`FileError::Escape`].
pub fn stat(root: BorrowedFd<'_>, path: &str, ids: &IdView) -> Result<FileStat, FileError> {
    let path = absolute(path);
    let fd = open_target(root, &path)?;
    let status = status(&fd, path.as_bytes())?;
    let link_target = match kind(&status) {
        FileType::Symlink => Some(shown(&link_of(&fd, path.as_bytes())?)),
        _ => None,
    };
    let mtime = time_of(&status);
    let nanos = mtime
        .secs
        .saturating_mul(1_000_000_000)
        .saturating_add(mtime.nanos.into());
    Ok(FileStat {
        kind: kind_name(kind(&status)).to_owned(),
        size: status.stx_size,
        mode: format!("{:04o}", status.stx_mode & 0o7777),
        uid: ids.user_inside(status.stx_uid),
        gid: ids.group_inside(status.stx_gid),
        modified_at: time::rfc3339(nanos),
        link_target,
        path,
    })
}

/// Writes the file or directory at a container path as tar; entry names start with its base name
/// (`.` for the root and for paths that end in `/.`).
///
/// Filesystems of the kernel (`proc`, `sysfs`, ...) are left out below a directory.
///
/// # Errors
/// As [`stat`], and [`FileError::Stream`] when `out` fails.
pub fn pack(
    root: BorrowedFd<'_>,
    path: &str,
    ids: &IdView,
    out: impl Write,
) -> Result<(), FileError> {
    let path = absolute(path);
    let fd = open_target(root, &path)?;
    let name = match path.rsplit('/').find(|component| !component.is_empty()) {
        None | Some("." | "..") => ".",
        Some(name) => name,
    };
    let mut packer = Packer::new(out, ids, None);
    packer.pseudo = is_pseudo(&fd);
    if let Some(directory) = packer.object(fd, name.as_bytes().to_vec())? {
        packer.tree(directory)?;
    }
    packer.out.finish().map_err(FileError::Stream)
}

/// Writes everything below the root as tar, with names like `etc/passwd`; other mounts are left
/// out (their mount points stand as empty directories and files).
///
/// # Errors
/// As [`pack`].
pub fn pack_all(root: BorrowedFd<'_>, ids: &IdView, out: impl Write) -> Result<(), FileError> {
    let fd = open_in_root(root, b"/", OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|errno| failed("openat2", b"/", errno))?;
    let mount = mount_of(&status(&fd, b"/")?);
    let mut packer = Packer::new(out, ids, Some(mount));
    let directory = Frame::open(fd.as_fd(), Vec::new(), false)?;
    packer.tree(directory)?;
    packer.out.finish().map_err(FileError::Stream)
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

fn status(fd: &OwnedFd, path: &[u8]) -> Result<Statx, FileError> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, flags)
        .map_err(|errno| failed("statx", path, errno))
}

fn kind(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
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

fn time_of(status: &Statx) -> Time {
    Time {
        secs: status.stx_mtime.tv_sec,
        nanos: status.stx_mtime.tv_nsec,
    }
}

fn link_of(fd: &OwnedFd, path: &[u8]) -> Result<Vec<u8>, FileError> {
    let target = rustix::fs::readlinkat(fd, c"", Vec::new());
    target
        .map(CString::into_bytes)
        .map_err(|errno| failed("readlinkat", path, errno))
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

/// A directory that is being read.
struct Frame {
    directory: OwnedFd,
    path: Vec<u8>,
    names: std::vec::IntoIter<CString>,
    mount: (u64, u32, u32),
    pseudo: bool,
}

impl Frame {
    fn open(fd: BorrowedFd<'_>, path: Vec<u8>, pseudo: bool) -> Result<Self, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(fd, c".", flags, Mode::empty())
            .map_err(|errno| failed("openat", &path, errno))?;
        let mut names = Vec::new();
        let mut left = NAMES;
        let mut entries =
            Dir::read_from(&directory).map_err(|errno| failed("getdents64", &path, errno))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|errno| failed("getdents64", &path, errno))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                left = left.checked_sub(name.count_bytes() as u64).ok_or_else(|| {
                    FileError::Limit {
                        path: shown(&path),
                        what: "bytes in the names of one directory",
                        limit: NAMES,
                    }
                })?;
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        let mount = mount_of(&status(&directory, &path)?);
        Ok(Self {
            directory,
            path,
            names: names.into_iter(),
            mount,
            pseudo,
        })
    }

    fn path_of(&self, name: &CString) -> Vec<u8> {
        match self.path.is_empty() {
            true => name.to_bytes().to_vec(),
            false => [&self.path, &b"/"[..], name.to_bytes()].concat(),
        }
    }
}

struct Packer<'a, W: Write> {
    /// Headers are small and a client's pipe is not: they are gathered.
    out: Writer<BufWriter<W>>,
    ids: &'a IdView,
    /// Stay in this mount.
    only: Option<(u64, u32, u32)>,
    /// Names of the files with several links that were written.
    links: HashMap<(u32, u32, u64), Vec<u8>>,
    link_bytes: usize,
    /// What is written now lies in a filesystem of the kernel: sizes are not to be believed.
    pseudo: bool,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Packer<'a, W> {
    fn new(out: W, ids: &'a IdView, only: Option<(u64, u32, u32)>) -> Self {
        let buffer = vec![0u8; BUFFER];
        let out = Writer::new(BufWriter::with_capacity(BUFFER, out));
        Self {
            out,
            ids,
            only,
            links: HashMap::new(),
            link_bytes: 0,
            pseudo: false,
            buffer,
        }
    }

    /// Writes everything in a directory, depth first.
    fn tree(&mut self, top: Frame) -> Result<(), FileError> {
        let mut frames = vec![top];
        while let Some(frame) = frames.last_mut() {
            let Some(name) = frame.names.next() else {
                frames.pop();
                continue;
            };
            let path = frame.path_of(&name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&frame.directory, &name, flags, Mode::empty()) {
                Ok(fd) => fd,
                // Removed since the directory was read.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("openat", &path, errno)),
            };
            self.pseudo = frame.pseudo;
            let mount = frame.mount;
            let Some(below) = self.object(fd, path)? else {
                continue;
            };
            let enters = below.mount != mount && !below.pseudo && is_pseudo(&below.directory);
            if self.only.is_some_and(|only| below.mount != only) || enters {
                continue;
            }
            if frames.len() == DEPTH {
                return Err(FileError::Limit {
                    path: shown(&below.path),
                    what: "directories inside one another",
                    limit: DEPTH as u64,
                });
            }
            frames.push(below);
        }
        Ok(())
    }

    /// Writes one object; a directory is handed back to be read.
    fn object(&mut self, fd: OwnedFd, path: Vec<u8>) -> Result<Option<Frame>, FileError> {
        let status = status(&fd, &path)?;
        let file_type = kind(&status);
        let kind = match file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            // A socket is of no use without the process that listens on it.
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let mut entry = Entry {
            kind,
            mode: u32::from(status.stx_mode) & 0o7777,
            uid: self.ids.user_inside(status.stx_uid),
            gid: self.ids.group_inside(status.stx_gid),
            mtime: time_of(&status),
            size: 0,
            link: Vec::new(),
            device: (status.stx_rdev_major, status.stx_rdev_minor),
            xattrs: Vec::new(),
            path,
        };
        match kind {
            Kind::Directory => {
                entry.xattrs = self.xattrs(&fd);
                let directory = Frame::open(fd.as_fd(), entry.path.clone(), self.pseudo)?;
                entry.path.push(b'/');
                self.write(&entry)?;
                return Ok(Some(directory));
            }
            Kind::Symlink => {
                entry.link = link_of(&fd, &entry.path)?;
                self.write(&entry)?;
            }
            Kind::File => self.file(&fd, &status, entry)?,
            Kind::HardLink | Kind::Char | Kind::Block | Kind::Fifo => self.write(&entry)?,
        }
        Ok(None)
    }

    /// What the container has so many of must not fill the daemon's memory: the names that are too
    /// much are written as files of their own.
    fn remember_link(&mut self, key: (u32, u32, u64), path: &[u8]) {
        self.link_bytes += path.len();
        if self.link_bytes <= LINK_NAMES {
            self.links.insert(key, path.to_vec());
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), FileError> {
        self.out.entry(entry).map_err(FileError::Stream)
    }

    fn file(&mut self, fd: &OwnedFd, status: &Statx, mut entry: Entry) -> Result<(), FileError> {
        if status.stx_nlink > 1 {
            let key = (status.stx_dev_major, status.stx_dev_minor, status.stx_ino);
            if let Some(first) = self.links.get(&key) {
                entry.kind = Kind::HardLink;
                entry.link = first.clone();
                return self.write(&entry);
            }
            self.remember_link(key, &entry.path);
        }
        if self.only.is_some_and(|only| mount_of(status) != only) {
            // A file that is mounted over another one.
            return self.write(&entry);
        }
        entry.xattrs = self.xattrs(fd);
        // By the descriptor: what was seen to be a regular file is what is opened.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(magic_path(fd), flags, Mode::empty());
        let opened = opened
            .map(File::from)
            .map_err(|errno| failed("open", &entry.path, errno));
        if self.pseudo {
            return self.unsized_file(opened, entry);
        }
        entry.size = status.stx_size;
        let mut file = opened?;
        self.write(&entry)?;
        self.content(&mut file, &entry)
    }

    /// Copies exactly as many bytes as the header says: a file that shrinks meanwhile ends in
    /// zeros, of one that grows the rest is left out.
    fn content(&mut self, file: &mut File, entry: &Entry) -> Result<(), FileError> {
        let mut left = entry.size;
        let mut at_end = false;
        while left > 0 {
            let len = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let part = &mut self.buffer[..len];
            let read = if at_end {
                0
            } else {
                read_some(file, part, &entry.path)?
            };
            if read == 0 {
                at_end = true;
                part.fill(0);
            }
            let read = if read == 0 { len } else { read };
            self.out
                .content(&self.buffer[..read])
                .map_err(FileError::Stream)?;
            left -= read as u64;
        }
        self.out.pad(entry.size).map_err(FileError::Stream)
    }

    /// A file of the kernel's: read whole before its size is written. What may not be read (there
    /// are such files in `/proc` and `/sys`) stays empty.
    fn unsized_file(
        &mut self,
        file: Result<File, FileError>,
        mut entry: Entry,
    ) -> Result<(), FileError> {
        let mut bytes = Vec::new();
        if let Ok(file) = file {
            // Whatever was read before an error counts.
            let _ = file.take(UNSIZED).read_to_end(&mut bytes);
        }
        entry.size = bytes.len() as u64;
        self.write(&entry)?;
        self.out.content(&bytes).map_err(FileError::Stream)?;
        self.out.pad(entry.size).map_err(FileError::Stream)
    }

    /// The attributes that mean the same elsewhere. `trusted.*` and the labels of security modules
    /// belong to this machine.
    fn xattrs(&mut self, fd: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
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
                found.push((name.to_vec(), self.buffer[..len].to_vec()));
            }
        }
        found
    }
}

/// Whether an extended attribute goes into and comes out of archives (xattr(7)).
pub(super) fn is_portable(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && name.len() > 5)
}

fn read_some(file: &mut File, buffer: &mut [u8], path: &[u8]) -> Result<usize, FileError> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(FileError::Io {
                    op: "read",
                    path: shown(path),
                    source,
                });
            }
            Ok(read) => return Ok(read),
        }
    }
}
