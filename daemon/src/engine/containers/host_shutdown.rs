//! The machine goes down, and its containers with it: each is stopped as a client would, and its end
//! is recorded, while there is still somebody to do so.

use std::sync::Arc;
use std::time::Duration;

use littlebox_types::ContainerState;

use super::end::{By, StopOptions};
use crate::engine::{Engine, Handle};
use crate::lifecycle;

/// What the end may take beyond the longest grace: SIGKILL, unmounting, the record.
const AFTER_GRACE: Duration = Duration::from_secs(30);

impl Engine {
    /// Stops every container with its own signal and grace, all at once, and waits for their ends.
    /// No hand has stopped them: their restart policies count after the boot. To be called when
    /// new operations are refused already. Tells how many did not end in time.
    pub async fn end_with_machine(self: &Arc<Self>) -> usize {
        let live = |handle: &Arc<Handle>| lifecycle::is_live(handle.state());
        let mut ending = tokio::task::JoinSet::new();
        for handle in self.all().into_iter().filter(live) {
            let engine = self.clone();
            ending.spawn(async move { engine.end_one_with_machine(&handle).await });
        }
        let mut left = 0;
        while let Some(ended) = ending.join_next().await {
            left += usize::from(!ended.unwrap_or(false));
        }
        left
    }

    async fn end_one_with_machine(self: &Arc<Self>, handle: &Arc<Handle>) -> bool {
        // A client has stopped it, and its grace runs.
        if handle.state() != ContainerState::Stopping {
            let options = StopOptions::default();
            let asked = self.begin_stop(handle, options, By::Machine).await;
            // It may have ended by itself in this moment.
            if let Err(error) = asked
                && lifecycle::is_live(handle.state())
            {
                tracing::warn!(id = %handle.id, %error, "cannot stop a container");
            }
        }
        let grace = handle.record().grace();
        let ended = handle.ended_within(Some(grace + AFTER_GRACE)).await;
        if !ended {
            tracing::error!(id = %handle.id, "a container does not end");
        }
        ended
    }
}
