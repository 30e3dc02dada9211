//! Requests with one idempotency key take turns, so that two never both find it unused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The keys of requests under way.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<String, Lock>>);

impl Keys {
    /// Waits until no other request with this key is under way.
    pub(super) async fn turn(&self, key: &str) -> Turn<'_> {
        let lock = self.locks().entry(key.to_owned()).or_default().clone();
        Turn {
            keys: self,
            key: key.to_owned(),
            guard: Some(lock.lock_owned().await),
        }
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<String, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use a key, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    keys: &'a Keys,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut locks = self.keys.locks();
        self.guard = None;
        // The map has the only one left: nobody waits for it, and whoever comes next makes another.
        if locks
            .get(&self.key)
            .is_some_and(|l| Arc::strong_count(l) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::Keys;

    #[tokio::test]
    async fn requests_with_one_key_take_turns_and_leave_nothing() {
        let keys = Keys::default();
        let first = keys.turn("k").await;
        let mut second = pin!(keys.turn("k"));
        assert!(poll!(second.as_mut()).is_pending());
        drop(keys.turn("another").await);
        drop(first);
        let second = second.await;
        // One that comes when the first has gone waits for the second all the same.
        let mut third = pin!(keys.turn("k"));
        assert!(poll!(third.as_mut()).is_pending());
        drop(second);
        drop(third.await);
        assert!(keys.locks().is_empty());
    }
}
