//! Looking at paths that a client named, and at what else may not answer: a FUSE mount, a server that
//! is gone. The kernel lets nobody out of such a call, so each has a thread that nobody waits for
//! longer than a start may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lbctl::types::{ContainerConfig, ContainerId};
use rustix::io::Errno;
use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError, prepare};
use crate::idpool::IdRange;
use crate::spec::Prepared;

/// Looks at once. Each holds one of the threads for blocking work (`main.rs`) until it is answered,
/// which may be never; archives have some, and everybody else the others.
pub(super) const LOOKS: usize = 64;

/// Whether somebody waits for a piece of work.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    abandoned: Arc<AtomicBool>,
}

impl Wanted {
    /// To be asked before each change.
    ///
    /// # Errors
    /// `ECANCELED`: whoever asked for the work was told that it was not done.
    pub(super) fn check(&self) -> rustix::io::Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(Errno::CANCELED);
        }
        Ok(())
    }
}

/// Waits for a piece of work until this is dropped.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Release);
    }
}

#[cfg(test)]
impl Wanted {
    /// Of work that nobody waits for.
    pub(super) fn by_nobody() -> Self {
        let wanted = Self::default();
        drop(Waiting(wanted.clone()));
        wanted
    }
}

impl Engine {
    /// Does work that may wait for a file system on a thread of its own, for a bounded time. When
    /// that is over, the work may go on, and must change nothing: see [`Engine::look_and_change`].
    ///
    /// # Errors
    /// Those of the work; [`EngineError::Unanswered`] when the time is up, and
    /// [`EngineError::TooManyWait`] when it was up before there was a thread.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Engine>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.look_and_change(move |engine, _| work(engine)).await
    }

    /// [`Engine::look`] of work that changes something, and asks before each change whether somebody
    /// waits for it yet.
    pub(super) async fn look_and_change<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Engine>, &Wanted) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let limit = self.supervisor.start_limit();
        let deadline = Instant::now() + limit;
        let Ok(Ok(turn)) = timeout_at(deadline, self.looks.clone().acquire_owned()).await else {
            return Err(EngineError::TooManyWait);
        };
        let engine = self.clone();
        let wanted = Wanted::default();
        let _waiting = Waiting(wanted.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&engine, &wanted)
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
