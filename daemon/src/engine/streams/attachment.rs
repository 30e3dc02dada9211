//! What clients read from and write to: the standard streams of a container's program or of an exec.

use std::path::PathBuf;
use std::sync::Arc;

use littlebox_protocol::{Call, Target, TerminalSize};
use littlebox_types::{Exit, Failure, Signal, TermSize};
use tokio::sync::watch;

use crate::engine::{ClientGuard, Engine, EngineError, ExecHandle, Handle};
use crate::logs::{Chunk, Follower, From, Mode};

/// The standard streams of a container's program, or of an exec.
#[derive(Debug, Clone)]
pub enum Attachment {
    /// Those of a container's program.
    Container(Arc<Handle>),
    /// Those of an exec.
    Exec(Arc<ExecHandle>),
}

/// What has become of a program whose output is complete.
#[derive(Debug)]
pub enum Outcome {
    /// It exited.
    Exited(Exit),
    /// It could not be started.
    Failed(EngineError),
    /// Its container was removed before it was started.
    Removed,
}

/// Reads a program's output, at the reader's own speed.
#[derive(Debug)]
pub struct OutputReader {
    follower: Follower,
    path: PathBuf,
}

impl Engine {
    /// The streams of a container's program.
    ///
    /// # Errors
    /// No such container.
    pub fn attachment(&self, reference: &str) -> Result<Attachment, EngineError> {
        self.find(reference).map(Attachment::Container)
    }

    /// The streams of an exec.
    ///
    /// # Errors
    /// No such exec.
    pub fn exec_attachment(&self, reference: &str) -> Result<Attachment, EngineError> {
        self.find_exec(reference).map(Attachment::Exec)
    }

    /// Opens a program's output.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub async fn read_output(
        &self,
        of: &Attachment,
        from: From,
    ) -> Result<OutputReader, EngineError> {
        let path = match of {
            Attachment::Container(handle) => self.paths.log(handle.id),
            Attachment::Exec(exec) => self.paths.exec_log(exec.container.id, exec.id),
        };
        match Follower::open(&self.watcher, path.clone(), from).await {
            Ok(follower) => Ok(OutputReader { follower, path }),
            Err(source) => Err(EngineError::Io {
                op: "open",
                path,
                source,
            }),
        }
    }
}

impl OutputReader {
    /// The next part of the output. Cancel safe.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub async fn next(&mut self, mode: Mode<'_>) -> Result<Chunk, EngineError> {
        let next = self.follower.next(mode).await;
        next.map_err(|source| EngineError::Io {
            op: "read",
            path: self.path.clone(),
            source,
        })
    }

    /// Where the next part begins.
    pub fn position(&self) -> u64 {
        self.follower.position()
    }
}

impl Attachment {
    /// Whether clients may write to its stdin.
    pub fn takes_input(&self) -> bool {
        match self {
            Self::Container(handle) => handle.live().record.stdin,
            Self::Exec(exec) => exec.record().stdin,
        }
    }

    /// Whether the program has a terminal.
    pub fn has_terminal(&self) -> bool {
        match self {
            Self::Container(handle) => handle.live().record.terminal,
            Self::Exec(exec) => exec.record().terminal,
        }
    }

    /// Becomes true when the program has exited, or was not started, and its output is complete.
    pub fn ended(&self) -> watch::Receiver<bool> {
        match self {
            Self::Container(handle) => handle.live().ended.subscribe(),
            Self::Exec(exec) => exec.ended.subscribe(),
        }
    }

    /// Counts as the foreground client that was announced for a container, until it is dropped.
    pub fn client(&self) -> Option<ClientGuard> {
        match self {
            Self::Container(handle) => Some(handle.client()),
            Self::Exec(_) => None,
        }
    }

    /// What has become of the program.
    pub fn outcome(&self) -> Outcome {
        let (exit, failure, code): (Option<Exit>, Option<Failure>, Option<i32>) = match self {
            Self::Container(handle) => {
                let live = handle.live();
                let r = &live.record;
                (r.exit.clone(), r.failure.clone(), r.failure_code)
            }
            Self::Exec(exec) => {
                let r = exec.record();
                (r.exit.clone(), r.failure.clone(), r.failure_code)
            }
        };
        match (exit, failure) {
            (Some(exit), _) => Outcome::Exited(exit),
            (None, Some(failure)) => Outcome::Failed(EngineError::StartFailed {
                failure: Box::new(failure),
                exit_code: code.unwrap_or(125),
                id: None,
            }),
            (None, None) => Outcome::Removed,
        }
    }

    /// Signals the program. Best effort: one that has just exited needs no signal.
    pub async fn signal(&self, signal: Signal) {
        self.tell_helper(Call::Signal {
            target: self.target(),
            signal: signal.number(),
            all: false,
        })
        .await;
    }

    /// Sets the size of the program's terminal. Best effort.
    pub async fn resize(&self, TermSize { rows, cols }: TermSize) {
        let size = TerminalSize { rows, cols };
        let target = self.target();
        self.tell_helper(Call::Resize { target, size }).await;
    }

    /// Tells the helper how far a lossless stream has been read; `None`: it is read no more, and the
    /// program is not held back any longer. Other streams hold nobody back.
    pub async fn set_gate(&self, consumed: Option<u64>) {
        if self.is_lossless() {
            let target = self.target();
            self.tell_helper(Call::Gate { target, consumed }).await;
        }
    }

    fn is_lossless(&self) -> bool {
        match self {
            Self::Container(handle) => handle.live().record.attach,
            Self::Exec(exec) => exec.record().attach,
        }
    }

    async fn tell_helper(&self, call: Call) {
        let helper = self.container().live().helper.clone();
        if let Some(helper) = helper
            && let Err(error) = helper.call(call).await
        {
            tracing::debug!(%error, "a call on behalf of an attached client");
        }
    }

    pub(super) fn container(&self) -> &Arc<Handle> {
        match self {
            Self::Container(handle) => handle,
            Self::Exec(exec) => &exec.container,
        }
    }

    pub(super) fn target(&self) -> Target {
        match self {
            Self::Container(_) => Target::Container,
            Self::Exec(exec) => Target::Exec(exec.id.to_string()),
        }
    }
}
