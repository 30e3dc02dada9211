//! Bytes between the caller's stdio and the terminal of a program, in both directions at once.
//!
//! Nothing here waits: neither side may read, and a side that does not read must not keep the other
//! direction, or a signal, from getting through.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{isatty, tcgetwinsize, tcsetwinsize};

use crate::error::{Doing, Result};

/// The most bytes that are on their way in one direction.
const BUFFER: usize = 16 * 1024;

/// More than a terminal holds (a flip buffer of 64 KiB and the line discipline's 4). What comes
/// after that was printed after the program's end, by processes that it has left behind.
const LEFT_BEHIND: usize = 128 * 1024;

/// The relay.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Keeps the terminal from hanging up while no process has it open. See [`Relay::hold_open`].
    peer: Option<OwnedFd>,
    stdin: Stream,
    stdout: Stream,
    input: Flow,
    output: Flow,
    /// What may still be read after the program's end.
    left: Option<usize>,
}

/// Bytes on their way in one direction. They are read when all that was read before is written.
#[derive(Debug, Default)]
struct Flow {
    bytes: Vec<u8>,
    /// Nothing more is read.
    ended: bool,
    /// Nobody takes them any more: what comes is dropped.
    refused: bool,
}

/// One of the caller's descriptors, for reading or writing without waiting.
#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    is_socket: bool,
}

/// What poll(2) was asked about, for [`Relay::serve`].
#[derive(Debug, Default)]
pub struct Asked {
    stdin: Option<usize>,
    stdout: Option<usize>,
    master: Option<usize>,
}

impl Relay {
    /// Between this process' stdin and stdout and the terminal of a non-blocking master.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(master: OwnedFd) -> Result<Relay> {
        let stream = |fd, flags| Stream::open(fd, flags).doing(|| "open stdio".to_owned());
        Ok(Relay {
            master,
            peer: None,
            stdin: stream(std::io::stdin().as_fd(), OFlags::RDONLY)?,
            stdout: stream(std::io::stdout().as_fd(), OFlags::WRONLY)?,
            input: Flow::default(),
            output: Flow::default(),
            left: None,
        })
    }

    /// Adds what is waited for.
    pub fn ask<'f>(&'f self, fds: &mut Vec<PollFd<'f>>) -> Asked {
        let mut add = |fd: BorrowedFd<'f>, events: PollFlags| {
            // Without an event asked for, a descriptor that has hung up would wake us for ever.
            (!events.is_empty()).then(|| {
                fds.push(PollFd::from_borrowed_fd(fd, events));
                fds.len() - 1
            })
        };
        let when = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let master = when(self.output.wants_input(), PollFlags::IN)
            | when(self.input.wants_output(), PollFlags::OUT);
        Asked {
            stdin: add(
                self.stdin.fd.as_fd(),
                when(self.input.wants_input(), PollFlags::IN),
            ),
            stdout: add(
                self.stdout.fd.as_fd(),
                when(self.output.wants_output(), PollFlags::OUT),
            ),
            master: add(self.master.as_fd(), master),
        }
    }

    /// Moves what can be moved; `ready` tells what poll(2) said of each descriptor.
    pub fn serve(&mut self, asked: &Asked, ready: &[PollFlags]) {
        let is_ready = |index: Option<usize>| index.is_some_and(|i| !ready[i].is_empty());
        if is_ready(asked.stdin) {
            match self.input.fill(BUFFER, |buffer| self.stdin.read(buffer)) {
                Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) | Err(_) => self.input.ended = true,
            }
        }
        if is_ready(asked.master) {
            if self.output.wants_input() {
                self.read_master();
            }
            if self.input.wants_output() {
                self.write_master();
            }
        }
        if is_ready(asked.stdout) {
            self.write_stdout();
        }
    }

    fn read_master(&mut self) {
        let most = self.left.unwrap_or(BUFFER).min(BUFFER);
        let read = self
            .output
            .fill(most, |buffer| rustix::io::read(&self.master, buffer));
        match (read, &mut self.left) {
            (Ok(n), Some(left)) if n > 0 && n < *left => *left -= n,
            // All that was there has come, or it would never end.
            (_, Some(_)) => self.output.ended = true,
            (Ok(1..) | Err(Errno::AGAIN | Errno::INTR), None) => {}
            (Err(Errno::IO), None) => self.hold_open(),
            (Ok(_) | Err(_), None) => self.give_up(),
        }
    }

    fn write_master(&mut self) {
        match rustix::io::write(&self.master, &self.input.bytes) {
            Ok(n) => drop(self.input.bytes.drain(..n)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::IO) => self.hold_open(),
            Err(_) => self.give_up(),
        }
    }

    fn write_stdout(&mut self) {
        match self.stdout.write(&self.output.bytes) {
            Ok(n) => drop(self.output.bytes.drain(..n)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A caller that reads no more loses the output, as with any program.
            Err(_) => {
                self.output.refused = true;
                self.output.bytes.clear();
            }
        }
    }

    /// No process has the terminal open (EIO, pty(7)): the program may have closed it for good, or
    /// may open it again, and nothing tells when. An open end of our own keeps it from hanging up,
    /// so that what is read then comes from who opened it again.
    fn hold_open(&mut self) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        match ioctl_tiocgptpeer(&self.master, flags) {
            Ok(peer) => self.peer = Some(peer),
            Err(_) => self.give_up(),
        }
    }

    /// Nothing more can be done with the terminal.
    fn give_up(&mut self) {
        self.output.ended = true;
        self.input.ended = true;
        self.input.bytes.clear();
    }

    /// The program has ended: no more is typed, and what it has printed is passed on. Tells whether
    /// all was.
    pub fn finish(&mut self) -> bool {
        if self.left.is_none() {
            self.input.ended = true;
            self.input.bytes.clear();
            self.left = Some(LEFT_BEHIND);
        }
        // Without asking poll(2), which says nothing of a terminal that is empty.
        while self.output.wants_input() {
            self.read_master();
        }
        self.output.bytes.is_empty()
    }

    /// Gives the terminal the size of the caller's.
    pub fn resize(&self) {
        // Without a terminal of its own the caller has no size to pass on.
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }
}

impl Flow {
    fn wants_input(&self) -> bool {
        !self.ended && self.bytes.is_empty()
    }

    fn wants_output(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Reads once, at most this much.
    fn fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<usize> {
        self.bytes.resize(most, 0);
        let read = read(&mut self.bytes);
        let kept = if self.refused { 0 } else { read.unwrap_or(0) };
        self.bytes.truncate(kept);
        read
    }
}

impl Stream {
    /// A terminal or pipe is opened anew, because whether it blocks would else be changed for all
    /// who share it (fcntl(2), `O_NONBLOCK`); files never block, and sockets are told each time.
    fn open(fd: BorrowedFd<'_>, access: OFlags) -> rustix::io::Result<Stream> {
        let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let anew = match kind == FileType::Fifo || isatty(fd) {
            true => open(&name, flags, Mode::empty()).ok(),
            false => None,
        };
        Ok(Stream {
            // A pipe without a reader cannot be opened; nor does writing to it block.
            fd: anew.map_or_else(|| fcntl_dupfd_cloexec(fd, 3), Ok)?,
            is_socket: kind == FileType::Socket,
        })
    }

    fn read(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        if self.is_socket {
            return recv(&self.fd, buffer, RecvFlags::DONTWAIT).map(|(n, _)| n);
        }
        rustix::io::read(&self.fd, buffer)
    }

    fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.is_socket {
            return send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        rustix::io::write(&self.fd, bytes)
    }
}
