//! Input for programs. A program that reads its pipe into memory on a file system that does not respond
//! holds the lock of the pipe meanwhile, and a write blocks, non-blocking or not (`pipe_write` in the
//! kernel). So does closing the last descriptor, of a pipe as of a terminal's master
//! (`tty_ldisc_hangup`). Workers do both.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::{Answer, Job, Request, WorkerError, Workers};
use crate::asyncfd;

/// How long a worker has to close its descriptor before it is left behind.
const PATIENCE: Duration = Duration::from_secs(1);
/// When another worker is tried where none could be had.
const AGAIN: Duration = Duration::from_secs(1);
/// The most bytes of one message to a worker, which writes each by itself.
pub(super) const PIECE: usize = 64 * 1024;

/// Why input does not reach a program.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The program takes no more.
    #[error("nobody reads it any more")]
    Unread,
    /// The worker failed. The program may wait for more.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// A worker that writes to a program's standard input. Dropped, the program gets nothing more, and the
/// worker closes its descriptor.
#[derive(Debug)]
pub struct Feed<H: Send + Sync + 'static> {
    /// The socket to the worker, and the worker. `None` only once it has ended.
    at_work: Option<(AsyncFd<OwnedFd>, Job<H>)>,
}

impl Workers {
    /// Has a worker write to this descriptor, which is in non-blocking mode. Holds `held` for as long as
    /// it does.
    ///
    /// # Errors
    /// No worker can take it. It is closed when one can.
    pub async fn feed<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        input: OwnedFd,
        held: H,
    ) -> Result<Feed<H>, WorkerError> {
        let handed_over = self.hand_over(&input, held).await;
        if handed_over.is_err() {
            let workers = self.clone();
            // Never close the last descriptor here: that could block this thread for good.
            self.runtime.spawn(async move {
                while workers.hand_over(&input, ()).await.is_err() {
                    sleep(AGAIN).await;
                }
            });
        }
        handed_over
    }

    async fn hand_over<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        input: &OwnedFd,
        held: H,
    ) -> Result<Feed<H>, WorkerError> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
        let ours = asyncfd::watch(ours)?;
        let job = self.take(held)?;
        job.ask(&Request::Feed, &[theirs.as_fd(), input.as_fd()])
            .await?;
        match job.answer().await? {
            Answer::Ready => Ok(Feed {
                at_work: Some((ours, job)),
            }),
            other => Err(WorkerError::unexpected(&other)),
        }
    }
}

impl<H: Send + Sync + 'static> Feed<H> {
    /// Passes bytes on, as the program makes room.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        for piece in bytes.chunks(PIECE) {
            let Some((socket, _)) = &self.at_work else {
                return Err(FeedError::Unread);
            };
            if send(socket, piece).await.is_err() {
                return Err(self.why_ended().await);
            }
        }
        Ok(())
    }

    /// Waits until all of it is written. Nothing can be written after it.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn written(&mut self) -> Result<(), FeedError> {
        let Some((socket, job)) = &self.at_work else {
            return Err(FeedError::Unread);
        };
        // ENOTCONN: the worker has ended, and says why.
        let _shut_down = rustix::net::shutdown(socket.get_ref(), Shutdown::Write);
        match job.answer().await {
            Ok(Answer::Ready) => Ok(()),
            answer => Err(self.ended(answer)),
        }
    }

    /// Waits until nothing can be written any more. May be dropped and called again.
    pub async fn why_ended(&mut self) -> FeedError {
        match &self.at_work {
            Some((_, job)) => {
                let answer = job.answer().await;
                self.ended(answer)
            }
            None => FeedError::Unread,
        }
    }

    /// What the worker's last answer means.
    fn ended(&mut self, answer: Result<Answer, WorkerError>) -> FeedError {
        let at_work = self.at_work.take();
        match answer {
            Ok(Answer::Done) => {
                at_work.and_then(|(_, job)| job.done());
                FeedError::Unread
            }
            Ok(other) => WorkerError::unexpected(&other).into(),
            Err(error) => error.into(),
        }
    }
}

async fn send(socket: &AsyncFd<OwnedFd>, piece: &[u8]) -> io::Result<()> {
    loop {
        let mut ready = socket.writable().await?;
        let sent =
            ready.try_io(|socket| Ok(rustix::net::send(socket, piece, SendFlags::NOSIGNAL)?));
        match sent {
            Ok(sent) => return sent.map(drop),
            Err(_would_block) => {}
        }
    }
}

impl<H: Send + Sync + 'static> Drop for Feed<H> {
    fn drop(&mut self) {
        let Some((socket, job)) = self.at_work.take() else {
            return;
        };
        drop(socket);
        let runtime = job.workers.runtime.clone();
        runtime.spawn(async move {
            let closed = async {
                while !matches!(job.answer().await?, Answer::Done) {}
                Ok::<(), WorkerError>(())
            };
            if let Ok(Ok(())) = timeout(PATIENCE, closed).await {
                job.done();
            }
        });
    }
}
