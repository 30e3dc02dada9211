//! Descriptors for the engine: the terminal, where the caller does not show it itself, and the process.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use littlebox_helper::build::Stdio;
use littlebox_protocol::TerminalSize;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::{Doing, Error, Result};
use crate::foreground;

/// An engine's socket that a descriptor is sent to, connected before anything is made.
#[derive(Debug)]
pub struct EngineSocket {
    socket: UnixStream,
    /// As the command line calls it.
    option: &'static str,
}

impl EngineSocket {
    /// Connects.
    pub fn connect(option: &'static str, path: &Path) -> Result<EngineSocket> {
        let socket = UnixStream::connect(path)
            .doing(|| format!("connect to {option} {}", path.display()))?;
        Ok(EngineSocket { socket, option })
    }

    /// Sends the master of a terminal, blocking as the receiver expects it.
    pub fn send_terminal(&self, master: &OwnedFd) -> Result<()> {
        let doing = || "make the terminal blocking".to_owned();
        let flags = fcntl_getfl(master).doing(doing)?;
        fcntl_setfl(master, flags - OFlags::NONBLOCK).doing(doing)?;
        // The bytes are what some receivers take for the terminal's name.
        self.send(b"/dev/ptmx", master)
    }

    /// Sends a process' descriptor. The bytes are those that runc sends with it.
    pub fn send_pidfd(&self, whose: PidfdOf, pidfd: &OwnedFd) -> Result<()> {
        let name: &[u8] = match whose {
            PidfdOf::Container => b"standard",
            PidfdOf::Exec => b"setns",
        };
        self.send(name, pidfd)
    }

    /// One message with one descriptor (`SCM_RIGHTS`, unix(7)).
    fn send(&self, bytes: &[u8], fd: &OwnedFd) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let message = [IoSlice::new(bytes)];
        retry_on_intr(|| sendmsg(&self.socket, &message, &mut control, SendFlags::NOSIGNAL))
            .map(drop)
            .doing(|| format!("send a descriptor to {}", self.option))
    }
}

/// Whose descriptor is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidfdOf {
    /// A container's first process.
    Container,
    /// A process that was started in it.
    Exec,
}

/// Connects to the socket of `--console-socket`, where a terminal is wanted whose master this process
/// will not keep. One that it keeps has the size of the caller's own from the beginning.
///
/// # Errors
/// A terminal that nobody would hold, or a socket that nothing would be sent to.
pub fn prepare(
    terminal: &mut Option<TerminalSize>,
    stays: bool,
    socket: Option<&Path>,
) -> Result<Option<EngineSocket>> {
    match (socket, terminal) {
        (Some(path), Some(_)) => EngineSocket::connect("--console-socket", path).map(Some),
        (Some(_), None) => Err(Error::Usage(
            "--console-socket is for a process with a terminal; process.terminal is false".into(),
        )),
        (None, Some(_)) if !stays => Err(Error::Usage(
            "a process with a terminal that is left alone needs --console-socket".into(),
        )),
        (None, Some(size)) => {
            *size = foreground::terminal_size().unwrap_or(*size);
            Ok(None)
        }
        (None, None) => Ok(None),
    }
}

/// The master among the ends of a program's stdio.
pub fn master(stdio: Option<Stdio>) -> Option<OwnedFd> {
    match stdio {
        Some(Stdio::Terminal(terminal)) => Some(terminal.into_master()),
        Some(Stdio::Pipes { .. }) | None => None,
    }
}
