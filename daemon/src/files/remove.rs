//! The removal of a tree that a container wrote: as deep and as wide as it liked.
//!
//! The tree is made flat while it is removed. A directory that is not empty is renamed into the
//! topmost one, under a number, and emptied there. So two descriptors and a bounded list of
//! numbers do for any tree, there is no way back up that could have been changed, and what an
//! interrupted removal leaves is a tree that the next one removes in the same way.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom, openat, unlinkat};
use rustix::io::Errno;

/// Bytes of names that are read at once.
const BUFFER: usize = 8 * 1024;
/// The most directories that wait by number; more are found when the topmost one is read again.
const WAITING: usize = 64 * 1024;
/// How often the topmost directory is read. More often only when somebody fills it meanwhile.
const PASSES: u32 = 100_000;

/// Removes a tree; one that is missing is fine.
///
/// # Errors
/// The first that kept something from being removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_unless(path, &|| false)
}

/// [`remove_tree`] that ends early, with [`io::ErrorKind::Interrupted`], once `stop` says so.
///
/// # Errors
/// As [`remove_tree`].
pub fn remove_tree_unless(path: &Path, stop: &dyn Fn() -> bool) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut removal = Removal {
        top: open_directory(CWD, path)?,
        waiting: Vec::new(),
        number: 0,
        progress: false,
        refused: None,
        stop,
    };
    for _ in 0..PASSES {
        removal.pass()?;
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if removal.progress => {}
            Err(errno) => return Err(removal.refused.unwrap_or(errno).into()),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

struct Removal<'a> {
    top: OwnedFd,
    /// Numbers of directories in the topmost one that are not empty.
    waiting: Vec<u64>,
    /// The next number to try.
    number: u64,
    /// Whether this pass has removed or moved something.
    progress: bool,
    /// Why something was left.
    refused: Option<Errno>,
    stop: &'a dyn Fn() -> bool,
}

/// Whether the rest of a directory is worth reading now.
#[derive(PartialEq, Eq)]
enum Next {
    Entry,
    Leave,
}

impl Removal<'_> {
    /// Empties the topmost directory as far as it can be.
    fn pass(&mut self) -> io::Result<()> {
        self.progress = false;
        self.refused = None;
        rustix::fs::seek(&self.top, SeekFrom::Start(0))?;
        let top = rustix::io::fcntl_dupfd_cloexec(&self.top, 0)?;
        self.each(&top, |removal, name| {
            removal.empty(name)?;
            while let Some(number) = removal.waiting.pop() {
                removal.empty(&named(number))?;
            }
            Ok(Next::Entry)
        })
    }

    /// Removes what is no directory or an empty one; `full` gets the names of the others.
    fn each(
        &mut self,
        directory: &OwnedFd,
        full: impl Fn(&mut Self, &CStr) -> io::Result<Next>,
    ) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            if (self.stop)() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || self.unlinked(directory, name, entry.file_type())? {
                continue;
            }
            if full(self, name)? == Next::Leave {
                break;
            }
        }
        Ok(())
    }

    /// Whether a name has gone; a directory that is not empty has not.
    fn unlinked(&mut self, parent: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<bool> {
        if kind != FileType::Directory {
            match unlinkat(parent, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                result => return self.noted(result),
            }
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            result => self.noted(result),
        }
    }

    fn noted(&mut self, result: rustix::io::Result<()>) -> io::Result<bool> {
        match result {
            Ok(()) => self.progress = true,
            Err(Errno::NOENT) => {}
            // One thing that cannot be removed keeps nothing else from going.
            Err(errno) => self.refused = Some(errno),
        }
        Ok(true)
    }

    /// Empties and removes a directory in the topmost one; what lies in it and is not empty is
    /// moved beside it.
    fn empty(&mut self, name: &CStr) -> io::Result<()> {
        let directory = match open_directory(&self.top, name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return self.noted(Err(errno)).map(drop),
        };
        self.each(&directory, |removal, below| {
            Ok(removal.move_up(&directory, below))
        })?;
        let removed = unlinkat(&self.top, name, AtFlags::REMOVEDIR);
        match removed {
            // The next pass goes on with it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            result => self.noted(result).map(drop),
        }
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> Next {
        loop {
            let number = self.number;
            self.number += 1;
            match rustix::fs::renameat(parent, name, &self.top, named(number)) {
                Ok(()) => {
                    self.progress = true;
                    if self.waiting.len() < WAITING {
                        self.waiting.push(number);
                    }
                    return Next::Entry;
                }
                // The tree has such a name itself, or an earlier removal has left it.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(Errno::NOENT) => return Next::Entry,
                // The topmost directory has no room before some of what lies in it has gone.
                Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::MLINK)) => {
                    self.refused = Some(errno);
                    return Next::Leave;
                }
                Err(errno) => {
                    self.refused = Some(errno);
                    return Next::Entry;
                }
            }
        }
    }
}

/// What a moved directory is called.
fn named(number: u64) -> std::ffi::CString {
    std::ffi::CString::new(number.to_string()).unwrap_or_default()
}
