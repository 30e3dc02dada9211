//! Writing to programs.
//!
//! A program that reads its pipe into memory on a file system that does not respond holds the pipe's lock,
//! and writing to the pipe blocks even in non-blocking mode (`pipe_write` in the kernel). So does closing the
//! last write end, and the last master of a terminal (`tty_ldisc_hangup`). Workers do both.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::{Answer, Job, Request, WorkerError, Workers};
use crate::asyncfd;

/// How long a worker may take to close its descriptor before it is abandoned.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait before trying to start another worker.
const AGAIN: Duration = Duration::from_secs(1);
/// The most bytes in one message to a worker, which writes every message separately.
pub(super) const PIECE: usize = 64 * 1024;

/// Why a program does not get its input.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The program has closed its standard input.
    #[error("the program has closed its standard input")]
    Unread,
    /// The worker failed; the program may still be waiting for input.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// A worker that writes to a program's standard input. When this is dropped, the worker stops writing and
/// closes its descriptor.
#[derive(Debug)]
pub struct Feed<H: Send + Sync + 'static> {
    /// The socket to the worker, and the worker; `None` once the worker is done.
    at_work: Option<(AsyncFd<OwnedFd>, Job<H>)>,
}

impl Workers {
    /// Gives this descriptor, in non-blocking mode, to a worker that writes to it. `held` is dropped when the
    /// worker is done.
    ///
    /// # Errors
    /// No worker could be started. One that is started later closes the descriptor.
    pub async fn feed<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        input: OwnedFd,
        held: H,
    ) -> Result<Feed<H>, WorkerError> {
        let handed_over = self.hand_over(&input, held).await;
        if handed_over.is_err() {
            let workers = self.clone();
            // Never close the last descriptor in the daemon: this thread could block for good.
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
        let (ours, theirs) = asyncfd::seqpacket_pair()?;
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
    /// Writes all bytes, as fast as the program reads.
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

    /// Waits until everything has been written. Nothing can be written afterwards.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn written(&mut self) -> Result<(), FeedError> {
        let Some((socket, job)) = &self.at_work else {
            return Err(FeedError::Unread);
        };
        // ENOTCONN: the worker has exited, and its answer says why.
        let _shut_down = rustix::net::shutdown(socket.get_ref(), Shutdown::Write);
        match job.answer().await {
            Ok(Answer::Ready) => Ok(()),
            answer => Err(self.ended(answer)),
        }
    }

    /// Waits until the worker stops writing, and returns why. Cancel-safe.
    pub async fn why_ended(&mut self) -> FeedError {
        match &self.at_work {
            Some((_, job)) => {
                let answer = job.answer().await;
                self.ended(answer)
            }
            None => FeedError::Unread,
        }
    }

    /// Interprets the worker's last answer.
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
