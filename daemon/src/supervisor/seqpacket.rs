//! [`littlebox_protocol::channel`] for tokio.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use littlebox_protocol::channel::{self, Datagram, Received, Wait};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use crate::asyncfd;

/// One end of a connection to a helper or to the zygote.
#[derive(Debug)]
pub struct SeqPacket {
    fd: AsyncFd<OwnedFd>,
}

impl SeqPacket {
    /// A connected pair: ours, and the blocking end that is handed to another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (fd, theirs) = asyncfd::seqpacket_pair()?;
        Ok((Self { fd }, theirs))
    }

    /// One end of a connection that is made already, in non-blocking mode.
    #[cfg(test)]
    pub fn from_connected(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: asyncfd::watch(fd)?,
        })
    }

    /// Connects to the path socket `name` in `dir`. The way through `/proc/self/fd` keeps the
    /// address within `sun_path`'s 108 bytes (unix(7)), however long `dir` is.
    pub fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = rustix::fs::open(
            dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let address = SocketAddrUnix::new(path)?;
        retry_on_intr(|| rustix::net::connect(&socket, &address))?;
        Ok(Self {
            fd: asyncfd::watch(socket)?,
        })
    }

    /// The process that listened where this has connected (`SO_PEERCRED`, unix(7)).
    pub fn peer(&self) -> Option<u32> {
        let peer = rustix::net::sockopt::socket_peercred(self.fd.get_ref()).ok()?;
        u32::try_from(peer.pid.as_raw_pid()).ok()
    }

    /// Ends the connection, for both sides and for every task that waits on it.
    pub fn hang_up(&self) {
        // ENOTCONN: the peer was first.
        let _ended = rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Both);
    }

    /// Sends one message. Waits while the peer's queue is full.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let datagram = Datagram::encode(message)?;
        // Nearly always there is room: try before asking the reactor.
        while !datagram.send(self.fd.get_ref().as_fd(), fds, Wait::DontWait)? {
            self.fd.writable().await?.clear_ready();
        }
        Ok(())
    }

    /// Receives one message; `None` when the peer is gone. If this process is out of descriptors, the message
    /// arrives without any.
    pub async fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.fd.readable().await?;
            match channel::receive(self.fd.get_ref().as_fd(), Wait::DontWait)? {
                Received::Message(message, fds) => return Ok(Some((message, fds))),
                Received::Closed => return Ok(None),
                Received::NothingYet => ready.clear_ready(),
            }
        }
    }
}
