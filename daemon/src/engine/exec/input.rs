//! The input that a request brings for its exec.

use std::sync::Arc;

use littlebox_helper::protocol::{Call, Target};

use crate::engine::{Engine, ExecHandle};
use crate::supervisor::Helper;

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
        let written = async {
            let stdin = self.open_stdin(helper, target.clone()).await;
            let stdin = stdin.map_err(|error| error.to_string())?;
            let written = stdin.write_all(input.as_bytes()).await;
            written.map_err(|error| error.to_string())
        };
        if let Err(error) = written.await {
            tracing::debug!(id = %exec.id, %error, "an exec did not get all of its input");
        }
        let _closed = helper.done(Call::CloseStdin { target }).await;
    }
}
