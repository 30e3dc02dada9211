//! The socket between the helper and the child that becomes the container.
//!
//! Its end is the news: the child's side is close-on-exec, so the helper sees it hang up when
//! `execve` has succeeded, or when the child has died. Whatever the child had to say lies in the
//! socket by then, so the helper is woken once.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::guard::Child;
use super::steps::Warnings;
use super::stream_ends::Terminal;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::{StepFailure, StepTiming};

/// The most bytes of one report; a longer list of timings is cut before it is sent.
const MESSAGE_LIMIT: usize = 128 * 1024;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromChild {
    /// All is mounted: the hooks of the host come now, and then a go.
    BeforePivot,
    /// The pty's master lies beside this.
    TerminalMaster,
    /// The pty's slave lies beside this.
    TerminalSlave,
    /// Another process goes on in its place, a child of the helper; its pidfd lies beside this.
    Forked {
        /// Its PID as the helper sees it.
        pid: u32,
    },
    /// All is done but `execve`.
    Ready {
        /// The child's steps.
        timings: Vec<StepTiming>,
        /// The child's warnings.
        warnings: Warnings,
    },
    /// A step failed; the child exits.
    Failed(StepFailure),
}

/// What the process between helper and child says (see [`super::spawn`]).
#[derive(Debug, Serialize, Deserialize)]
pub enum FromMiddle {
    /// The child's PID as the helper sees it; its pidfd lies beside this.
    Forked {
        /// The PID.
        pid: u32,
    },
    /// It did not come so far.
    Failed(StepFailure),
}

/// What the child came to first, where the helper waits for that.
#[derive(Debug)]
pub enum First {
    /// All is mounted, and the child waits for its go.
    BeforePivot,
    /// A step failed.
    Failed(StepFailure),
    /// Nothing more comes from it.
    End,
}

/// What the helper has read when the child's side hung up.
#[derive(Debug, Default)]
pub struct Heard {
    /// The pty's master.
    pub master: Option<OwnedFd>,
    /// The pty's slave.
    pub slave: Option<OwnedFd>,
    /// Who went on in its place.
    pub forked: Option<Child>,
    /// It came to `execve`.
    pub ready: bool,
    /// The child's steps.
    pub timings: Vec<StepTiming>,
    /// The child's warnings.
    pub warnings: Warnings,
    /// What failed.
    pub failure: Option<StepFailure>,
}

impl Heard {
    /// The program's terminal, to be taken over.
    pub fn terminal(&mut self) -> Option<Terminal> {
        let (master, slave) = (self.master.take()?, self.slave.take()?);
        Some(Terminal::new(master, slave))
    }
}

/// One end.
#[derive(Debug)]
pub struct Report(OwnedFd);

