//! The input that a request brings for its exec.

use std::io;
use std::sync::Arc;

use littlebox_helper::protocol::{Call, Target};

use crate::asyncfd;
use crate::engine::ExecHandle;
use crate::supervisor::Helper;

/// Writes an exec's input to its stdin and closes it. Ends with the exec at the latest: its program
/// may never read.
pub(super) async fn feed(helper: Helper, exec: Arc<ExecHandle>, input: String) {
    let mut ended = exec.ended.subscribe();
    tokio::select! {
        _ = ended.wait_for(|ended| *ended) => {}
        () = write_and_close(&helper, &exec, input) => {}
    }
}

async fn write_and_close(helper: &Helper, exec: &ExecHandle, input: String) {
    let target = Target::Exec(exec.id.to_string());
    if let Err(error) = write(helper, target.clone(), input).await {
        tracing::debug!(id = %exec.id, %error, "an exec did not get all of its input");
    }
    let _closed = helper.done(Call::CloseStdin { target }).await;
}

async fn write(helper: &Helper, target: Target, input: String) -> io::Result<()> {
    let stdin = helper.descriptor(Call::OpenStdin { target }).await;
    let stdin = asyncfd::watch(stdin.map_err(io::Error::other)?)?;
    asyncfd::write_all(&stdin, input.as_bytes()).await
}
