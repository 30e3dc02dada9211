//! The container's tree of mounts while it grows: the root, and the fresh filesystems in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::paths::{self, Dir, Links};
use crate::fault::{Fault, OrFault};
use crate::sys::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};

/// A filesystem that was made for this container and holds nothing of the image: what lies in it
/// is looked up from its own root, where no link of the image can be in the way.
#[derive(Debug)]
struct Fresh {
    at: PathBuf,
    fstype: String,
    mount: OwnedFd,
    read_only_later: bool,
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    fresh: Vec<Fresh>,
}

impl Tree {
    /// A tree of a root alone.
    pub fn new(root: OwnedFd) -> Tree {
        Tree {
            root,
            fresh: Vec::new(),
        }
    }

    /// The root mount.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens an existing container path.
    pub fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let (base, rest) = self.base(path);
        paths::open_in(base, rest, flags, Links::Inside)
    }

    /// Opens a container path; `None` where there is nothing.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>, Fault> {
        match self.open(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Fault::of("openat2", errno).at(path.display())),
        }
    }

    /// A directory, made where it is missing.
    pub fn ensure_dir(&self, path: &Path, links: Links) -> Result<Dir<'_>, Fault> {
        let (base, rest) = self.base(path);
        paths::ensure_dir(base, rest, links)
    }

    /// A file to mount something on, made where it is missing.
    pub fn ensure_file(&self, path: &Path) -> Result<OwnedFd, Fault> {
        let (base, rest) = self.base(path);
        paths::ensure_file(base, rest, Links::Inside)
    }

    /// Remembers a fresh filesystem that was mounted. `read_only_later`: it becomes read-only
    /// when everything is in place.
    pub fn add_fresh(&mut self, at: &Path, fstype: &str, mount: OwnedFd, read_only_later: bool) {
        let (at, fstype) = (at.to_owned(), fstype.to_owned());
        self.fresh.push(Fresh {
            at,
            fstype,
            mount,
            read_only_later,
        });
    }

    /// The fresh filesystem of this type at this path.
    pub fn fresh(&self, at: &str, fstype: &str) -> Option<BorrowedFd<'_>> {
        let at = Path::new(at);
        let mut all = self.fresh.iter().rev();
        all.find(|f| f.at == at && f.fstype == fstype)
            .map(|f| f.mount.as_fd())
    }

    /// Makes read-only what was left writable for the work.
    pub fn seal(&self, root_read_only: bool) -> Result<(), Fault> {
        let read_only = MountAttr {
            set: MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        for fresh in self.fresh.iter().filter(|fresh| fresh.read_only_later) {
            mount_setattr(fresh.mount.as_fd(), false, read_only)
                .fault_at("mount_setattr", fresh.at.display())?;
        }
        if root_read_only {
            mount_setattr(self.root(), false, read_only).fault_at("mount_setattr", "/")?;
        }
        Ok(())
    }

    /// Where to look a path up from, and what is left of it.
    fn base<'p>(&self, path: &'p Path) -> (BorrowedFd<'_>, &'p Path) {
        let inside = |fresh: &&Fresh| path != fresh.at && path.starts_with(&fresh.at);
        match self
            .fresh
            .iter()
            .rev()
            .filter(inside)
            .max_by_key(|f| f.at.as_os_str().len())
        {
            None => (self.root(), path.strip_prefix("/").unwrap_or(path)),
            Some(f) => (f.mount.as_fd(), path.strip_prefix(&f.at).unwrap_or(path)),
        }
    }
}

/// Attaches a detached mount to a descriptor.
pub fn attach(mount: impl AsFd, to: impl AsFd, path: &Path) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", to, "", flags).fault_at("move_mount", path.display())
}

/// A detached copy of the mount at a descriptor (a bind mount before it is attached).
pub fn clone_mount(of: impl AsFd, recursive: bool) -> Result<OwnedFd, Fault> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, "", flags).fault("open_tree")
}
