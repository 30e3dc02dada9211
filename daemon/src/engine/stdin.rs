//! The way to a program's standard input.

use littlebox_protocol::{Call, Target};

use super::{Engine, EngineError};
use crate::supervisor::Helper;
use crate::worker::Feed;

impl Engine {
    /// Opens the standard input of a container's program, or of an exec: a pipe, or the master of its
    /// terminal.
    ///
    /// # Errors
    /// The program has none, or has ended.
    pub async fn open_stdin(&self, helper: &Helper, target: Target) -> Result<Feed, EngineError> {
        let (helper, workers) = (helper.clone(), self.workers.clone());
        // A task of its own: a cancelled caller does not close the descriptor in this thread.
        let opening = tokio::spawn(async move {
            let input = helper.descriptor(Call::OpenStdin { target }).await?;
            Ok(workers.feed(input).await?)
        });
        opening.await.unwrap_or(Err(EngineError::Task))
    }
}
