//! Trees of the host that are bound.

use std::fs::read_to_string;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::deputy;
use crate::fault::{Fault, OrFault};

/// A detached copy of what is mounted at a path of the host.
pub fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd, Fault> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let open = || open_tree(CWD, path, flags).fault_at("open_tree", path.display());
    if recursive && host_has_mount_namespace_files() {
        // In a copy of the mount namespace they are not.
        return deputy::fetch(libc::CLONE_NEWNS.unsigned_abs().into(), open);
    }
    open()
}

/// Whether a mount namespace is kept by a file somewhere (`unshare --mount=FILE`, snapd). A tree with
/// such a file cannot be attached in a younger mount namespace: move_mount(2) fails with ELOOP, because
/// the two could keep each other alive.
fn host_has_mount_namespace_files() -> bool {
    let table = read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = |line: &str| {
        line.split(' ')
            .nth(3)
            .is_some_and(|r| r.starts_with("mnt:["))
    };
    table.lines().any(root)
}
