//! A reader of one log, by position, over rotations.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use littlebox_helper::protocol::LogStream;
use tokio::sync::watch;

use super::{Record, Watcher};

/// Becomes `true` when the writer is done (the exit was told, the log is complete). A dropped
/// sender counts as done.
pub type Finished = watch::Receiver<bool>;

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest record there is.
    Start,
    /// Only what comes.
    End,
    /// A position that a record told; what was rotated away since is reported as
    /// [`Chunk::Lagged`], a position past the end is the end.
    Position(u64),
    /// The last so many lines.
    Tail(usize),
    /// The last so many lines of one stream (records of the other still come between them).
    TailOf(usize, LogStream),
}

/// How far [`Follower::next`] reads.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// To the end as it was at the first call, then [`Chunk::End`].
    Snapshot,
    /// Waits for more until the writer is done and its last byte was delivered.
    Follow(&'a Finished),
}

/// What [`Follower::next`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Records, in order; never empty.
    Records(Vec<Record>),
    /// So many bytes of the log (record headers included) are gone or unreadable.
    Lagged(u64),
    /// The end; every further call says so too (in follow mode, once the writer is done).
    End,
}

/// A reader of one log. Dropping a future of [`Follower::next`] loses nothing.
#[derive(Debug)]
pub struct Follower {}

impl Follower {
    /// Opens the log at `path` (rotated files are `path.1`, `path.2`...). A missing file is an
    /// empty log that may yet come.
    ///
    /// # Errors
    /// Whatever opening and reading say, except `ENOENT`.
    pub async fn open(_watcher: &Arc<Watcher>, _path: PathBuf, _from: From) -> io::Result<Self> {
        unimplemented!()
    }

    /// The next records. Cancel safe.
    ///
    /// # Errors
    /// read(2).
    pub async fn next(&mut self, _mode: Mode<'_>) -> io::Result<Chunk> {
        unimplemented!()
    }

    /// The position after what was delivered last.
    pub fn position(&self) -> u64 {
        unimplemented!()
    }
}
