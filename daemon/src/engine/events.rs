//! What happened: the events in the store, and those to come.

use littlebox_types::Event;
use tokio::sync::watch;

use super::{Engine, EngineError};

impl Engine {
    /// The number of the newest event; changes with each.
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.store.newest_event()
    }

    /// Events after `since`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, EngineError> {
        Ok(self.store.events(since, limit).await?)
    }

    /// Waits until every event of which a client was told is in the list: clients are told of a change
    /// while its row is on the way to the database.
    pub async fn settle_events(&self) {
        // The queue is in order.
        let _ = self.store.commit(Vec::new(), false).await;
    }
}
