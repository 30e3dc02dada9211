//! Paths that an image controls, resolved so that they cannot lead outside.
//!
//! Every container path is opened with `openat2(2)`, `RESOLVE_IN_ROOT` (an absolute link or `..`
//! stays inside) and `RESOLVE_NO_MAGICLINKS` (`/proc/self/fd/N` is no way out), and from then on
//! only the descriptor is used. What is missing, be it the target of a link, is made step by step
//! below descriptors that were opened inside, each without following a link.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;

use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::Defence;

/// `PROC_SUPER_MAGIC` of statfs(2).
pub const PROC_MAGIC: i64 = 0x9fa0;

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
    if stands(Defence::InRoot) {
        resolve |= ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    }
    if links == Links::Refused && stands(Defence::RealProc) {
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
        Err(Errno::NOENT) => make(root, path, links, Kind::Directory),
        Err(errno) => Err(refused(Fault::of("openat2", errno), path)),
    }
}

/// A file inside `root` to mount something on, made empty where it is missing.
pub fn ensure_file(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd, Fault> {
    match open_in(root, path, OFlags::PATH, links) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOENT) => match make(root, path, links, Kind::File)? {
            Dir::Owned(fd) => Ok(fd),
            Dir::Borrowed(_) => {
                Err(Fault::refused("the path leads to the root").at(path.display()))
            }
        },
        Err(errno) => Err(refused(Fault::of("openat2", errno), path)),
    }
}

/// What is made where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

/// Makes what is missing on the way to `path`, and `path` itself.
fn make<'a>(root: BorrowedFd<'a>, path: &Path, links: Links, kind: Kind) -> Result<Dir<'a>, Fault> {
    let walk = Walk {
        root,
        above: Vec::new(),
        left: components(path),
        links,
        kind,
        links_left: LINK_LIMIT,
        makes_left: MAKE_LIMIT,
    };
    walk.run().map_err(|fault| refused(fault, path))
}

/// As many links as the kernel follows (path_resolution(7)).
const LINK_LIMIT: usize = 40;
/// More names than this no path has. It ends a walk from which somebody takes away what it makes.
const MAKE_LIMIT: usize = 4096;

/// A path that is resolved by hand, because openat2(2) stops where something is missing. No `..` is
/// ever given to the kernel: the way back is the descriptors that led here, so a directory that
/// somebody moves cannot lead out.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories from below the root to where the walk is.
    above: Vec<OwnedFd>,
    left: VecDeque<OsString>,
    links: Links,
    kind: Kind,
    links_left: usize,
    makes_left: usize,
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<Dir<'a>, Fault> {
        while let Some(name) = self.left.pop_front() {
            if name == "/" {
                self.start_again()?;
            } else if name == ".." {
                self.above.pop();
            } else {
                self.enter(name)?;
            }
        }
        Ok(self
            .above
            .pop()
            .map_or(Dir::Borrowed(self.root), Dir::Owned))
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.above.last().map_or(self.root, AsFd::as_fd)
    }

    /// An absolute link starts again from the root.
    fn start_again(&mut self) -> Result<(), Fault> {
        self.above.clear();
        if !stands(Defence::InRoot) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let host = openat(CWD, "/", flags, Mode::empty()).fault_at("open", "/")?;
            self.above.push(host);
        }
        Ok(())
    }

    fn enter(&mut self, name: OsString) -> Result<(), Fault> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat(self.here(), &name, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => return self.make(name),
            Err(errno) => return Err(Fault::of("openat", errno)),
        };
        let kind = FileType::from_raw_mode(fstat(&found).fault("fstat")?.st_mode);
        match kind {
            FileType::Symlink => self.follow(&found),
            FileType::Directory => {
                self.above.push(found);
                Ok(())
            }
            _ if self.left.is_empty() && self.kind == Kind::File => {
                self.above.push(found);
                Ok(())
            }
            _ => Err(Fault::of("openat", Errno::NOTDIR)),
        }
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), Fault> {
        spend(&mut self.links_left)?;
        // Those of procfs may be magic, and lead out (proc_pid_fd(5)).
        let of_proc = fstatfs(link).fault("fstatfs")?.f_type == PROC_MAGIC;
        if self.links == Links::Refused || of_proc && stands(Defence::InRoot) {
            return Err(Fault::of("openat", Errno::LOOP));
        }
        let target = readlinkat(link, "", Vec::new()).fault("readlinkat")?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        for name in components(&target).into_iter().rev() {
            self.left.push_front(name);
        }
        Ok(())
    }

    /// Makes what is missing and enters it. What somebody else has made in the same moment is looked
    /// at again.
    fn make(&mut self, name: OsString) -> Result<(), Fault> {
        spend(&mut self.makes_left)?;
        let (call, made) = if self.left.is_empty() && self.kind == Kind::File {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(0o644);
            let file = openat(self.here(), &name, flags | OFlags::CLOEXEC, mode);
            ("openat", file.map(drop))
        } else {
            let mode = Mode::from_raw_mode(0o755);
            ("mkdirat", mkdirat(self.here(), &name, mode))
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::of(call, errno)),
        }
        self.left.push_front(name);
        Ok(())
    }
}

fn spend(budget: &mut usize) -> Result<(), Fault> {
    let left = budget.checked_sub(1);
    *budget = left.ok_or_else(|| Fault::of("openat", Errno::LOOP))?;
    Ok(())
}

/// The steps of a path: names, `..`, and `/` where an absolute one begins.
fn components(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|c| *c != Component::CurDir);
    steps.map(|c| c.as_os_str().to_owned()).collect()
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
