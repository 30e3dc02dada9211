//! Workers: processes that do what a container can block for good, so that no thread of the daemon does it.
//! They enter file systems that may not respond, and write to pipes that a program can keep locked.
//!
//! The tree of a container, and every path that a client names, may lie on a FUSE mount whose server
//! has hung, or on that of a server that is gone. Whoever asks such a file system for something
//! waits in the kernel, and once the server has taken the request, SIGKILL does not help either. A
//! thread that waits so keeps its whole process from being reaped: the lock on the state directory
//! and the sockets stay, and no other daemon can take over. A process that does nothing else can be
//! left behind.
//!
//! ```text
//! littleboxd ──Request, descriptors──▶ worker      the same program, executed again
//!            ◀──Ready, Answer────────
//!            ◀──────── bytes ───────▶              a pipe, for archives; a socket, for input
//! ```
//!
//! A worker serves one request at a time, and one that has answered is kept for the next. Whatever
//! must last as long as a request (the right to make it, a mount) is held by its [`Job`]: until the
//! answer, or where there is none until the killed process has really been reaped. So those that
//! cannot die keep counting against the bounds.
//!
//! - `protocol`: what is said, as types; the format is the helpers' ([`littlebox_protocol`]).
//! - this module: the asynchronous side, which starts, asks, kills and reaps workers.
//! - `feed`: input for programs.
//! - `serve`, and `probe` and `pump` below it: the synchronous side, what a worker does.

mod feed;
mod missing;
mod probe;
mod protocol;
mod pump;
mod serve;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

pub use feed::{Feed, FeedError};
pub use protocol::{Answer, Probe, Request};
pub use serve::{ARGUMENT, main};

use crate::faults;
use crate::files::FileError;
use crate::supervisor::{self, SeqPacket};

/// How many workers are kept for the next requests.
const IDLE: usize = 1;
/// How long it is looked after a killed worker again where there is no pidfd to wait for.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// Why a worker has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It says why.
    #[error(transparent)]
    Files(FileError),
    /// It ended, or could not be started or asked.
    #[error("a worker process failed: {0}")]
    Lost(io::Error),
}

impl WorkerError {
    /// It has answered another question.
    pub fn unexpected(answer: &Answer) -> Self {
        Self::Lost(io::Error::other(format!("unexpected answer {answer:?}")))
    }
}

impl From<io::Error> for WorkerError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Starts workers, and keeps some that are idle.
#[derive(Debug)]
pub struct Workers {
    runtime: Handle,
    home: Option<PathBuf>,
    idle: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    socket: SeqPacket,
    child: Child,
}

impl Workers {
    /// None runs yet. They will live in the cgroup of this directory, where one is given. Must be
    /// called within a tokio runtime, where killed workers are waited for.
    pub fn new(home: Option<&Path>) -> Arc<Self> {
        Arc::new(Self {
            runtime: Handle::current(),
            home: home.map(Path::to_owned),
            idle: Mutex::default(),
        })
    }

    /// Starts one that stands by.
    ///
    /// # Errors
    /// As [`Workers::take`].
    pub fn stand_by(self: &Arc<Self>) -> io::Result<()> {
        self.take(())?.done();
        Ok(())
    }

    /// A worker for one request, which holds `held` for as long as it is at it.
    ///
    /// # Errors
    /// socketpair(2) and posix_spawn(3).
    pub fn take<H: Send + 'static>(self: &Arc<Self>, held: H) -> io::Result<Job<H>> {
        let worker = match self.idle_one() {
            Some(worker) => worker,
            None => self.spawn()?,
        };
        Ok(Job {
            workers: self.clone(),
            taken: Some((worker, held)),
        })
    }

    fn idle_one(&self) -> Option<Worker> {
        loop {
            let mut worker = self.idle().pop()?;
            // One that somebody has killed meanwhile is reaped here.
            if let Ok(None) = worker.child.try_wait() {
                return Some(worker);
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        // Nothing panics while it holds this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes this program again. Of the daemon's descriptors, which are all close-on-exec, it has
    /// standard error alone, and its own end of the socket as standard input.
    fn spawn(&self) -> io::Result<Worker> {
        let (socket, theirs) = SeqPacket::pair()?;
        // This program, also when its file has been replaced by another version's.
        let child = Command::new("/proc/self/exe")
            .arg0("littleboxd")
            .arg(ARGUMENT)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .env_clear()
            .envs(faults::environment())
            .current_dir("/")
            // A Ctrl-C at the daemon's terminal is the daemon's to handle.
            .process_group(0)
            .spawn()?;
        if let Some(home) = &self.home
            && let Err(error) = supervisor::home::enter(home, child.id())
        {
            self.end(Worker { socket, child }, ());
            return Err(error);
        }
        Ok(Worker { socket, child })
    }

    /// Ends a worker, and holds `held` until it is reaped.
    fn end<H: Send + 'static>(&self, mut worker: Worker, held: H) {
        // An error would say that it was reaped, which only `wait` does.
        let _killed = worker.child.kill();
        self.runtime.spawn(async move {
            wait(&mut worker.child).await;
            drop(held);
        });
    }
}

/// Waits for as long as it takes.
async fn wait(child: &mut Child) {
    let ended = pidfd_of(child).and_then(crate::asyncfd::watch);
    while let Ok(None) = child.try_wait() {
        match &ended {
            // Readable when it has ended (pidfd_open(2)).
            Ok(pidfd) => match pidfd.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => tokio::time::sleep(REAP_INTERVAL).await,
            },
            Err(_) => tokio::time::sleep(REAP_INTERVAL).await,
        }
    }
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_child(child);
    let flags = rustix::process::PidfdFlags::NONBLOCK;
    Ok(rustix::process::pidfd_open(pid, flags)?)
}

/// A worker at one request. Dropped before [`Job::done`], it is killed, and what it holds is held
/// until it has been reaped.
#[derive(Debug)]
pub struct Job<H: Send + 'static> {
    workers: Arc<Workers>,
    /// `None` only when it is done.
    taken: Option<(Worker, H)>,
}

impl<H: Send + 'static> Job<H> {
    /// Asks for something, with the descriptors that [`Request`] names.
    ///
    /// # Errors
    /// sendmsg(2).
    pub async fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WorkerError> {
        Ok(self.socket()?.send(request, descriptors).await?)
    }

    /// Waits for its next answer. May be dropped and called again.
    ///
    /// # Errors
    /// [`WorkerError::Files`] of an [`Answer::Failed`].
    pub async fn answer(&self) -> Result<Answer, WorkerError> {
        match self.socket()?.recv::<Answer>().await? {
            Some((Answer::Failed(error), _)) => Err(WorkerError::Files(error)),
            Some((answer, _)) => Ok(answer),
            None => Err(io::Error::other("it ended before it answered").into()),
        }
    }

    fn socket(&self) -> io::Result<&SeqPacket> {
        let (worker, _) = self.taken.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(&worker.socket)
    }

    /// It has given its last answer, be it an error: another request may have it.
    pub fn done(mut self) -> Option<H> {
        let (worker, held) = self.taken.take()?;
        let mut idle = self.workers.idle();
        if idle.len() < IDLE {
            idle.push(worker);
            return Some(held);
        }
        drop(idle);
        self.workers.end(worker, ());
        Some(held)
    }
}

impl<H: Send + 'static> Drop for Job<H> {
    fn drop(&mut self) {
        if let Some((worker, held)) = self.taken.take() {
            self.workers.end(worker, held);
        }
    }
}
