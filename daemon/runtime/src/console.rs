//! Terminals: handed to an engine's socket, or shown on the caller's own.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use littlebox_helper::build::Stdio;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::{Doing, Error, Result};

/// An engine's socket, connected before anything is made.
#[derive(Debug)]
pub struct ConsoleSocket(UnixStream);

impl ConsoleSocket {
    /// Connects.
    pub fn connect(path: &Path) -> Result<ConsoleSocket> {
        UnixStream::connect(path)
            .map(ConsoleSocket)
            .doing(|| format!("connect to the console socket {}", path.display()))
    }

    /// Sends the master (`SCM_RIGHTS`, unix(7)), blocking as the receiver expects it.
    pub fn send(&self, master: &OwnedFd) -> Result<()> {
        let doing = || "send the terminal to the console socket".to_owned();
        let flags = fcntl_getfl(master).doing(doing)?;
        fcntl_setfl(master, flags - OFlags::NONBLOCK).doing(doing)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [master.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        // The bytes are what some receivers take for the terminal's name.
        let name = [IoSlice::new(b"/dev/ptmx")];
        sendmsg(&self.0, &name, &mut control, SendFlags::NOSIGNAL).doing(doing)?;
        Ok(())
    }
}

/// The socket, where a terminal is wanted whose master this process will not keep.
///
/// # Errors
/// A terminal that nobody would hold, or a socket that nothing would be sent to.
pub fn socket_for(
    terminal: bool,
    stays: bool,
    socket: Option<&Path>,
) -> Result<Option<ConsoleSocket>> {
    match socket {
        Some(path) if terminal => ConsoleSocket::connect(path).map(Some),
        Some(_) => Err(Error::Usage(
            "--console-socket is for a process with a terminal; process.terminal is false".into(),
        )),
        None if terminal && !stays => Err(Error::Usage(
            "a process with a terminal that is left alone needs --console-socket".into(),
        )),
        None => Ok(None),
    }
}

/// The master among the ends of a program's stdio.
pub fn master(stdio: Option<Stdio>) -> Option<OwnedFd> {
    match stdio {
        Some(Stdio::Terminal { master }) => Some(master),
        Some(Stdio::Pipes { .. }) | None => None,
    }
}
