//! Wait: before the start, during the run, after the removal.

use std::sync::Arc;
use std::time::Duration;

use littlebox_types::{ContainerState, WaitFor, WaitResult};

use crate::engine::{Engine, EngineError, Handle};

impl Engine {
    /// Waits until a condition holds, at most for `limit`. A container that was removed is
    /// answered from its tombstone.
    pub async fn wait(
        &self,
        reference: &str,
        condition: WaitFor,
        limit: Option<Duration>,
    ) -> Result<WaitResult, EngineError> {
        let handle = match self.find(reference) {
            Ok(handle) => handle,
            Err(EngineError::ContainerNotFound(reference)) => {
                return self
                    .store
                    .tombstone(&reference)
                    .await?
                    .ok_or(EngineError::ContainerNotFound(reference));
            }
            Err(e) => return Err(e),
        };
        Ok(handle.wait(condition, limit).await)
    }
}

impl Handle {
    /// Waits until a condition holds, at most for `limit`.
    pub async fn wait(self: &Arc<Self>, condition: WaitFor, limit: Option<Duration>) -> WaitResult {
        let mut changed = self.watch();
        let ends = self.live().ends;
        let satisfied = async {
            // The sender lives in `self`: `changed` does not fail before the condition holds.
            while !self.holds(condition, ends) && changed.changed().await.is_ok() {}
        };
        let satisfied = match limit {
            None => {
                satisfied.await;
                true
            }
            Some(limit) => tokio::time::timeout(limit, satisfied).await.is_ok(),
        };
        let live = self.live();
        WaitResult {
            id: self.id,
            satisfied,
            state: (!live.removed).then_some(live.record.state),
            exit: live.record.exit.clone(),
            failure: live.record.failure.clone(),
        }
    }

    /// Whether a condition holds, or has held since `ends` runs had ended.
    fn holds(&self, condition: WaitFor, ends: u64) -> bool {
        let live = self.live();
        if live.removed {
            return true;
        }
        match condition {
            WaitFor::Removed => false,
            WaitFor::Exited => {
                live.ends != ends
                    || matches!(
                        live.record.state,
                        ContainerState::Exited | ContainerState::Failed | ContainerState::Removing
                    )
            }
            WaitFor::Running => !matches!(
                live.record.state,
                ContainerState::Created | ContainerState::Starting
            ),
        }
    }
}
