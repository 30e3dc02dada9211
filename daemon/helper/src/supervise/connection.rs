//! A daemon's connection to this helper.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Deserialize;
use serde_json::value::RawValue;

use littlebox_protocol::channel::{self, ChannelError, Datagram, Outbox, Received, Wait};
use littlebox_protocol::{Event, FromHelper, Reply, Request};

/// What came in on a connection.
#[derive(Debug)]
pub enum Incoming {
    /// A request. No request brings descriptors.
    Request(Request),
    /// A request that this helper does not know: the daemon is newer than it is.
    Unknown {
        /// The request's number.
        seq: u64,
    },
    /// Nothing for now.
    Nothing,
    /// The daemon is gone, or does not speak this protocol.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Never used twice in the life of a helper.
    pub id: u64,
    socket: OwnedFd,
    outbox: Outbox,
}

/// The part of a request that every version has.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Connection {
    /// Takes a connected socket over.
    pub fn new(id: u64, socket: OwnedFd) -> Self {
        Self {
            id,
            socket,
            outbox: Outbox::default(),
        }
    }

    /// The socket, to be watched.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next request.
    pub fn receive(&self) -> Incoming {
        let raw = match channel::receive::<Box<RawValue>>(self.socket(), Wait::DontWait) {
            Ok(Received::Message(raw, _)) => raw,
            Ok(Received::NothingYet) => return Incoming::Nothing,
            Ok(Received::Closed) | Err(_) => return Incoming::Closed,
        };
        if let Ok(request) = serde_json::from_str(raw.get()) {
            return Incoming::Request(request);
        }
        match serde_json::from_str(raw.get()) {
            Ok(Numbered { seq }) => Incoming::Unknown { seq },
            Err(_) => Incoming::Closed,
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn reply(&mut self, seq: u64, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        self.send(&FromHelper::Reply { seq, reply }, fds)
    }

    /// Tells what happened.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn tell(&mut self, event: &Event) -> Result<(), ChannelError> {
        self.send(&FromHelper::Event(event.clone()), Vec::new())
    }

    fn send(&mut self, message: &FromHelper, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        let datagram = Datagram::encode(message)?;
        self.outbox.push(self.socket.as_fd(), datagram, fds)
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        self.outbox.flush(self.socket.as_fd())
    }
}
