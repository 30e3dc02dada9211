//! Whose turn it is to change a container.
//!
//! One operation at a time, and what ends a container goes before all others: a stop until it has its
//! turn, a forced removal until the container is gone. Whatever clients have queued, who wants an end
//! waits for one operation at most, and one that is held up (a start from a mount that does not
//! answer) gives up for it.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};

/// How long whoever wants an end waits before what goes on gives up: much longer than a start that
/// nothing holds up.
const GRACE: Duration = Duration::from_secs(1);

/// The operations on one container.
#[derive(Debug, Default)]
pub struct Operations {
    lock: Mutex<()>,
    /// How many want an end.
    ending: watch::Sender<usize>,
}

/// The right to change a container, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _guard: MutexGuard<'a, ()>,
}

/// Somebody wants the container to end, until this is dropped.
#[derive(Debug)]
pub struct Ending<'a> {
    operations: &'a Operations,
}

impl Operations {
    /// Waits for the turn of an operation: behind those that came before, and behind every end.
    pub async fn turn(&self) -> Turn<'_> {
        let mut ending = self.ending.subscribe();
        loop {
            // The sender lives in `self`.
            drop(ending.wait_for(|ending| *ending == 0).await);
            let turn = self.engines_turn().await;
            if *self.ending.borrow() == 0 {
                return turn;
            }
        }
    }

    /// Waits for the turn of the engine itself, which finds out what is true of a container. An end
    /// that goes on waits for that, so it comes between.
    pub async fn engines_turn(&self) -> Turn<'_> {
        Turn {
            _guard: self.lock.lock().await,
        }
    }

    /// Says that the container is to end.
    pub fn end(&self) -> Ending<'_> {
        self.ending.send_modify(|ending| *ending += 1);
        Ending { operations: self }
    }

    /// Comes when an operation that is held up should give up.
    pub async fn is_held_up(&self) {
        let mut ending = self.ending.subscribe();
        loop {
            drop(ending.wait_for(|ending| *ending > 0).await);
            let nobody = ending.wait_for(|ending| *ending == 0);
            if tokio::time::timeout(GRACE, nobody).await.is_err() {
                return;
            }
        }
    }
}

impl<'a> Ending<'a> {
    /// Waits for the end's turn: behind what goes on, and nothing else.
    pub async fn turn(&self) -> Turn<'a> {
        self.operations.engines_turn().await
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.operations.ending.send_modify(|ending| *ending -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_what_goes_on_and_goes_before_what_waits() {
        let operations = Operations::default();
        let goes_on = operations.turn().await;
        let mut waits = pin!(operations.turn());
        assert!(poll!(waits.as_mut()).is_pending());
        let end = operations.end();
        let mut ends = Box::pin(end.turn());
        assert!(poll!(ends.as_mut()).is_pending());
        drop(goes_on);
        // The lock was the first one's to have; it lets the end go before it.
        assert!(poll!(waits.as_mut()).is_pending());
        let ends = ends.await;
        assert!(poll!(waits.as_mut()).is_pending());
        drop(ends);
        // A removal goes on when its stop has had its turn.
        assert!(poll!(waits.as_mut()).is_pending());
        drop(operations.engines_turn().await);
        assert!(poll!(waits.as_mut()).is_pending());
        drop(end);
        drop(waits.await);
    }

    #[tokio::test]
    async fn what_is_held_up_is_told_when_somebody_goes_on_wanting_an_end() {
        let operations = Operations::default();
        let mut held_up = pin!(operations.is_held_up());
        assert!(poll!(held_up.as_mut()).is_pending());
        // A stop that had its turn at once.
        drop(operations.end());
        assert!(poll!(held_up.as_mut()).is_pending());
        let _end = operations.end();
        held_up.await;
    }
}
