//! Messages on a `SOCK_SEQPACKET` socket: one message, one datagram, descriptors beside it.
//!
//! Every connection uses this, blocking or not, at both ends. The receiver asks for a datagram's length first
//! (`MSG_PEEK|MSG_TRUNC`, recv(2)) and refuses what is too long, so that nobody keeps a large buffer for
//! messages that are mostly small.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Framed, INLINE_LIMIT, MAX_FDS, MESSAGE_LIMIT};

/// Bytes of the largest datagram: [`INLINE_LIMIT`] and the frame around it.
const DATAGRAM_LIMIT: usize = INLINE_LIMIT + 64;

/// Why a message could not be sent or received. A connection on which this happened is of no
/// further use: messages may be missing on it.
#[derive(Debug)]
pub enum ChannelError {
    /// A system call failed.
    Io {
        /// Which.
        syscall: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The message, its datagram or its memfd has this many bytes, more than the protocol allows.
    TooLarge(u64),
    /// More descriptors to send than the protocol allows.
    TooManyFds,
    /// The message should be in a memfd, but none of that size came with it; this process may be out of
    /// descriptors.
    NoMemfd,
    /// The peer has left too many messages unread.
    Overflow,
    /// The bytes are no message.
    Json(serde_json::Error),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::Io { syscall, errno } => write!(f, "{syscall}: {errno}"),
            ChannelError::TooLarge(bytes) => {
                write!(
                    f,
                    "message of {bytes} bytes: at most {INLINE_LIMIT} fit in a datagram, {MESSAGE_LIMIT} in a memfd"
                )
            }
            ChannelError::TooManyFds => f.write_str("too many descriptors beside a message"),
            ChannelError::NoMemfd => f.write_str("the memfd of a large message is missing"),
            ChannelError::Overflow => f.write_str("the peer has stopped reading"),
            ChannelError::Json(error) => write!(f, "not a message: {error}"),
        }
    }
}

impl From<ChannelError> for std::io::Error {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Io { errno, .. } => errno.into(),
            ChannelError::TooLarge(_) => Self::new(std::io::ErrorKind::InvalidInput, error),
            other => Self::new(std::io::ErrorKind::InvalidData, other),
        }
    }
}

impl std::error::Error for ChannelError {}

impl ChannelError {
    /// Whether the peer is gone: there is nobody that waits for the message.
    pub fn is_hang_up(&self) -> bool {
        match self {
            ChannelError::Io { errno, .. } => matches!(*errno, Errno::PIPE | Errno::CONNRESET),
            _ => false,
        }
    }
}

/// Makes [`ChannelError::Io`] of a failed system call.
fn failed(syscall: &'static str) -> impl Fn(Errno) -> ChannelError {
    move |errno| ChannelError::Io { syscall, errno }
}

/// Makes [`ChannelError::Io`] of a failed file operation on a memfd.
fn memfd_failed(error: std::io::Error) -> ChannelError {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    ChannelError::Io {
        syscall: "memfd",
        errno,
    }
}

/// Whether a call may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is done.
    Block,
    /// Never.
    DontWait,
}

/// What a receive call found.
#[derive(Debug)]
pub enum Received<T> {
    /// A message and the descriptors beside it, all close-on-exec.
    Message(T, Vec<OwnedFd>),
    /// The peer is gone.
    Closed,
    /// Nothing is there yet (only with [`Wait::DontWait`]).
    NothingYet,
}

/// A message ready to be sent.
#[derive(Debug)]
pub struct Datagram {
    bytes: Vec<u8>,
    /// What is too large for the datagram itself.
    memfd: Option<OwnedFd>,
}

impl Datagram {
    /// Encodes `body`, into a memfd when it is large.
    ///
    /// # Errors
    /// [`ChannelError::TooLarge`] over [`MESSAGE_LIMIT`], and what memfd_create(2) says.
    pub fn encode<T: Serialize>(body: &T) -> Result<Self, ChannelError> {
        let bytes = serde_json::to_vec(&Framed::Inline(body)).map_err(ChannelError::Json)?;
        if bytes.len() <= INLINE_LIMIT {
            return Ok(Self { bytes, memfd: None });
        }
        let body = serde_json::to_vec(body).map_err(ChannelError::Json)?;
        if body.len() > MESSAGE_LIMIT {
            return Err(ChannelError::TooLarge(body.len() as u64));
        }
        let bytes = serde_json::to_vec(&Framed::<()>::Memfd(body.len() as u64))
            .map_err(ChannelError::Json)?;
        Ok(Self {
            bytes,
            memfd: Some(memfd_of(&body)?),
        })
    }

    /// Sends it with these descriptors; `false` when the socket is full (only with [`Wait::DontWait`]).
    ///
    /// # Errors
    /// [`ChannelError::TooManyFds`] over [`MAX_FDS`], and sendmsg(2): `EPIPE` when the peer is gone.
    pub fn send(
        &self,
        socket: BorrowedFd<'_>,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<bool, ChannelError> {
        if fds.len() > MAX_FDS {
            return Err(ChannelError::TooManyFds);
        }
        let memfd = self.memfd.iter().map(AsFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = fds.iter().copied().chain(memfd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(ChannelError::TooManyFds);
        }
        let mut flags = SendFlags::NOSIGNAL;
        if wait == Wait::DontWait {
            flags |= SendFlags::DONTWAIT;
        }
        let iov = [IoSlice::new(&self.bytes)];
        match retry_on_intr(|| sendmsg(socket, &iov, &mut control, flags)) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(failed("sendmsg")(errno)),
        }
    }
}

