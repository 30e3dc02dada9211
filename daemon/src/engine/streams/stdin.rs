//! Access to a program's standard input.

use std::sync::Arc;

use littlebox_protocol::{Call, Target};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::{Engine, EngineError, Handle};
use crate::supervisor::Helper;
use crate::worker::Feed;

/// The most open standard inputs in one container; each has a worker process.
pub const INPUTS: usize = 256;

/// Limits how many standard inputs of a container are open.
#[derive(Debug)]
pub(in crate::engine) struct Inputs(Arc<Semaphore>);

impl Default for Inputs {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(INPUTS)))
    }
}

/// An open standard input of a program.
pub type Stdin = Feed<OwnedSemaphorePermit>;

impl Engine {
    /// Opens the standard input of a container's program, or of an exec: a pipe, or the master of its
    /// terminal. Waits while [`INPUTS`] of the container are open.
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
        // The semaphore is never closed.
        let turn = turn.await.map_err(|_closed| EngineError::Task)?;
        let (helper, workers) = (helper.clone(), self.workers.clone());
        // A separate task: a cancelled caller must not close the descriptor in this thread.
        let opening = tokio::spawn(async move {
            let input = helper.descriptor(Call::OpenStdin { target }).await?;
            Ok(workers.feed(input, turn).await?)
        });
        opening.await.unwrap_or(Err(EngineError::Task))
    }
}
