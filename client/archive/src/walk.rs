//! A walk through a tree that somebody else may change meanwhile.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use crate::FileError;
use crate::sys::{failed, shown};

/// The most bytes of a path below the top, which is also what the kernel takes at once (path
/// resolution(7)), and so the bound of the depth: 2,048 directories.
pub const PATH: usize = 4095;
/// The most directories that are held open; those above are opened again on the way back.
const OPEN: usize = 16;
/// Bytes of a directory that are read at once. Names are never gathered beyond that, so a walk
/// takes less than 32 MiB, of the deepest tree of full directories.
const PIECE: usize = 4096;
/// The most renames elsewhere that one resolution bears (openat2(2), EAGAIN).
const ATTEMPTS: u32 = 256;

/// An iterative walk, depth first. The caller reads a directory's names and says which of them to
/// enter. Every directory is known by its device and inode: what has been moved away or exchanged
/// when the walk comes back to it is left.
pub struct Walk<T> {
    top: OwnedFd,
    frames: Vec<Frame<T>>,
    /// Of the current directory, below the top.
    path: Vec<u8>,
}

/// A directory that is being read.
struct Frame<T> {
    directory: Option<OwnedFd>,
    identity: (u64, u64),
    names: std::vec::IntoIter<(CString, FileType)>,
    /// Where to go on reading.
    position: u64,
    path_len: usize,
    data: T,
}

impl<T> Walk<T> {
    /// Begins in a directory, with something that belongs to it.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be opened for reading.
    pub fn new(top: impl AsFd, data: T) -> Result<Self, FileError> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(&top, c".", flags, Mode::empty())
                .map_err(|errno| failed("openat", b".", errno))
        };
        let mut walk = Self {
            top: open()?,
            frames: Vec::new(),
            path: Vec::new(),
        };
        walk.push(open()?, data)?;
        Ok(walk)
    }

    /// The next name in the current directory with its type as the directory tells it; `None` at
    /// its end.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be read.
    pub fn next_name(&mut self) -> Result<Option<(CString, FileType)>, FileError> {
        let path = &self.path;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(None);
        };
        if frame.names.as_slice().is_empty() {
            frame
                .read()
                .map_err(|errno| failed("getdents64", path, errno))?;
        }
        Ok(frame.names.next())
    }

    /// The current directory, while there are names in it.
    pub fn directory(&self) -> Option<&OwnedFd> {
        self.frames.last()?.directory.as_ref()
    }

    /// What belongs to the current directory.
    pub fn data(&mut self) -> Option<&mut T> {
        Some(&mut self.frames.last_mut()?.data)
    }

    /// The current directory's path below the top.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of a name in the current directory.
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        match self.path.is_empty() {
            true => name.to_bytes().to_vec(),
            false => [&self.path, &b"/"[..], name.to_bytes()].concat(),
        }
    }

    /// Enters a directory of the current one.
    ///
    /// # Errors
    /// [`FileError::Limit`] when it lies too deep.
    pub fn enter(&mut self, directory: OwnedFd, name: &CStr, data: T) -> Result<(), FileError> {
        let path = self.path_of(name);
        if path.len() > PATH {
            return Err(FileError::Limit {
                path: shown(&path[..64]),
                what: "bytes in a path".into(),
                limit: PATH as u64,
            });
        }
        self.path = path;
        self.push(directory, data)
    }

    fn push(&mut self, directory: OwnedFd, data: T) -> Result<(), FileError> {
        let identity =
            identity_of(&directory).map_err(|errno| failed("fstat", &self.path, errno))?;
        self.frames.push(Frame {
            directory: Some(directory),
            identity,
            names: Vec::new().into_iter(),
            position: 0,
            path_len: self.path.len(),
            data,
        });
        if let Some(far) = self.frames.len().checked_sub(OPEN + 1) {
            self.frames[far].directory = None;
        }
        Ok(())
    }

    /// Leaves the current directory; `false` when that was the topmost one.
    pub fn leave(&mut self) -> bool {
        // Held until the one above is open again: while it is, the kernel keeps that one's inode.
        let _left = self.frames.pop();
        let Some(frame) = self.frames.last_mut() else {
            return false;
        };
        self.path.truncate(frame.path_len);
        if frame.directory.is_none() {
            frame.directory = open_again(&self.top, &self.path, frame.identity, frame.position);
            if frame.directory.is_none() {
                frame.names = Vec::new().into_iter();
            }
        }
        true
    }
}

impl<T> Frame<T> {
    /// Reads the next piece of names.
    fn read(&mut self) -> rustix::io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let mut buffer = [MaybeUninit::uninit(); PIECE];
        let mut names = Vec::new();
        let mut entries = RawDir::new(directory, &mut buffer);
        // A piece may hold nothing but the two names of directories themselves.
        while names.is_empty() || !entries.is_buffer_empty() {
            let Some(entry) = entries.next() else {
                break;
            };
            let entry = entry?;
            self.position = entry.next_entry_cookie();
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        self.names = names.into_iter();
        Ok(())
    }
}

fn identity_of(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Opens a directory that was open before; `None` when another one is there by now.
fn open_again(top: &OwnedFd, path: &[u8], identity: (u64, u64), position: u64) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    let mut attempt = 0;
    let directory = loop {
        attempt += 1;
        match rustix::fs::openat2(top, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if attempt < ATTEMPTS => {}
            result => break result.ok()?,
        }
    };
    let same = identity_of(&directory).is_ok_and(|found| found == identity);
    let found = same && rustix::fs::seek(&directory, SeekFrom::Start(position)).is_ok();
    found.then_some(directory)
}
