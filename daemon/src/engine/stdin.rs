//! The way to a program's standard input.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use littlebox_helper::protocol::{Call, Target};
use rustix::fs::FileType;
use tokio::io::unix::AsyncFd;

use super::{Engine, EngineError};
use crate::asyncfd;
use crate::supervisor::Helper;
use crate::worker::Workers;

/// Standard input of a program: a pipe, or the master of its terminal.
#[derive(Debug)]
pub struct Stdin {
    /// `None` only while it is dropped.
    fd: Option<AsyncFd<OwnedFd>>,
    workers: Arc<Workers>,
}

impl Engine {
    /// Opens the standard input of a container's program, or of an exec.
    ///
    /// # Errors
    /// The program has none, or has ended.
    pub async fn open_stdin(&self, helper: &Helper, target: Target) -> Result<Stdin, EngineError> {
        let (helper, workers) = (helper.clone(), self.workers.clone());
        // A task of its own: a cancelled caller does not close the descriptor in this thread.
        let opening = tokio::spawn(async move {
            let fd = helper.descriptor(Call::OpenStdin { target }).await?;
            let watched = asyncfd::watch(fd).map_err(|source| EngineError::Kernel {
                op: "watch the standard input of a program",
                source,
            });
            Ok(Stdin {
                fd: Some(watched?),
                workers,
            })
        });
        opening.await.unwrap_or(Err(EngineError::Task))
    }
}

impl Stdin {
    /// Writes all of it, as the program makes room.
    ///
    /// # Errors
    /// `EPIPE` and `EIO` when nobody reads any more.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let fd = self.fd.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        asyncfd::write_all(fd, bytes).await
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take().map(AsyncFd::into_inner) else {
            return;
        };
        // Not by isatty(3), which can block on the terminal's lock.
        let kind = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind == Ok(FileType::CharacterDevice) {
            self.workers.close(fd);
        }
    }
}
