//! The input that a request brings for its exec.

use std::sync::Arc;

use littlebox_protocol::{Call, Target};

use crate::engine::{Engine, EngineError, ExecHandle};
use crate::supervisor::Helper;
use crate::worker::Feed;

impl Engine {
    /// Writes an exec's input to its stdin and closes it. Ends with the exec at the latest: its program
    /// may never read.
    pub(super) async fn feed(&self, helper: Helper, exec: Arc<ExecHandle>, input: String) {
        let mut ended = exec.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = self.write_and_close(&helper, &exec, input) => {}
        }
    }

    async fn write_and_close(&self, helper: &Helper, exec: &ExecHandle, input: String) {
        let target = Target::Exec(exec.id.to_string());
        let fed = async {
            let mut feed = self.open_stdin(helper, target.clone()).await?;
            feed.write_all(input.as_bytes()).await?;
            feed.written().await?;
            Ok::<Feed, EngineError>(feed)
        };
        let fed = fed.await;
        if let Err(error) = &fed {
            tracing::debug!(id = %exec.id, %error, "an exec did not get all of its input");
        }
        let _closed = helper.done(Call::CloseStdin { target }).await;
        // After the helper has closed its descriptor, which may block whoever closes the last one.
        drop(fed);
    }
}
