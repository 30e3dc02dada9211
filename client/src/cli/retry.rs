//! Patience with a daemon that restarts: containers, waits and streams outlive it.

use std::time::Duration;

use lbctl::client::ClientError;
use tokio::time::{Instant, sleep};

const AT_MOST: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(100);

/// Decides whether a request that the connection broke is tried again.
#[derive(Debug)]
pub struct Patience {
    broken_since: Option<Instant>,
    connected: bool,
}

impl Patience {
    /// Before the first request, which is tried only once when nobody answers it.
    pub fn new() -> Self {
        Self {
            broken_since: None,
            connected: false,
        }
    }

    /// It works again.
    pub fn worked(&mut self) {
        self.broken_since = None;
        self.connected = true;
    }

    /// Whether to try again after this error; waits a little before it says so.
    pub async fn again(&mut self, error: &ClientError) -> bool {
        // The first connection of all must come about: otherwise there is no daemon.
        let never = !self.connected && matches!(error, ClientError::Connect { .. });
        if never || !error.is_disconnect() {
            return false;
        }
        self.connected = true;
        let since = *self.broken_since.get_or_insert_with(Instant::now);
        if since.elapsed() > AT_MOST {
            return false;
        }
        sleep(EVERY).await;
        true
    }
}
