//! The ends of a program's standard streams that the helper holds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::Winsize;

use super::clock;
use super::log::LogWriter;
use crate::build::{InputPipe, Stdio, Terminal};
use littlebox_protocol::{LogStream, TerminalSize};

/// Bytes of output that are read before they are written to the log: what a pipe holds.
const READ_LIMIT: usize = 64 * 1024;

/// Scratch space that every program of this helper shares; one of them is served at a time.
#[derive(Debug, Default)]
pub struct Buffers {
    read: Vec<u8>,
    batch: Vec<u8>,
}

impl Buffers {
    /// Gives the memory back; it comes again with the next output.
    pub fn release(&mut self) {
        *self = Self::default();
    }
}

/// What a look at a stream found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// Output, now in the log.
    Data,
    /// Nothing for now.
    Nothing,
    /// Nothing ever again; the stream is closed.
    End,
}

/// The streams of one program.
#[derive(Debug)]
pub enum Streams {
    /// Three pipes, each until it has ended.
    Pipes {
        /// The write end of stdin.
        stdin: Option<InputPipe>,
        /// The read end of stdout.
        stdout: Option<OwnedFd>,
        /// The read end of stderr.
        stderr: Option<OwnedFd>,
    },
    /// A pseudo terminal; all its output is stdout.
    Terminal {
        /// Both ends.
        terminal: Terminal,
        /// Whether clients may type.
        typing: bool,
        /// Whether output may still come.
        open: bool,
    },
}

/// Why a request about stdin or a terminal is refused.
#[derive(Debug)]
pub enum StreamError {
    /// Not possible for this program; the sentence says why.
    Refused(&'static str),
    /// A system call failed.
    Io(&'static str, Errno),
}

impl Streams {
    /// Takes over what the builder made. `typing`: whether clients may write to stdin.
    pub fn new(stdio: Stdio, typing: bool) -> Self {
        match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => Self::Pipes {
                stdin: stdin.map(InputPipe::from),
                stdout: Some(stdout),
                stderr: Some(stderr),
            },
            Stdio::Terminal(terminal) => Self::Terminal {
                terminal,
                typing,
                open: true,
            },
        }
    }

    /// The streams from which output may still come.
    pub fn outputs(&self) -> impl Iterator<Item = (LogStream, BorrowedFd<'_>)> {
        let (out, err) = match self {
            Self::Pipes { stdout, stderr, .. } => (
                stdout.as_ref().map(AsFd::as_fd),
                stderr.as_ref().map(AsFd::as_fd),
            ),
            Self::Terminal { terminal, open, .. } => (open.then(|| terminal.as_fd()), None),
        };
        let out = out.map(|fd| (LogStream::Stdout, fd));
        let err = err.map(|fd| (LogStream::Stderr, fd));
        out.into_iter().chain(err)
    }

    /// Whether all output has come.
    pub fn ended(&self) -> bool {
        self.outputs().next().is_none()
    }

    /// The program has ended: its output ends once nobody else has its streams.
    pub fn program_ended(&mut self) {
        if let Self::Terminal { terminal, .. } = self {
            terminal.let_go();
        }
    }

    /// Closes what a stream still has.
    pub fn close_output(&mut self, stream: LogStream) {
        match (self, stream) {
            (Self::Pipes { stdout, .. }, LogStream::Stdout) => *stdout = None,
            (Self::Pipes { stderr, .. }, LogStream::Stderr) => *stderr = None,
            (Self::Terminal { open, .. }, LogStream::Stdout | LogStream::Stderr) => *open = false,
        }
    }

    /// Reads once what a stream has, up to [`READ_LIMIT`], and logs it.
    pub fn pump(
        &mut self,
        stream: LogStream,
        buffers: &mut Buffers,
        log: &mut LogWriter,
    ) -> Pumped {
        let terminal = matches!(self, Self::Terminal { .. });
        let Some((_, fd)) = self.outputs().find(|(which, _)| *which == stream) else {
            return Pumped::End;
        };
        let Buffers { read, batch } = buffers;
        read.clear();
        read.reserve_exact(READ_LIMIT);
        let end = fill(fd, read, terminal);
        if end {
            self.close_output(stream);
        }
        if !read.is_empty() {
            log.append(batch, stream, read, clock::realtime_ns());
            return Pumped::Data;
        }
        if end { Pumped::End } else { Pumped::Nothing }
    }

    /// A duplicate of the descriptor that clients write stdin to.
    ///
    /// # Errors
    /// [`StreamError::Refused`] where stdin is not open to clients.
    pub fn open_stdin(&self) -> Result<OwnedFd, StreamError> {
        let fd = match self {
            Self::Pipes { stdin, .. } => {
                stdin.as_ref().map(AsFd::as_fd).ok_or(StreamError::Refused(
                    "stdin is not open: it was not asked for at the start, or it was closed",
                ))?
            }
            Self::Terminal { typing: false, .. } => {
                return Err(StreamError::Refused(
                    "the terminal takes no input: stdin was not asked for at the start",
                ));
            }
            Self::Terminal { terminal, .. } => terminal.as_fd(),
        };
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|errno| StreamError::Io("fcntl", errno))
    }

    /// Ends stdin: the helper's write end is closed; at a terminal the end-of-file character is
    /// typed (termios(3), VEOF), because a master that is closed would hang the session up.
    ///
    /// # Errors
    /// [`StreamError::Refused`] at a terminal without input, and what the terminal says.
    pub fn close_stdin(&mut self) -> Result<(), StreamError> {
        match self {
            // The daemon holds a duplicate until it has the reply.
            Self::Pipes { stdin, .. } => drop(stdin.take().map(InputPipe::close_here)),
            Self::Terminal { typing: false, .. } => {
                return Err(StreamError::Refused(
                    "the terminal takes no input: stdin was not asked for at the start",
                ));
            }
            Self::Terminal { terminal, .. } => terminal
                .type_end_of_file()
                .map_err(|errno| StreamError::Io("write", errno))?,
        }
        Ok(())
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// [`StreamError::Refused`] without a terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<(), StreamError> {
        let Self::Terminal { terminal, .. } = self else {
            return Err(StreamError::Refused("the program has no terminal"));
        };
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let set = terminal.set_size(size);
        set.map_err(|errno| StreamError::Io("ioctl TIOCSWINSZ", errno))
    }
}

/// Reads into `buf` what is there; returns whether the stream has ended. A pipe gives all it has
/// at once, a terminal at most a page per read (n_tty), so there one read is followed by others.
fn fill(fd: BorrowedFd<'_>, buf: &mut Vec<u8>, terminal: bool) -> bool {
    while buf.len() < buf.capacity() {
        match retry_on_intr(|| rustix::io::read(fd, spare_capacity(buf))) {
            Ok(0) => return true,
            Ok(_) if terminal => {}
            Ok(_) | Err(Errno::AGAIN) => return false,
            // A master reads EIO when nobody holds the terminal any more (pty(7)).
            Err(_) => return true,
        }
    }
    false
}