/// A memfd with these bytes.
fn memfd_of(bytes: &[u8]) -> Result<OwnedFd, ChannelError> {
    let memfd =
        memfd_create("littlebox-message", MemfdFlags::CLOEXEC).map_err(failed("memfd_create"))?;
    let mut file = File::from(memfd);
    file.write_all(bytes).map_err(memfd_failed)?;
    Ok(file.into())
}

/// Sends one message and waits until the socket took it.
///
/// # Errors
/// As [`Datagram::encode`], and sendmsg(2): `EPIPE` when the peer is gone.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    body: &T,
    fds: Vec<OwnedFd>,
) -> Result<(), ChannelError> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    Datagram::encode(body)?
        .send(socket, &fds, Wait::Block)
        .map(|_| ())
}

/// Receives one message. If this process is out of descriptors, the message arrives without any: losing
/// them is better than losing the connection.
///
/// # Errors
/// Whatever does not keep to the protocol's limits or is no message of this type, and what
/// recvmsg(2) says. A reset connection counts as closed.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    wait: Wait,
) -> Result<Received<T>, ChannelError> {
    let flags = match wait {
        Wait::Block => RecvFlags::empty(),
        Wait::DontWait => RecvFlags::DONTWAIT,
    };
    let len = match peek_len(socket, flags) {
        Ok(0) | Err(Errno::CONNRESET) => return Ok(Received::Closed),
        Ok(len) => len,
        Err(Errno::AGAIN) => return Ok(Received::NothingYet),
        Err(errno) => return Err(failed("recv")(errno)),
    };
    if len > DATAGRAM_LIMIT {
        return Err(ChannelError::TooLarge(len as u64));
    }
    let mut bytes = vec![0; len];
    let mut fds = receive_datagram(socket, &mut bytes)?;
    match serde_json::from_slice(&bytes).map_err(ChannelError::Json)? {
        Framed::Inline(body) => Ok(Received::Message(body, fds)),
        Framed::Memfd(len) => {
            drop(bytes);
            let body = read_memfd(fds.pop(), len)?;
            let body = serde_json::from_slice(&body).map_err(ChannelError::Json)?;
            Ok(Received::Message(body, fds))
        }
    }
}

/// The length of the next datagram, which stays in the socket.
fn peek_len(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<usize, Errno> {
    let mut none = [0u8; 0];
    let flags = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
    retry_on_intr(|| recv(socket, &mut none, flags)).map(|(_, len)| len)
}

/// Takes the datagram that [`peek_len`] saw; returns its descriptors.
fn receive_datagram(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<Vec<OwnedFd>, ChannelError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = retry_on_intr(|| recvmsg(socket, &mut iov, &mut control, flags))
        .map_err(failed("recvmsg"))?;
    let mut fds = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(ChannelError::TooLarge(message.bytes as u64));
    }
    // The kernel drops descriptors that do not fit in this process' table (EMFILE; unix(7)).
    if message.flags.contains(ReturnFlags::CTRUNC) {
        fds.clear();
    }
    Ok(fds)
}

/// The bytes of a large message.
fn read_memfd(memfd: Option<OwnedFd>, len: u64) -> Result<Vec<u8>, ChannelError> {
    let memfd = memfd.ok_or(ChannelError::NoMemfd)?;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= MESSAGE_LIMIT)
        .ok_or(ChannelError::TooLarge(len))?;
    // The sender shares the offset with us and left it at the end.
    rustix::fs::seek(&memfd, rustix::fs::SeekFrom::Start(0)).map_err(failed("lseek"))?;
    let mut bytes = Vec::with_capacity(len);
    File::from(memfd)
        .take(len as u64)
        .read_to_end(&mut bytes)
        .map_err(memfd_failed)?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(ChannelError::NoMemfd)
    }
}

/// What waits to be sent on one connection: bounded, so that a peer that does not read cannot make
/// this process grow.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<(Datagram, Vec<OwnedFd>)>,
    bytes: usize,
}

/// The most bytes, and messages (they may carry descriptors), that wait on one connection.
const OUTBOX_LIMIT: usize = 1024 * 1024;
const OUTBOX_MESSAGES: usize = 256;

impl Outbox {
    /// Sends what the socket takes now and keeps the rest.
    ///
    /// # Errors
    /// sendmsg(2) failed, or the peer has left too much unread: the connection is to be dropped.
    pub fn push(
        &mut self,
        socket: BorrowedFd<'_>,
        datagram: Datagram,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        self.bytes += datagram.bytes.len();
        self.queue.push_back((datagram, fds));
        self.flush(socket)?;
        if self.bytes > OUTBOX_LIMIT || self.queue.len() > OUTBOX_MESSAGES {
            return Err(ChannelError::Overflow);
        }
        Ok(())
    }

    /// Sends what the socket takes now.
    ///
    /// # Errors
    /// sendmsg(2) failed: the connection is to be dropped.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), ChannelError> {
        while let Some((datagram, fds)) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            if !datagram.send(socket, &fds, Wait::DontWait)? {
                break;
            }
            self.bytes -= datagram.bytes.len();
            self.queue.pop_front();
        }
        Ok(())
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
