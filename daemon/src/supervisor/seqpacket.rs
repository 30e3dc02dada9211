//! `SOCK_SEQPACKET` for tokio: one message, one datagram, descriptors beside it.
//!
//! The synchronous twin lives in the helper; the format is [`littlebox_helper::protocol`]'s.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use littlebox_helper::protocol::{Framed, INLINE_LIMIT, MAX_FDS, MESSAGE_LIMIT};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

/// Room for the JSON around an inline message.
const DATAGRAM_LIMIT: usize = INLINE_LIMIT + 1024;

/// One end of a connection to a helper or to the zygote.
#[derive(Debug)]
pub struct SeqPacket {
    fd: AsyncFd<OwnedFd>,
}

impl SeqPacket {
    /// A connected pair: ours, and the blocking end that is handed to another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((
            Self {
                fd: crate::asyncfd::watch(ours)?,
            },
            theirs,
        ))
    }

    /// One end of a connection that is made already, in non-blocking mode.
    #[cfg(test)]
    pub fn from_connected(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: crate::asyncfd::watch(fd)?,
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
            fd: crate::asyncfd::watch(socket)?,
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
        let outgoing = Outgoing::new(message)?;
        let mut all: Vec<BorrowedFd<'_>> = fds.to_vec();
        if let Some(memfd) = &outgoing.memfd {
            all.push(memfd.as_fd());
        }
        if all.len() > MAX_FDS {
            return Err(io::Error::other("too many descriptors beside one message"));
        }
        loop {
            // Nearly always there is room: try before asking the reactor.
            match send_now(self.fd.get_ref(), &outgoing.bytes, &all) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.fd.writable().await?.clear_ready();
                }
                other => return other,
            }
        }
    }

    /// Receives one message; `None` when the peer is gone. Where this process had no room for a
    /// descriptor, the message comes without any.
    pub async fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut guard = self.fd.readable().await?;
            match guard.try_io(|fd| recv_now(fd.get_ref())) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }
}

/// A message in the form it travels in.
struct Outgoing {
    bytes: Vec<u8>,
    memfd: Option<OwnedFd>,
}

impl Outgoing {
    fn new<T: Serialize>(message: &T) -> io::Result<Self> {
        let bytes = serde_json::to_vec(&Framed::Inline(message))?;
        if bytes.len() <= INLINE_LIMIT {
            return Ok(Self { bytes, memfd: None });
        }
        let whole = serde_json::to_vec(message)?;
        if whole.len() > MESSAGE_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the launch plan has {} bytes; the most is {MESSAGE_LIMIT}",
                    whole.len()
                ),
            ));
        }
        let memfd = rustix::fs::memfd_create("littlebox-message", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(memfd);
        file.write_all(&whole)?;
        let bytes = serde_json::to_vec(&Framed::<()>::Memfd(whole.len() as u64))?;
        Ok(Self {
            bytes,
            memfd: Some(file.into()),
        })
    }
}

fn send_now(fd: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [const { MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let flags = SendFlags::NOSIGNAL;
    retry_on_intr(|| rustix::net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, flags))?;
    Ok(())
}

thread_local! {
    /// One buffer per worker thread instead of one per connection: with a thousand containers the
    /// difference is 64 MB.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_LIMIT]);
}

fn recv_now<T: DeserializeOwned>(fd: &OwnedFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    SCRATCH.with_borrow_mut(|buffer| {
        let mut space = [const { MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = retry_on_intr(|| {
            rustix::net::recvmsg(fd, &mut [IoSliceMut::new(buffer)], &mut control, flags)
        })?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        // Without room for a descriptor (EMFILE) the kernel drops it and says CTRUNC (unix(7)). The
        // message itself is whole, and a connection to a running container is worth more than
        // what came beside one answer: whoever needs the descriptor misses it there.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            fds.clear();
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a truncated message",
            ));
        }
        decode(&buffer[..received.bytes], fds).map(Some)
    })
}

fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    mut fds: Vec<OwnedFd>,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let len = match serde_json::from_slice::<Framed<T>>(bytes)? {
        Framed::Inline(message) => return Ok((message, fds)),
        Framed::Memfd(len) => len,
    };
    let memfd = fds
        .pop()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message without its memfd"))?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MESSAGE_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an oversized message",
        ));
    }
    let mut file = std::fs::File::from(memfd);
    file.rewind()?;
    let mut whole = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut whole)?;
    Ok((serde_json::from_slice(&whole)?, fds))
}
