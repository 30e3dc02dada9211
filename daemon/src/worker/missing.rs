//! Whether a file exists, where nobody may answer.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Answer, Request, WorkerError, Workers};
use crate::idpool::{Look, Looker};

impl Looker for Arc<Workers> {
    fn is_missing(&self, file: PathBuf, look: Look) -> BoxFuture<'_, bool> {
        let missing = async move {
            let asked = self.ask_whether_missing(file.clone(), look).await;
            asked.unwrap_or_else(|error| {
                tracing::warn!(%error, file = %file.display(), "cannot look for another daemon");
                false
            })
        };
        missing.boxed()
    }
}

impl Workers {
    async fn ask_whether_missing(
        self: &Arc<Self>,
        file: PathBuf,
        look: Look,
    ) -> Result<bool, WorkerError> {
        let job = self.take(look)?;
        job.ask(&Request::IsMissing(file), &[]).await?;
        let answer = job.answer().await?;
        drop(job.done());
        match answer {
            Answer::IsMissing(missing) => Ok(missing),
            other => Err(WorkerError::unexpected(&other)),
        }
    }
}
