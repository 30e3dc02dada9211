//! Closing terminals. Closing the last descriptor of a master blocks while a process is stuck writing to
//! the slave from memory on a file system that does not respond (`tty_ldisc_hangup` in the kernel).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Answer, Job, Request, WorkerError, Workers};

/// How long a worker has before it is left behind.
const PATIENCE: Duration = Duration::from_secs(1);
/// When it is tried again where there is no worker.
const AGAIN: Duration = Duration::from_secs(1);

impl Workers {
    /// Closes a descriptor of the daemon while a worker has it too, which closes it last.
    pub fn close(self: &Arc<Self>, descriptor: OwnedFd) {
        let workers = self.clone();
        self.runtime.spawn(async move {
            // Never close the last descriptor here: that could block this thread for good.
            let job = loop {
                match workers.keep(&descriptor).await {
                    Ok(job) => break job,
                    Err(error) => tracing::warn!(%error, "no worker can close a terminal yet"),
                }
                sleep(AGAIN).await;
            };
            drop(descriptor);
            if let Ok(Ok(())) = timeout(PATIENCE, job.ask(&Request::Close, &[])).await
                && let Ok(Ok(_closed)) = timeout(PATIENCE, job.answer()).await
            {
                job.done();
            }
        });
    }

    /// A worker that has this descriptor, too.
    async fn keep(self: &Arc<Self>, descriptor: &OwnedFd) -> Result<Job<()>, WorkerError> {
        let job = self.take(())?;
        job.ask(&Request::Keep, &[descriptor.as_fd()]).await?;
        match job.answer().await? {
            Answer::Ready => Ok(job),
            other => Err(WorkerError::unexpected(&other)),
        }
    }
}
