//! Reading what the kernel shows of processes and control groups.
//!
//! Those files always respond, with one exception: reading a process' command line blocks while its
//! memory map is locked, and a process with a FUSE mount of its own can keep it locked. So workers read
//! command lines, and are killed when they take too long.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::{Engine, EngineError, Handle};
use crate::procfs::ProcessId;
use crate::worker::{Answer, Request, WorkerError};

/// Readers at once. Each has one of the threads for blocking work (`main.rs`).
const READS: usize = 16;
/// Workers at once that read command lines, one for each container and one for the whole machine.
const COMMAND_LINES: usize = 32;
/// How many command lines a worker is asked for at once.
const BATCH: usize = 512;
/// How long one process may hold up those who read command lines, and all of them together.
const ONE: Duration = Duration::from_millis(200);
const ALL: Duration = Duration::from_secs(1);

/// Limits on concurrent reads.
#[derive(Debug)]
pub(in crate::engine) struct Reads {
    files: Arc<Semaphore>,
    command_lines: Semaphore,
    of_all: CommandLines,
}

/// Serialises reads of one container's command lines: it can block one reader at a time.
#[derive(Debug, Default)]
pub(in crate::engine) struct CommandLines(Mutex<()>);

impl Default for Reads {
    fn default() -> Self {
        Self {
            files: Arc::new(Semaphore::new(READS)),
            command_lines: Semaphore::new(COMMAND_LINES),
            of_all: CommandLines::default(),
        }
    }
}

impl Engine {
    /// Reads the kernel's view, for a bounded time.
    ///
    /// # Errors
    /// [`EngineError::Kernel`] of what was read; [`EngineError::Unreadable`] when it takes as long as a
    /// start may, and [`EngineError::Busy`] when others do.
    pub async fn read_kernel<T: Send + 'static>(
        &self,
        op: &'static str,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let limit = self.supervisor.start_limit();
        let deadline = Instant::now() + limit;
        let turn = timeout_at(deadline, self.kernel_reads.files.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            let what = "reads of processes and control groups";
            return Err(EngineError::Busy { limit: READS, what });
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        match timeout_at(deadline, reading).await {
            Ok(Ok(result)) => result.map_err(|source| EngineError::Kernel { op, source }),
            Ok(Err(_)) => Err(EngineError::Task),
            Err(_elapsed) => Err(EngineError::Unreadable { op, limit }),
        }
    }

    /// The command lines of processes, by PID: of one container, or (`None`) of the whole machine. Those
    /// without one (kernel threads, zombies, what has ended) are left out, and so are those that
    /// cannot be read in time.
    pub async fn command_lines(
        &self,
        container: Option<&Handle>,
        processes: Vec<ProcessId>,
    ) -> BTreeMap<u32, String> {
        let reads = &self.kernel_reads;
        let mut left = VecDeque::from(processes);
        let mut found = BTreeMap::new();
        let reading = async {
            let _share = container
                .map_or(&reads.of_all, |c| &c.command_lines)
                .0
                .lock()
                .await;
            let _turn = reads.command_lines.acquire().await;
            while !left.is_empty() {
                self.read_command_lines(&mut left, &mut found).await?;
            }
            Ok::<(), WorkerError>(())
        };
        if let Ok(Err(error)) = timeout(ALL, reading).await {
            tracing::warn!(%error, "cannot read command lines");
        }
        found.retain(|_, line| !line.is_empty());
        found
    }

    /// Reads the first ones, up to and including one that takes too long.
    async fn read_command_lines(
        &self,
        left: &mut VecDeque<ProcessId>,
        found: &mut BTreeMap<u32, String>,
    ) -> Result<(), WorkerError> {
        let batch = left.iter().take(BATCH).copied().collect();
        let job = self.workers.take(())?;
        job.ask(&Request::CommandLines(batch), &[]).await?;
        let _begun = job.answer().await?;
        while let Ok(answer) = timeout(ONE, job.answer()).await {
            match answer? {
                Answer::CommandLine(line) => {
                    let process = left.pop_front();
                    found.extend(process.map(|process| (process.pid, line)));
                }
                Answer::Done => {
                    job.done();
                    return Ok(());
                }
                other => return Err(WorkerError::unexpected(&other)),
            }
        }
        // The worker is blocked on this one.
        left.pop_front();
        Ok(())
    }
}
