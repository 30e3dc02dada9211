//! The input of an attached client, on its way to the program.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use littlebox_protocol::{Call, Target};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::App;
use super::error::ApiError;
use crate::engine::{EngineError, Handle, INPUTS, Stdin};
use crate::supervisor::Helper;
use crate::worker::FeedError;

/// How long a client's first input waits while too many clients write to the container.
const TURN: Duration = Duration::from_secs(10);
/// How long a program has to read the input of a client that has disconnected.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// What goes to the program's stdin, in order.
pub(super) enum Input {
    Bytes(Bytes),
    /// The client closed it: the program is to read end of file. A client that merely vanished may
    /// come back, so the channel's own end does not say this.
    End,
}

/// Whose input it is.
pub(super) struct Destination {
    pub(super) app: Arc<App>,
    pub(super) handle: Arc<Handle>,
    pub(super) target: Target,
    /// Of the program.
    pub(super) ended: watch::Receiver<bool>,
}

/// Writes a client's input into the program, and closes it when the client does. Ends with the
/// program and with the daemon at the latest.
///
/// # Errors
/// The program is running but cannot get its input.
pub(super) async fn write(
    to: Destination,
    frames: mpsc::Receiver<Input>,
    gone: oneshot::Receiver<()>,
) -> Result<(), ApiError> {
    let Some(helper) = started(&to.app, &to.handle, &frames, gone).await else {
        return Ok(());
    };
    let mut ended = to.ended.clone();
    let mut stdin = None;
    let closed = tokio::select! {
        closed = write_frames(&to, &helper, &mut stdin, frames) => closed,
        _ = ended.wait_for(|ended| *ended) => Ok(false),
        () = to.app.closing.cancelled() => Ok(false),
    };
    let closed = closed?;
    if closed {
        let target = to.target.clone();
        let _ = helper.done(Call::CloseStdin { target }).await;
    }
    // Not before the helper has closed its descriptor: closing the last one can block.
    drop(stdin);
    Ok(())
}

/// Writes input until it ends, and returns whether the client closed it. Opens the program's stdin when the
/// first input arrives.
async fn write_frames(
    to: &Destination,
    helper: &Helper,
    stdin: &mut Option<Stdin>,
    mut frames: mpsc::Receiver<Input>,
) -> Result<bool, ApiError> {
    loop {
        let input = match stdin {
            Some(stdin) => tokio::select! {
                input = frames.recv() => input,
                error = stdin.why_ended() => return taken(Err(error)),
            },
            None => frames.recv().await,
        };
        let written = match input {
            Some(Input::Bytes(bytes)) => match opened(to, helper, stdin).await? {
                Some(stdin) => stdin.write_all(&bytes).await,
                None => return Ok(false),
            },
            Some(Input::End) => match stdin {
                Some(stdin) => return taken(stdin.written().await),
                None => return Ok(true),
            },
            None => {
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
async fn opened<'a>(
    to: &Destination,
    helper: &Helper,
    stdin: &'a mut Option<Stdin>,
) -> Result<Option<&'a mut Stdin>, ApiError> {
    if stdin.is_none() {
        let engine = &to.app.engine;
        let open = engine.open_stdin(&to.handle, helper, to.target.clone());
        let opened = timeout(TURN, open).await.unwrap_or(Err(EngineError::Busy {
            limit: INPUTS,
            what: "clients that write to programs of this container",
        }));
        match opened {
            Ok(opened) => *stdin = Some(opened),
            Err(error @ (EngineError::Busy { .. } | EngineError::Worker(_))) => {
                return Err(error.into());
            }
            Err(error) => tracing::debug!(%error, "no stdin"),
        }
    }
    Ok(stdin.as_mut())
}

/// Whether the program still takes input.
fn taken(written: Result<(), FeedError>) -> Result<bool, ApiError> {
    match written {
        Ok(()) => Ok(true),
        Err(FeedError::Unread) => Ok(false),
        Err(FeedError::Worker(error)) => Err(EngineError::from(error).into()),
    }
}

/// The helper, once the program is started. `None`: there is nothing to wait for, because the client
/// has gone and has left no input, or the container was removed.
async fn started(
    app: &App,
    handle: &Handle,
    frames: &mpsc::Receiver<Input>,
    gone: oneshot::Receiver<()>,
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
            () = app.closing.cancelled() => return None,
        }
    }
}
