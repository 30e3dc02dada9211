//! One inotify instance for all followers.

use std::io;
use std::sync::Arc;

/// Wakes followers when their files change.
#[derive(Debug)]
pub struct Watcher {}

impl Watcher {
    /// Opens the inotify instance and starts its task; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// inotify_init1(2): `EMFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Arc<Self>> {
        unimplemented!()
    }
}
