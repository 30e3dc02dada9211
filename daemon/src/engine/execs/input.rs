//! The input that a request brings for its exec.

use std::sync::Arc;

use littlebox_protocol::{Call, Target};
use rustix::process::Signal;

use crate::engine::{Engine, EngineError, ExecHandle, Stdin};
use crate::supervisor::Helper;
use crate::worker::FeedError;

impl Engine {
    /// Writes an exec's input to its stdin and closes it. Ends with the exec at the latest: its program
    /// may never read. If the input cannot be passed on, the exec is killed: its program would otherwise
    /// mistake a part of it for the whole.
    pub(super) async fn feed(&self, helper: Helper, exec: Arc<ExecHandle>, input: String) {
        let mut ended = exec.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = self.write_and_close(&helper, &exec, input) => {}
        }
    }

    async fn write_and_close(&self, helper: &Helper, exec: &ExecHandle, input: String) {
        let target = Target::Exec(exec.id.to_string());
        let mut stdin = None;
        let written = async {
            let opened = self.open_stdin(&exec.container, helper, target.clone());
            let stdin: &mut Stdin = stdin.insert(opened.await?);
            let written = match stdin.write_all(input.as_bytes()).await {
                Ok(()) => stdin.written().await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) | Err(FeedError::Unread) => Ok(()),
                Err(FeedError::Worker(error)) => Err(EngineError::from(error)),
            }
        };
        let call = match written.await {
            Err(error @ EngineError::Worker(_)) => {
                tracing::warn!(id = %exec.id, %error, "killing an exec that cannot get its input");
                Call::Signal {
                    target,
                    signal: Signal::KILL.as_raw(),
                    all: false,
                }
            }
            Ok(()) | Err(_) => Call::CloseStdin { target },
        };
        let _done = helper.done(call).await;
        // Not before the helper has closed its descriptor: closing the last one can block.
        drop(stdin);
    }
}
