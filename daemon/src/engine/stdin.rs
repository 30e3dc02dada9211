//! The way to a program's standard input.

use std::sync::Arc;

use littlebox_protocol::{Call, Target};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Engine, EngineError, Handle};
use crate::supervisor::Helper;
use crate::worker::Feed;

/// How many programs of one container are written to at once: for each there is a process.
pub const INPUTS: usize = 256;

/// Ways to the standard input of a container's programs.
#[derive(Debug)]
pub(super) struct Inputs(Arc<Semaphore>);

impl Default for Inputs {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(INPUTS)))
    }
}

/// A way to the standard input of a program.
pub type Stdin = Feed<OwnedSemaphorePermit>;

impl Engine {
    /// Opens the standard input of a container's program, or of an exec: a pipe, or the master of its
    /// terminal. Waits while the container has as many open as it may have.
    ///
    /// # Errors
    /// The program has none, or has ended; [`EngineError::Worker`].
    pub async fn open_stdin(
        &self,
        container: &Handle,
        helper: &Helper,
        target: Target,
    ) -> Result<Stdin, EngineError> {
        let turn = container.inputs.0.clone().acquire_owned();
        // Nobody closes it.
        let turn = turn.await.map_err(|_closed| EngineError::Task)?;
        let (helper, workers) = (helper.clone(), self.workers.clone());
        // A task of its own: a cancelled caller does not close the descriptor in this thread.
        let opening = tokio::spawn(async move {
            let input = helper.descriptor(Call::OpenStdin { target }).await?;
            Ok(workers.feed(input, turn).await?)
        });
        opening.await.unwrap_or(Err(EngineError::Task))
    }
}
