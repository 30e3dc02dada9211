//! The input of an attached client, on its way to the program.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use littlebox_protocol::Call;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::attachment::Attachment;
use super::stdin::{INPUTS, Stdin};
use crate::engine::{Engine, EngineError, Handle};
use crate::supervisor::Helper;
use crate::worker::FeedError;

/// How long a client's first input waits while too many clients write to the container.
const TURN: Duration = Duration::from_secs(10);
/// How long a program has to read the input of a client that has disconnected.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// What goes to the program's stdin, in order.
#[derive(Debug)]
pub enum Input {
    /// What it reads.
    Bytes(Bytes),
    /// The client closed it: the program is to read end of file. A client that merely vanished may
    /// come back, so the channel's own end does not say this.
    End,
}

impl Engine {
    /// Writes a client's input into a program, and closes it when the client does. Waits for the program
    /// to be started, unless the client has `gone` and has left no input. Ends with the program and with
    /// the daemon (`closing`) at the latest.
    ///
    /// # Errors
    /// The program is running but cannot get its input.
    pub async fn write_input(
        self: Arc<Self>,
        to: Attachment,
        frames: mpsc::Receiver<Input>,
        gone: oneshot::Receiver<()>,
        closing: CancellationToken,
    ) -> Result<(), EngineError> {
        let Some(helper) = started(to.container(), &frames, gone, &closing).await else {
            return Ok(());
        };
        let mut ended = to.ended();
        let mut writing = Writing {
            engine: self,
            to,
            helper,
            stdin: None,
        };
        let closed = tokio::select! {
            closed = writing.write_frames(frames) => closed,
            _ = ended.wait_for(|ended| *ended) => Ok(false),
            () = closing.cancelled() => Ok(false),
        };
        if closed? {
            let target = writing.to.target();
            let _ = writing.helper.done(Call::CloseStdin { target }).await;
        }
        // Not before the helper has closed its descriptor: closing the last one can block.
        drop(writing.stdin);
        Ok(())
    }
}

/// A client's input on its way to a program that is running.
struct Writing {
    engine: Arc<Engine>,
    to: Attachment,
    helper: Helper,
    /// Opened when the first input arrives.
    stdin: Option<Stdin>,
}

impl Writing {
    /// Writes input until it ends, and returns whether the client closed it.
    async fn write_frames(
        &mut self,
        mut frames: mpsc::Receiver<Input>,
    ) -> Result<bool, EngineError> {
        loop {
            let input = match &mut self.stdin {
                Some(stdin) => tokio::select! {
                    input = frames.recv() => input,
                    error = stdin.why_ended() => return taken(Err(error)),
                },
                None => frames.recv().await,
            };
            let written = match (input, &mut self.stdin) {
                (Some(Input::Bytes(bytes)), _) => match self.opened().await? {
                    Some(stdin) => stdin.write_all(&bytes).await,
                    None => return Ok(false),
                },
                (Some(Input::End), Some(stdin)) => return taken(stdin.written().await),
                (Some(Input::End), None) => return Ok(true),
                (None, stdin) => {
                    if let Some(stdin) = stdin {
                        let _left = timeout(LEFT_BEHIND, stdin.written()).await;
                    }
                    return Ok(false);
                }
            };
            if !taken(written)? {
                return Ok(false);
            }
        }
    }

    /// The program's stdin, opened if it is not yet; `None` once the program takes no more input.
    async fn opened(&mut self) -> Result<Option<&mut Stdin>, EngineError> {
        if self.stdin.is_none() {
            let (container, target) = (self.to.container(), self.to.target());
            let open = self.engine.open_stdin(container, &self.helper, target);
            let opened = timeout(TURN, open).await.unwrap_or(Err(EngineError::Busy {
                limit: INPUTS,
                what: "clients that write to programs of this container",
            }));
            match opened {
                Ok(opened) => self.stdin = Some(opened),
                Err(error @ (EngineError::Busy { .. } | EngineError::Worker(_))) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(%error, "no stdin"),
            }
        }
        Ok(self.stdin.as_mut())
    }
}

/// Whether the program still takes input.
fn taken(written: Result<(), FeedError>) -> Result<bool, EngineError> {
    match written {
        Ok(()) => Ok(true),
        Err(FeedError::Unread) => Ok(false),
        Err(FeedError::Worker(error)) => Err(error.into()),
    }
}

/// The helper, once the program is started. `None`: there is nothing to wait for, because the client
/// has gone and has left no input, or the container was removed.
async fn started(
    handle: &Handle,
    frames: &mpsc::Receiver<Input>,
    gone: oneshot::Receiver<()>,
    closing: &CancellationToken,
) -> Option<Helper> {
    let mut changed = handle.watch();
    let mut gone = std::pin::pin!(gone.fuse());
    loop {
        let (helper, removed) = {
            let live = handle.live();
            (live.helper.clone(), live.removed)
        };
        if helper.is_some() || removed {
            return helper;
        }
        tokio::select! {
            changed = changed.changed() => changed.ok()?,
            _ = &mut gone => if frames.is_empty() { return None },
            () = closing.cancelled() => return None,
        }
    }
}
