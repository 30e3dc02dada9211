//! An exec as the API shows it, with what it has printed.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use littlebox_protocol::LogStream;
use littlebox_types::{Exec, InlineOutput, OutputEncoding};

use crate::engine::{Engine, EngineError, ExecHandle};
use crate::logs::{Chunk, Follower, From, Mode};

/// Output inside an answer, per stream.
const INLINE_LIMIT: usize = 1024 * 1024;

impl Engine {
    /// An exec as the API shows it; with `wait` once it has ended or the time is up, then with its
    /// output.
    pub async fn show_exec(
        &self,
        exec: &Arc<ExecHandle>,
        wait: Option<Duration>,
    ) -> Result<Exec, EngineError> {
        let Some(wait) = wait else {
            return Ok(exec.record().exec(exec.id));
        };
        let mut ended = exec.ended.subscribe();
        let done = tokio::time::timeout(wait, ended.wait_for(|e| *e))
            .await
            .is_ok();
        let mut shown = exec.record().exec(exec.id);
        if done && shown.failure.is_none() {
            shown.output = Some(self.inline_output(exec).await?);
        }
        Ok(shown)
    }

    async fn inline_output(&self, exec: &ExecHandle) -> Result<InlineOutput, EngineError> {
        let path = self.paths.exec_log(exec.container.id, exec.id);
        let read = |source| EngineError::Io {
            op: "read",
            path: path.clone(),
            source,
        };
        let mut follower = Follower::open(&self.watcher, path.clone(), From::Start)
            .await
            .map_err(read)?;
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        loop {
            match follower.next(Mode::Snapshot).await.map_err(read)? {
                Chunk::Records(records) => {
                    for record in records {
                        let stream = match record.stream {
                            LogStream::Stdout => &mut stdout,
                            LogStream::Stderr => &mut stderr,
                        };
                        if stream.len() + record.payload.len() >= INLINE_LIMIT {
                            truncated = true;
                            continue;
                        }
                        stream.extend_from_slice(&record.payload);
                        if !record.partial {
                            stream.push(b'\n');
                        }
                    }
                }
                Chunk::Lagged(_) => truncated = true,
                Chunk::End => break,
            }
        }
        Ok(inline(stdout, stderr, truncated))
    }
}

fn inline(stdout: Vec<u8>, stderr: Vec<u8>, truncated: bool) -> InlineOutput {
    match (String::from_utf8(stdout), String::from_utf8(stderr)) {
        (Ok(stdout), Ok(stderr)) => InlineOutput {
            stdout,
            stderr,
            encoding: OutputEncoding::Utf8,
            truncated,
        },
        (stdout, stderr) => {
            let encode = |bytes: Result<String, std::string::FromUtf8Error>| {
                let bytes =
                    bytes.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
                base64::engine::general_purpose::STANDARD.encode(bytes)
            };
            InlineOutput {
                stdout: encode(stdout),
                stderr: encode(stderr),
                encoding: OutputEncoding::Base64,
                truncated,
            }
        }
    }
}