impl Report {
    /// The helper's end and the child's.
    pub fn pair() -> Result<(Report, Report), Fault> {
        let (ours, childs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .fault("socketpair")?;
        Ok((Report(ours), Report(childs)))
    }

    /// The child's side: says something. Fails with EPIPE when the helper is gone.
    pub fn say(&self, message: &FromChild, fd: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
        let json = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
        self.send(&json, fd)
    }

    /// The helper's side: lets a waiting child go on, with what it was waiting for. A child that has
    /// died already is no fault here: its own report, or its end, says why.
    ///
    /// # Errors
    /// The message is lost, and the child would wait for it for ever.
    pub fn go(&self, with: Option<BorrowedFd<'_>>) -> Result<(), Fault> {
        match self.send(b"go", with) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Fault::of("sendmsg", errno)),
        }
    }

    /// Another descriptor of the same end.
    pub fn duplicate(&self) -> Result<Report, Fault> {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&self.0, 0);
        duplicate.fault("fcntl(F_DUPFD_CLOEXEC)").map(Report)
    }

    /// The child's side: waits for [`Report::go`].
    pub fn wait_for_go(&self) -> Result<Option<OwnedFd>, Fault> {
        match self
            .receive(&mut [0; 2], RecvFlags::empty())
            .fault("recvmsg")?
        {
            (2, root) => Ok(root),
            _ => Err(Fault::refused("the helper has ended")),
        }
    }

    /// The helper's side: waits until the child has mounted everything; `None`: it took too long.
    pub fn wait_before_pivot(&self, deadline: Deadline) -> Result<Option<First>, Fault> {
        if !deadline.wait(self.as_fd(), PollFlags::IN)? {
            return Ok(None);
        }
        self.first().map(Some)
    }

    fn first(&self) -> Result<First, Fault> {
        let mut buffer = vec![0; MESSAGE_LIMIT];
        let (len, _) = match self.receive(&mut buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(First::End),
            other => other.fault("recvmsg")?,
        };
        match parse(&buffer[..len])? {
            FromChild::BeforePivot => Ok(First::BeforePivot),
            FromChild::Failed(failure) => Ok(First::Failed(failure)),
            FromChild::TerminalMaster
            | FromChild::TerminalSlave
            | FromChild::Forked { .. }
            | FromChild::Ready { .. } => {
                Err(Fault::refused("the child did not wait for the hooks"))
            }
        }
    }

    /// The helper's side: waits until the child has executed its program or died; `false`: it took
    /// too long.
    pub fn wait_for_end(&self, deadline: Deadline) -> Result<bool, Fault> {
        // No events asked for: POLLHUP alone wakes us, not each message.
        deadline.wait(self.as_fd(), PollFlags::empty())
    }

    /// The helper's side: what the process in between has to say.
    ///
    /// # Errors
    /// ETIMEDOUT when it says nothing.
    pub fn hear_middle(&self, deadline: Deadline) -> Result<(FromMiddle, Option<OwnedFd>), Fault> {
        if !deadline.wait(self.as_fd(), PollFlags::IN)? {
            return Err(Fault::of("poll", Errno::TIMEDOUT).because(format!(
                "a process in between has not answered within {}",
                deadline.limit()
            )));
        }
        let mut buffer = vec![0; 4096];
        let (len, fd) = self
            .receive(&mut buffer, RecvFlags::empty())
            .fault("recvmsg")?;
        let message = serde_json::from_slice(&buffer[..len])
            .map_err(|error| Fault::refused(format!("unreadable report: {error}")))?;
        Ok((message, fd))
    }

    /// The middle's side.
    ///
    /// # Errors
    /// The helper does not get it: it is gone, or sees this process' end instead. Whoever goes on
    /// must not.
    pub fn tell_helper(&self, message: &FromMiddle, fd: Option<&OwnedFd>) -> Result<(), Fault> {
        let json = serde_json::to_vec(message).map_err(|_| Fault::of("sendmsg", Errno::INVAL))?;
        self.send(&json, fd.map(AsFd::as_fd)).fault("sendmsg")
    }

    /// The helper's side: what the child has said so far.
    pub fn drain(&self) -> Result<Heard, Fault> {
        let mut heard = Heard::default();
        let mut buffer = vec![0; MESSAGE_LIMIT];
        loop {
            let (len, fd) = match self.receive(&mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::AGAIN) => return Ok(heard),
                // Told once, when the child died without having read its go; what it said
                // before still lies behind it.
                Err(Errno::CONNRESET) => continue,
                other => other.fault("recvmsg")?,
            };
            match parse(&buffer[..len])? {
                FromChild::BeforePivot => {}
                FromChild::TerminalMaster => heard.master = fd,
                FromChild::TerminalSlave => heard.slave = fd,
                FromChild::Forked { pid } => heard.forked = fd.map(|pidfd| Child { pid, pidfd }),
                FromChild::Ready { timings, warnings } => {
                    heard.ready = true;
                    heard.timings = timings;
                    heard.warnings = warnings;
                }
                FromChild::Failed(failure) => heard.failure = Some(failure),
            }
        }
    }

    fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(
                &self.0,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }

    fn receive(
        &self,
        buffer: &mut [u8],
        flags: RecvFlags,
    ) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        Ok((received.bytes, fd))
    }
}

fn parse(message: &[u8]) -> Result<FromChild, Fault> {
    serde_json::from_slice(message)
        .map_err(|error| Fault::refused(format!("unreadable report: {error}")))
}

impl From<OwnedFd> for Report {
    fn from(socket: OwnedFd) -> Report {
        Report(socket)
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_go_that_is_lost_is_a_fault_and_a_child_that_is_gone_is_none() {
        let (ours, childs) = Report::pair().unwrap();
        drop(childs);
        ours.go(None).unwrap();
        let no_socket = Report(File::open("/dev/null").unwrap().into());
        assert!(no_socket.go(None).unwrap_err().is(Errno::NOTSOCK));
    }
}
