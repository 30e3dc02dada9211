//! Files in and out of a container, and what it has changed.
//!
//! What lies in a container's tree may not answer, so workers enter it (`worker`); the daemon passes
//! bytes between them and clients, and nothing of it blocks. Nobody waits for ever, neither for a
//! file system nor for a client; and whoever is at it, be it a worker that cannot even be killed, counts
//! against what may be under way, of all containers and of this one.

mod root;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use littlebox_protocol::RootfsSource;
use littlebox_types::{ContainerState, FileStat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use root::{FilesRoot, PATIENCE};
pub(super) use root::{NoCopies, UpperUse};

use crate::engine::{Engine, EngineError, Handle};
use crate::faults;
use crate::files::{FileError, IdView, RootOf};
use crate::worker::{Answer, Job, Request, WorkerError};

/// Workers at once that look at one file.
const STATS: usize = 32;
/// Archives on their way at once, each at the speed of its client.
const ARCHIVES: usize = 32;
/// Comparisons at once: each may gather names in memory.
const COMPARISONS: usize = 2;
/// Of all kinds together, those of one container: one that has a dead mount leaves the rest to others.
const SHARE: usize = 8;
/// How long an archive may stand still, because of its client or of a file system.
const IDLE: Duration = Duration::from_secs(60);
/// The most bytes that are passed on at once, and how many such pieces wait for a client.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 8;

/// What a worker is wanted for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Stat,
    Archive,
    Comparison,
}

/// The rights to have workers at files of containers.
#[derive(Debug)]
pub(super) struct Turns {
    stats: Arc<Semaphore>,
    archives: Arc<Semaphore>,
    comparisons: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = |kind: Kind| Arc::new(Semaphore::new(kind.limit()));
        Self {
            stats: turns(Kind::Stat),
            archives: turns(Kind::Archive),
            comparisons: turns(Kind::Comparison),
        }
    }
}

/// One container's share of them.
#[derive(Debug)]
pub(super) struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARE)))
    }
}

impl Kind {
    fn limit(self) -> usize {
        match self {
            Kind::Stat => STATS,
            Kind::Archive => ARCHIVES,
            Kind::Comparison => COMPARISONS,
        }
    }

    fn many(self) -> &'static str {
        match self {
            Kind::Stat => "looks at files of containers",
            Kind::Archive => "archives",
            Kind::Comparison => "comparisons",
        }
    }
}

/// The right to one of each.
#[derive(Debug)]
struct Turn {
    _share: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

/// What is held until a worker has answered or has been reaped.
#[derive(Debug)]
struct Held {
    _turn: Turn,
    _root: Option<FilesRoot>,
}

/// Bytes that a worker writes. Dropped, the worker is ended.
#[derive(Debug)]
pub struct Output {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// They are complete.
    End,
}

impl Output {
    /// The next bytes; an error when there should be more and will not: nobody must take half of an
    /// archive for a whole one.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        match self.pieces.recv().await {
            Some(Piece::Bytes(bytes)) => return Some(Ok(bytes)),
            Some(Piece::End) => self.ended = true,
            None => {
                self.ended = true;
                return Some(Err(io::Error::other("it could not be completed")));
            }
        }
        None
    }
}

impl Engine {
    /// What lies at a path of a container.
    ///
    /// # Errors
    /// [`EngineError::Files`], [`EngineError::FilesUnanswered`], [`EngineError::Busy`], and those of the
    /// way to the container's root.
    pub async fn stat(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        path: String,
    ) -> Result<FileStat, EngineError> {
        let stat = async {
            let (held, root) = self.root_turn(handle, Kind::Stat, Some(&path)).await?;
            let ids = id_view(handle);
            let request = Request::Stat { path, ids };
            let job = self.begin(held, request, &descriptors(&root, None)).await?;
            match settle(job, self.supervisor.start_limit()).await? {
                (job, Answer::Stat(stat)) => {
                    job.done();
                    Ok(stat)
                }
                _ => Err(EngineError::Task),
            }
        };
        stat.await.map_err(|error| or_removed(handle, error))
    }

    /// An archive of what lies at a path of a container, or of its whole root.
    ///
    /// # Errors
    /// As [`Engine::stat`]: what can be known before is told before the first byte.
    pub async fn pack(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        path: Option<String>,
    ) -> Result<Output, EngineError> {
        let pack = async {
            let wanted = path.as_deref();
            let (held, root) = self.root_turn(handle, Kind::Archive, wanted).await?;
            let ids = id_view(handle);
            let request = Request::Pack { path, ids };
            let limit = self.supervisor.start_limit();
            self.output(held, request, Some(&root), limit).await
        };
        pack.await.map_err(|error| or_removed(handle, error))
    }

