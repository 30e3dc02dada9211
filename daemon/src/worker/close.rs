//! Closing what may hold up whoever closes it last: the master of a terminal, while a process writes to
//! the other end from memory on a file system that does not answer (`tty_ldisc_hangup` in the kernel).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Request, WorkerError, Workers};

/// How long a worker has before it is left behind.
const PATIENCE: Duration = Duration::from_secs(1);

impl Workers {
    /// Closes a descriptor of the daemon while a worker has it too, which closes it last.
    pub fn close(self: &Arc<Self>, descriptor: OwnedFd) {
        let workers = self.clone();
        self.runtime.spawn(async move {
            if let Err(error) = workers.close_last(descriptor).await {
                tracing::warn!(%error, "a terminal was not closed by a worker");
            }
        });
    }

    async fn close_last(self: &Arc<Self>, descriptor: OwnedFd) -> Result<(), WorkerError> {
        let job = self.take(())?;
        job.ask(&Request::Keep, &[descriptor.as_fd()]).await?;
        let _kept = job.answer().await?;
        drop(descriptor);
        job.ask(&Request::Close, &[]).await?;
        if let Ok(closed) = timeout(PATIENCE, job.answer()).await {
            closed?;
            job.done();
        }
        Ok(())
    }
}
