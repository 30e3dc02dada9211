//! Reading what the kernel shows of processes and control groups.
//!
//! Those files are no file system's that may not answer, but a process whose memory map is locked can
//! keep a reader of its files waiting for a while.

use std::io;

use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError};

/// Readers at once. Each has one of the threads for blocking work (`main.rs`).
pub(super) const READS: usize = 16;

impl Engine {
    /// Reads the kernel's view, for a bounded time.
    ///
    /// # Errors
    /// [`EngineError::Kernel`] of what was read, and [`EngineError::Unreadable`] when it takes as long
    /// as a start may, or others do.
    pub async fn read_kernel<T: Send + 'static>(
        &self,
        op: &'static str,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let limit = self.supervisor.start_limit();
        let late = || EngineError::Unreadable { op, limit };
        let deadline = Instant::now() + limit;
        let turn = timeout_at(deadline, self.kernel_reads.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(late());
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        match timeout_at(deadline, reading).await {
            Ok(Ok(result)) => result.map_err(|source| EngineError::Kernel { op, source }),
            Ok(Err(_)) => Err(EngineError::Task),
            Err(_elapsed) => Err(late()),
        }
    }
}
