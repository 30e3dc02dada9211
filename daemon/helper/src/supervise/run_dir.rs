//! The helper's own directory: its path socket and the container's exit record.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use littlebox_protocol::{
    EXIT_RECORD, ExitRecord, HELPER_SOCKET, HELPER_SOCKET_UNREADY, Step, StepFailure,
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16;
/// How long the next try to accept is put off when there is no descriptor for it.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// The directory and the socket that listens in it.
#[derive(Debug)]
pub struct RunDir {
    dir: OwnedFd,
    listener: OwnedFd,
}

impl RunDir {
    /// Opens the directory, removes what an earlier life of the container left in it, and listens
    /// on the path socket (0600).
    ///
    /// # Errors
    /// [`Step::RunDir`] and the system call.
    pub fn open(path: &Path) -> Result<Self, StepFailure> {
        let fail = |syscall: &'static str| move |errno| failure(syscall, errno, path.to_owned());
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(fail("open"))?;
        for stale in [HELPER_SOCKET, HELPER_SOCKET_UNREADY, EXIT_RECORD] {
            match rustix::fs::unlinkat(&dir, stale, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail("unlinkat")(errno)),
            }
        }
        let listener = listen(dir.as_fd()).map_err(|(syscall, errno)| fail(syscall)(errno))?;
        Ok(Self { dir, listener })
    }

    /// The listening socket, non-blocking.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The next connection that waits, if its peer is root or this user (`SO_PEERCRED`, unix(7)).
    /// Others are closed and passed over.
    pub fn accept(&self) -> Option<OwnedFd> {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(connection) if peer_is_trusted(connection.as_fd()) => return Some(connection),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => {
                    // No descriptor left: the connection waits, and must not keep us busy.
                    std::thread::sleep(NO_DESCRIPTOR_PAUSE);
                    return None;
                }
            }
        }
    }

    /// Writes the container's exit record.
    ///
    /// # Errors
    /// As [`super::record::write_in`].
    pub fn write_exit_record(&self, record: &ExitRecord) -> std::io::Result<()> {
        super::record::write_in(self.dir.as_fd(), Path::new(EXIT_RECORD), record)
    }

    /// Removes the path socket: nobody listens any more.
    pub fn remove_socket(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, HELPER_SOCKET, AtFlags::empty());
    }
}

/// Binds and listens. The directory is named by its descriptor, because a socket's path has at
/// most 107 bytes (unix(7)), which a run directory's may pass. It gets its name only when somebody
/// listens: between bind and listen a daemon would be refused, and take this helper for dead.
fn listen(dir: BorrowedFd<'_>) -> Result<OwnedFd, (&'static str, Errno)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|errno| ("socket", errno))?;
    let path = format!("/proc/self/fd/{}/{HELPER_SOCKET_UNREADY}", dir.as_raw_fd());
    let address = SocketAddrUnix::new(path.as_str()).map_err(|errno| ("bind", errno))?;
    let old_mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(old_mask);
    bound.map_err(|errno| ("bind", errno))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| ("listen", errno))?;
    rustix::fs::renameat(dir, HELPER_SOCKET_UNREADY, dir, HELPER_SOCKET)
        .map_err(|errno| ("renameat", errno))?;
    Ok(socket)
}

fn peer_is_trusted(connection: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_peercred(connection)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// A failure of [`Step::RunDir`].
pub fn failure(syscall: &str, errno: Errno, path: PathBuf) -> StepFailure {
    StepFailure {
        step: Step::RunDir,
        errno: errno.raw_os_error(),
        syscall: syscall.to_owned(),
        path: Some(path.to_string_lossy().into_owned()),
        detail: None,
    }
}
