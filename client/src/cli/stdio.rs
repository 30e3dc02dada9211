//! Our own stdin, stdout and stderr in the event loop, without touching their file status flags:
//! they are shared with other processes, which `O_NONBLOCK` would confuse.
//!
//! A descriptor that epoll(7) refuses (a regular file, `/dev/null`) never blocks for long and is
//! used directly. Any other is asked with poll(2) first; a pipe that is writable takes 4096 bytes
//! (`PIPE_BUF`) without blocking.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const PIPE_BUF: usize = 4096;
const READ_SIZE: usize = 16 * 1024;

/// One of the three.
#[derive(Debug)]
struct Stream {
    fd: BorrowedFd<'static>,
    interest: Interest,
    registered: Registered,
}

#[derive(Debug)]
enum Registered {
    NotYet,
    Epoll(AsyncFd<BorrowedFd<'static>>),
    /// epoll refuses it.
    Direct,
}

impl Stream {
    fn new(fd: BorrowedFd<'static>, interest: Interest) -> Self {
        Self {
            fd,
            interest,
            registered: Registered::NotYet,
        }
    }

    /// Whether a call would not block now, or would only fail.
    fn ready_now(&self) -> io::Result<bool> {
        let flags = if self.interest.is_readable() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        let mut fds = [PollFd::new(&self.fd, flags)];
        match poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        ) {
            Ok(n) => Ok(n > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that may close their descriptor; \
                  a BorrowedFd<'static> of 0, 1 or 2 stays open and the same"
    )]
    fn register(&self) -> Registered {
        match AsyncFd::with_interest(self.fd, self.interest) {
            Ok(async_fd) => Registered::Epoll(async_fd),
            Err(_refused) => Registered::Direct,
        }
    }

    /// Waits until a call does not block. Registers with epoll only when it has to wait.
    async fn ready(&mut self) -> io::Result<()> {
        loop {
            if matches!(self.registered, Registered::Direct) || self.ready_now()? {
                return Ok(());
            }
            if matches!(self.registered, Registered::NotYet) {
                self.registered = self.register();
            }
            if let Registered::Epoll(async_fd) = &self.registered {
                let mut guard = async_fd.ready(self.interest).await?;
                // Edge-triggered: another event must come before this is awaited again in vain.
                if !self.ready_now()? {
                    guard.clear_ready();
                }
            }
        }
    }
}

/// Our stdin.
#[derive(Debug)]
pub struct Stdin(Stream);

impl Stdin {
    /// Opens nothing yet.
    pub fn new() -> Self {
        Self(Stream::new(rustix::stdio::stdin(), Interest::READABLE))
    }

    /// What there is, 16 KiB at most; empty at the end. Dropping the future loses nothing.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            self.0.ready().await?;
            let mut buffer = vec![0; READ_SIZE];
            match rustix::io::read(self.0.fd, &mut buffer) {
                Ok(n) => {
                    buffer.truncate(n);
                    return Ok(buffer);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // A terminal that has gone.
                Err(Errno::IO) => return Ok(Vec::new()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Our stdout or stderr.
#[derive(Debug)]
pub struct Output {
    stream: Stream,
    /// Bytes that one write takes without blocking, once it is writable.
    piece: usize,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(rustix::stdio::stdout())
    }

    /// Standard error.
    pub fn stderr() -> Self {
        Self::new(rustix::stdio::stderr())
    }

    fn new(fd: BorrowedFd<'static>) -> Self {
        let regular = rustix::fs::fstat(fd).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        });
        let piece = if regular { usize::MAX } else { PIPE_BUF };
        let mut stream = Stream::new(fd, Interest::WRITABLE);
        if regular {
            stream.registered = Registered::Direct;
        }
        Self { stream, piece }
    }

    /// Writes everything. A dropped future may have written a part.
    pub async fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.stream.ready().await?;
            match rustix::io::write(self.stream.fd, &data[..data.len().min(self.piece)]) {
                Ok(n) => data = &data[n..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
