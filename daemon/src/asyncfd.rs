//! Descriptors that tokio watches.

use std::io;
use std::os::fd::OwnedFd;

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

/// Writes all of it, as the reader makes room.
///
/// # Errors
/// write(2): `EPIPE` when nobody reads any more.
pub async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
            Ok(Ok(n)) => bytes = &bytes[n..],
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
    Ok(())
}
