//! mount_setattr(2), which rustix does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;

use super::check;

/// `struct mount_attr` of mount_setattr(2), version 0.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 for no change.
    pub propagation: u64,
    /// A user namespace, for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the two bits of the access time policy, to be cleared before one is set.
pub const MOUNT_ATTR__ATIME: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP` (kernel 5.12).
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW` (kernel 5.14).
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// `mount_setattr` on the mount that `mount` is the root of; with `recursive` also on all below.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: MountAttr) -> Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path is a valid C string, `attr` has the layout of the man page and the
    // size that is passed, both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
