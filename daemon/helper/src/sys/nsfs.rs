//! What the kernel tells of a namespace (ioctl_nsfs(2)).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::last_errno;

/// `NSIO` of `linux/nsfs.h`.
const NSIO: libc::Ioctl = 0xb7;
/// `_IO(NSIO, 0x1)`: a descriptor of the owning user namespace.
const NS_GET_USERNS: libc::Ioctl = NSIO << 8 | 0x1;
/// `_IO(NSIO, 0x2)`: a descriptor of the parent namespace.
const NS_GET_PARENT: libc::Ioctl = NSIO << 8 | 0x2;
/// `_IOR(NSIO, 0x5, __u64)`: the 64-bit id of a mount namespace (Linux 6.8).
const NS_GET_MNTNS_ID: libc::Ioctl = IOR_U64 | NSIO << 8 | 0x5;
/// `_IOR(NSIO, 0xd, __u64)`: the 64-bit id of any namespace (Linux 6.18).
const NS_GET_ID: libc::Ioctl = IOR_U64 | NSIO << 8 | 0xd;
/// `_IOR(_, _, __u64)` without its type and number.
const IOR_U64: libc::Ioctl = 2 << 30 | 8 << 16;

/// The user namespace that owns a namespace; of a user namespace, its parent.
///
/// # Errors
/// `EPERM` when it lies outside the caller's own user namespace (so for the initial one).
pub fn ns_owner(namespace: impl AsFd) -> rustix::io::Result<OwnedFd> {
    ns_relative(namespace, NS_GET_USERNS)
}

/// The namespace that a PID or user namespace is nested in.
///
/// # Errors
/// `EINVAL` for the other kinds, `EPERM` when it lies outside the caller's own.
pub fn ns_parent(namespace: impl AsFd) -> rustix::io::Result<OwnedFd> {
    ns_relative(namespace, NS_GET_PARENT)
}

/// The kernel's 64-bit id of a namespace, unique for the time since boot.
///
/// # Errors
/// `ENOTTY` (`EINVAL` for other kinds than mount) on kernels that have none.
pub fn ns_id(namespace: impl AsFd) -> rustix::io::Result<u64> {
    ns_number(&namespace, NS_GET_ID).or_else(|_| ns_number(&namespace, NS_GET_MNTNS_ID))
}

fn ns_relative(namespace: impl AsFd, request: libc::Ioctl) -> rustix::io::Result<OwnedFd> {
    // SAFETY: both requests take no argument (`_IO`), so no memory is touched; the descriptor is
    // open for the duration of the borrow.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), request) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: a result that is not negative is a new descriptor that nobody else owns (the kernel
    // opens it close-on-exec).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ns_number(namespace: impl AsFd, request: libc::Ioctl) -> Result<u64, Errno> {
    let mut number = 0u64;
    // SAFETY: both requests write one `__u64` to the pointer they are given, which is valid and
    // aligned for the whole call.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), request, &raw mut number) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(number)
    }
}
