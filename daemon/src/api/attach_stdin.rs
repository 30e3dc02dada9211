//! The input of an attached client, on its way to the program.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use littlebox_protocol::{Call, Target};
use tokio::sync::{mpsc, oneshot, watch};

use super::App;
use crate::engine::Handle;
use crate::supervisor::Helper;
use crate::worker::Feed;

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
pub(super) async fn write(
    mut to: Destination,
    frames: mpsc::Receiver<Input>,
    gone: oneshot::Receiver<()>,
) {
    let Some(helper) = started(&to.app, &to.handle, &frames, gone).await else {
        return;
    };
    let opened = to.app.engine.open_stdin(&helper, to.target.clone()).await;
    let Ok(mut feed) = opened.map_err(|error| tracing::debug!(%error, "no stdin")) else {
        return;
    };
    let closed = tokio::select! {
        closed = write_frames(&mut feed, frames) => closed,
        _ = to.ended.wait_for(|ended| *ended) => false,
        () = to.app.closing.cancelled() => false,
    };
    if closed {
        let target = to.target;
        let _ = helper.done(Call::CloseStdin { target }).await;
    }
    // After the helper has closed its descriptor, which may block whoever closes the last one.
    drop(feed);
}

/// Returns whether the client has closed its input, after all of it has been written.
async fn write_frames(feed: &mut Feed, mut frames: mpsc::Receiver<Input>) -> bool {
    let closed = loop {
        match frames.recv().await {
            Some(Input::Bytes(bytes)) => {
                if feed.write_all(&bytes).await.is_err() {
                    return false;
                }
            }
            Some(Input::End) => break true,
            None => break false,
        }
    };
    feed.written().await.is_ok() && closed
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
