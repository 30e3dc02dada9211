//! Input for programs. A program that reads its pipe into memory on a file system that does not respond
//! holds the lock of the pipe meanwhile, and a write blocks, non-blocking or not (`pipe_write` in the
//! kernel). So does closing the last descriptor, of a pipe as of a terminal's master
//! (`tty_ldisc_hangup`). Workers do both.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{Answer, Job, Request, WorkerError, Workers};

/// How long a worker has to close its descriptor before it is left behind.
const PATIENCE: Duration = Duration::from_secs(1);
/// When another worker is tried where none could be had.
const AGAIN: Duration = Duration::from_secs(1);

/// A worker that writes to a program's standard input. Dropped, the program gets nothing more, and the
/// worker closes its descriptor.
#[derive(Debug)]
pub struct Feed {
    /// The socket to the worker, and the worker. `None` only once it is dropped.
    at_work: Option<(UnixStream, Job<()>)>,
}

impl Workers {
    /// Has a worker write to this descriptor, which is in non-blocking mode.
    ///
    /// # Errors
    /// No worker can take it. It is closed when one can.
    pub async fn feed(self: &Arc<Self>, input: OwnedFd) -> Result<Feed, WorkerError> {
        match self.hand_over(&input).await {
            Ok(feed) => Ok(feed),
            Err(error) => {
                let workers = self.clone();
                // Never close the last descriptor here: that could block this thread for good.
                self.runtime.spawn(async move {
                    while workers.hand_over(&input).await.is_err() {
                        sleep(AGAIN).await;
                    }
                });
                Err(error)
            }
        }
    }

    async fn hand_over(self: &Arc<Self>, input: &OwnedFd) -> Result<Feed, WorkerError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let job = self.take(())?;
        job.ask(&Request::Feed, &[theirs.as_fd(), input.as_fd()])
            .await?;
        match job.answer().await? {
            Answer::Ready => Ok(Feed {
                at_work: Some((stream, job)),
            }),
            other => Err(WorkerError::unexpected(&other)),
        }
    }
}

impl Feed {
    /// Passes bytes on, as the program makes room.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WorkerError> {
        let (stream, _) = self.at_work.as_mut().ok_or_else(WorkerError::gone)?;
        Ok(stream.write_all(bytes).await?)
    }

    /// Waits until all of it is written. Nothing can be written after it.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn written(&mut self) -> Result<(), WorkerError> {
        let (stream, job) = self.at_work.as_mut().ok_or_else(WorkerError::gone)?;
        stream.shutdown().await?;
        match job.answer().await? {
            Answer::Ready => Ok(()),
            Answer::Done => {
                if let Some((_, job)) = self.at_work.take() {
                    job.done();
                }
                Err(WorkerError::gone())
            }
            other => Err(WorkerError::unexpected(&other)),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let Some((stream, job)) = self.at_work.take() else {
            return;
        };
        drop(stream);
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
