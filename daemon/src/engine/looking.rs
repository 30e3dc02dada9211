//! Looking at paths that a client named, and at what else may not answer: a FUSE mount, a server that
//! is gone. The kernel lets nobody out of such a call, so each has a thread that nobody waits for
//! longer than a start may take.

use std::sync::Arc;

use lbctl::types::{ContainerConfig, ContainerId};
use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError, prepare};
use crate::idpool::IdRange;
use crate::spec::Prepared;

/// Looks at once. Each holds one of the threads for blocking work (`main.rs`) until it is answered,
/// which may be never; archives have some, and everybody else the others.
pub(super) const LOOKS: usize = 64;

impl Engine {
    /// Does work that may wait for a file system on a thread of its own, for a bounded time. When
    /// that is over, the work may go on: what it changes must be harmless then.
    ///
    /// # Errors
    /// Those of the work; [`EngineError::Unanswered`] when the time is up, and
    /// [`EngineError::TooManyWait`] when it was up before there was a thread.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Engine>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let limit = self.supervisor.start_limit();
        let deadline = Instant::now() + limit;
        let Ok(Ok(turn)) = timeout_at(deadline, self.looks.clone().acquire_owned()).await else {
            return Err(EngineError::TooManyWait);
        };
        let engine = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&engine)
        });
        match timeout_at(deadline, looking).await {
            Ok(looked) => looked.unwrap_or(Err(EngineError::Task)),
            Err(_elapsed) => Err(EngineError::Unanswered(limit)),
        }
    }

    /// Checks a configuration and makes the spec from it.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        id: ContainerId,
        range: Option<IdRange>,
        config: Arc<ContainerConfig>,
    ) -> Result<Prepared, EngineError> {
        self.look(move |engine| prepare::prepare(&config, &engine.context(&id, range)))
            .await
    }
}