    /// What a container has changed, as the JSON of [`littlebox_types::Changes`].
    ///
    /// # Errors
    /// [`EngineError::NotAvailable`] for a root without layers, and as [`Engine::stat`].
    pub async fn changes(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<Output, EngineError> {
        let changes = self.compare(handle).await;
        changes.map_err(|error| or_removed(handle, error))
    }

    async fn compare(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<Output, EngineError> {
        let deadline = Instant::now() + PATIENCE;
        let turn = self.turn(handle, Kind::Comparison, deadline).await?;
        let plan = self.rootfs_plan(handle).await?;
        let RootfsSource::Overlay { lower, upper, .. } = plan.source else {
            return Err(EngineError::NotAvailable(
                "the container uses its root directory as it is: there is nothing to compare it with"
                    .into(),
            ));
        };
        let request = Request::Changes {
            upper,
            lower,
            hidden: self.directories(),
        };
        let held = Held {
            _turn: turn,
            _root: None,
        };
        self.output(held, request, None, idle()).await
    }

    /// Unpacks an archive into a directory of a container.
    ///
    /// # Errors
    /// As [`Engine::stat`]; what was unpacked before stays.
    pub async fn unpack(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        path: String,
        archive: impl Stream<Item = io::Result<Bytes>> + Unpin,
    ) -> Result<(), EngineError> {
        let unpack = async {
            let (held, root) = self.root_turn(handle, Kind::Archive, Some(&path)).await?;
            let ids = id_view(handle);
            let (to, from) = pipe::pipe().map_err(EngineError::Worker)?;
            let from = from.into_blocking_fd().map_err(EngineError::Worker)?;
            let of = match root {
                FilesRoot::Running(_) => RootOf::Program,
                FilesRoot::Offline(_) => RootOf::Stopped,
            };
            let request = Request::Unpack { path, ids, of };
            let job = self
                .begin(held, request, &descriptors(&root, Some(from.as_fd())))
                .await?;
            // With this end open here, nobody would see the worker's end.
            drop(from);
            let (job, _ready) = settle(job, self.supervisor.start_limit()).await?;
            let job = feed(job, to, archive).await?;
            job.done();
            Ok(())
        };
        unpack.await.map_err(|error| or_removed(handle, error))
    }

    async fn begin(
        &self,
        held: Held,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Job<Held>, EngineError> {
        let job = self.workers.take(held).map_err(EngineError::Worker)?;
        job.ask(&request, descriptors).await?;
        Ok(job)
    }

    /// Has a worker write, and passes on what it writes once it is ready.
    async fn output(
        &self,
        held: Held,
        request: Request,
        root: Option<&FilesRoot>,
        limit: Duration,
    ) -> Result<Output, EngineError> {
        let (to, from) = pipe::pipe().map_err(EngineError::Worker)?;
        let to = to.into_blocking_fd().map_err(EngineError::Worker)?;
        let beside = match root {
            Some(root) => descriptors(root, Some(to.as_fd())),
            None => vec![to.as_fd()],
        };
        let job = self.begin(held, request, &beside).await?;
        // With this end open here, nobody would see the worker's end.
        drop(to);
        let (job, _ready) = settle(job, limit).await?;
        let (sender, pieces) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            if let Err(error) = pass_on(job, from, &sender).await {
                tracing::warn!(%error, "what a worker wrote could not be sent");
            }
        });
        Ok(Output {
            pieces,
            ended: false,
        })
    }

    async fn root_turn(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        kind: Kind,
        path: Option<&str>,
    ) -> Result<(Held, FilesRoot), EngineError> {
        let deadline = Instant::now() + PATIENCE;
        let turn = self.turn(handle, kind, deadline).await?;
        let root = self.files_root(handle, deadline).await?;
        if let (FilesRoot::Offline(_), Some(path)) = (&root, path) {
            self.refuse_mounts(handle, path).await?;
        }
        let held = Held {
            _turn: turn,
            _root: Some(root.clone()),
        };
        Ok((held, root))
    }

    /// Only a running container has its mounts. Files copied below a mount of another one would be hidden once
    /// it starts.
    async fn refuse_mounts(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        path: &str,
    ) -> Result<(), EngineError> {
        let path = normalized(path);
        let config = self.config(handle).await?;
        let mut mounts = config.mounts.iter();
        if !mounts.any(|mount| path.starts_with(normalized(&mount.destination))) {
            return Ok(());
        }
        Err(EngineError::NotRunning {
            name: handle.record().name.to_string(),
            state: handle.state(),
            wish: "reaching a path below one of its mounts",
        })
    }

    async fn turn(
        &self,
        handle: &Handle,
        kind: Kind,
        deadline: Instant,
    ) -> Result<Turn, EngineError> {
        let turn = |turns: &Arc<Semaphore>, limit, what| {
            let turn = timeout_at(deadline, turns.clone().acquire_owned());
            async move {
                match turn.await {
                    Ok(Ok(turn)) => Ok(turn),
                    _ => Err(EngineError::Busy { limit, what }),
                }
            }
        };
        let turns = match kind {
            Kind::Stat => &self.file_turns.stats,
            Kind::Archive => &self.file_turns.archives,
            Kind::Comparison => &self.file_turns.comparisons,
        };
        let of_it = "requests for files of this container";
        Ok(Turn {
            _share: turn(&handle.file_share.0, SHARE, of_it).await?,
            _turn: turn(turns, kind.limit(), kind.many()).await?,
        })
    }
}

/// A container path without `.`, `..` and doubled slashes. Links are not followed.
fn normalized(path: &str) -> PathBuf {
    let mut normalized = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => normalized.push(name),
            Component::ParentDir => drop(normalized.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normalized
}

/// What a worker gets beside a request: root, pipe, and what it only keeps.
fn descriptors<'a>(root: &'a FilesRoot, pipe: Option<BorrowedFd<'a>>) -> Vec<BorrowedFd<'a>> {
    let root_and_pipe = [root.as_fd()].into_iter().chain(pipe);
    root_and_pipe.chain(root.lock()).collect()
}

/// Whatever fails because a container is removed meanwhile, the answer is that it is gone.
fn or_removed(handle: &Handle, error: EngineError) -> EngineError {
    let live = handle.live();
    match live.removed || live.record.state == ContainerState::Removing {
        true => EngineError::ContainerNotFound(live.record.name.to_string()),
        false => error,
    }
}

/// Files are told with the ids that the container knows.
fn id_view(handle: &Handle) -> IdView {
    IdView::new(handle.record().id_maps)
}

/// Waits for the next answer. A worker that does not give one is killed; one that has failed can do
/// something else.
async fn settle(job: Job<Held>, limit: Duration) -> Result<(Job<Held>, Answer), EngineError> {
    match timeout(limit, job.answer()).await {
        Ok(answer) => settled(job, answer),
        Err(_elapsed) => Err(EngineError::FilesUnanswered(limit)),
    }
}

fn settled(
    job: Job<Held>,
    answer: Result<Answer, WorkerError>,
) -> Result<(Job<Held>, Answer), EngineError> {
    match answer {
        Ok(answer) => Ok((job, answer)),
        Err(error) => {
            if let WorkerError::Files(_) = error {
                job.done();
            }
            Err(error.into())
        }
    }
}

/// Passes on what a worker writes, until it is done, it or the client does not move, or the client has
/// gone.
async fn pass_on(
    job: Job<Held>,
    mut from: pipe::Receiver,
    to: &mpsc::Sender<Piece>,
) -> Result<(), EngineError> {
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        let read = tokio::select! {
            read = timeout(idle(), from.read_buf(&mut bytes)) => read,
            () = to.closed() => return Ok(()),
        };
        match read {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(EngineError::Worker(error)),
            Err(_elapsed) => return Err(EngineError::FilesUnanswered(idle())),
        }
        let piece = Piece::Bytes(bytes.freeze());
        match timeout(idle(), to.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => return Ok(()),
            Err(_elapsed) => return Err(idle_client("took")),
        }
    }
    let (job, _done) = settle(job, idle()).await?;
    job.done();
    let _gone = timeout(idle(), to.send(Piece::End)).await;
    Ok(())
}

/// Gives a worker the archive that it unpacks, until it is done.
async fn feed(
    job: Job<Held>,
    mut to: pipe::Sender,
    mut archive: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> Result<Job<Held>, EngineError> {
    loop {
        let next = tokio::select! {
            // What comes behind an archive's end, or behind what is wrong with it, is not read.
            answer = job.answer() => return settled(job, answer).map(|(job, _done)| job),
            next = timeout(idle(), archive.next()) => next,
        };
        let bytes = match next {
            Ok(None) => break,
            Ok(Some(bytes)) => bytes.map_err(FileError::Stream)?,
            Err(_elapsed) => return Err(idle_client("sent")),
        };
        match timeout(idle(), to.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            // It reads no more, and says why.
            Ok(Err(_broken)) => break,
            Err(_elapsed) => return Err(EngineError::FilesUnanswered(idle())),
        }
    }
    drop(to);
    let (job, _done) = settle(job, idle()).await?;
    Ok(job)
}

fn idle() -> Duration {
    faults::idle().unwrap_or(IDLE)
}

fn idle_client(did: &str) -> EngineError {
    let text = format!("the client {did} nothing for {} s", idle().as_secs());
    FileError::Stream(io::Error::new(io::ErrorKind::TimedOut, text)).into()
}
