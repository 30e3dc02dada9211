//! Descriptors that tokio watches.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::unix::AsyncFd;

/// Has tokio watch a descriptor, which must be in non-blocking mode.
///
/// # Errors
/// epoll_ctl(2): for example a regular file, which cannot be watched.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "deprecated because a T may change its descriptor behind the reactor's back; an \
                  OwnedFd cannot, and the replacement is an unsafe fn, which this crate has none of"
    )]
    AsyncFd::new(fd)
}

/// Two connected `SOCK_SEQPACKET` sockets: the daemon's end, and the blocking one for another process.
///
/// # Errors
/// socketpair(2).
pub fn seqpacket_pair() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((watch(ours)?, theirs))
}
