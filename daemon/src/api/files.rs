//! Files in and out, changes, export.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use lbctl::types::Changes;
use littlebox_helper::protocol::RootfsSource;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::AppState;
use super::error::ApiError;
use super::extract::{Params, Path};
use crate::engine::{EngineError, FilesRoot, Handle};
use crate::files::{self, Bounds, FileError, IdView, Packing};

type Result<T = Response> = std::result::Result<T, ApiError>;

/// Bytes collected before they go to the client.
const CHUNK: usize = 64 * 1024;
/// Archives on their way at once. Each holds one of the threads for blocking work, of which there
/// are four times as many (`main.rs`), at the speed of its client: the others are for everybody else.
const ARCHIVES: usize = 32;
/// How long a request waits for one of those to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Comparisons at once: each may gather names in memory.
static COMPARISONS: Semaphore = Semaphore::const_new(2);
static TURNS: Semaphore = Semaphore::const_new(ARCHIVES);

/// The right to have an archive on its way.
type Turn = SemaphorePermit<'static>;

async fn turn() -> Result<Turn> {
    turn_of(&TURNS, || {
        format!("{ARCHIVES} archives are being sent or received, the most at one time")
    })
    .await
}

async fn turn_of(turns: &'static Semaphore, busy: impl FnOnce() -> String) -> Result<Turn> {
    match tokio::time::timeout(PATIENCE, turns.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(ApiError::new("resources_exhausted", busy())
            .hint("try again when one of them has ended")),
    }
}

/// Files are told with the ids that the container knows.
fn id_view(handle: &Handle) -> IdView {
    IdView::new(handle.record().id_maps)
}

fn path_of(params: &Params) -> Result<String> {
    match params.get("path") {
        Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(path.to_owned()),
        Some(path) => Err(ApiError::invalid(format!(
            "'path' is absolute, not '{path}'"
        ))),
        None => Err(ApiError::invalid("query parameter 'path' is missing")),
    }
}

/// `GET /v1/containers/{c}/files`.
pub async fn read(State(app): AppState, Path(reference): Path<String>, params: Params) -> Result {
    let params = params.only(&["path", "stat"])?;
    let path = path_of(&params)?;
    let handle = app.engine.find(&reference)?;
    let root = app.engine.files_root(&handle).await?;
    let stat_root = root.clone();
    let stat_path = path.clone();
    // A path that is not there is told before the stream begins.
    let ids = id_view(&handle);
    let stat_ids = ids.clone();
    let stat = blocking(move || files::stat(stat_root.as_fd(), &stat_path, &stat_ids)).await?;
    if params.flag("stat", false)? {
        return Ok(Json(stat).into_response());
    }
    let turn = turn().await?;
    // So is what keeps it from being packed.
    let of = root.clone();
    let packing = blocking(move || files::pack(of.as_fd(), &path, &ids)).await?;
    Ok(tar(turn, root, packing))
}

/// `GET /v1/containers/{c}/export`.
pub async fn export(State(app): AppState, Path(reference): Path<String>, params: Params) -> Result {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let root = app.engine.files_root(&handle).await?;
    let turn = turn().await?;
    let ids = id_view(&handle);
    let of = root.clone();
    let packing = blocking(move || files::pack_all(of.as_fd(), &ids)).await?;
    Ok(tar(turn, root, packing))
}

/// `PUT /v1/containers/{c}/files`.
pub async fn write(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let params = params.only(&["path"])?;
    let path = path_of(&params)?;
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !matches!(media, "application/x-tar" | "application/tar") {
        return Err(
            ApiError::new("unsupported_media_type", "the body is a tar archive")
                .hint("send it with Content-Type: application/x-tar"),
        );
    }
    let handle = app.engine.find(&reference)?;
    let root = app.engine.files_root(&handle).await?;
    let turn = turn().await?;
    let ids = id_view(&handle);
    let (sender, receiver) = mpsc::channel(8);
    let unpacking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let input = BodyReader {
            receiver,
            rest: Bytes::new(),
        };
        files::unpack(root.as_fd(), &path, &ids, input, &Bounds::default())
    });
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let failed = chunk.is_err();
        let chunk = chunk.map_err(io::Error::other);
        if sender.send(chunk).await.is_err() || failed {
            break;
        }
    }
    drop(sender);
    unpacking
        .await
        .map_err(|_| EngineError::Task)?
        .map_err(EngineError::from)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/containers/{c}/changes`.
pub async fn changes(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<Changes>> {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let plan = app.engine.rootfs_plan(&handle).await?;
    let items = match plan.source {
        RootfsSource::Overlay { lower, upper, .. } => {
            let engine = app.engine.clone();
            let busy = || String::from("two comparisons are under way, the most at one time");
            let _turn = turn_of(&COMPARISONS, busy).await?;
            blocking(move || {
                let hidden: Vec<_> = lower.iter().flat_map(|l| engine.hidden(l)).collect();
                let mut items = files::changes(&upper, &lower)?;
                // Not the container's doing.
                items.retain(|change| {
                    let path = std::path::Path::new(&change.path);
                    !hidden.iter().any(|hidden| path.starts_with(hidden))
                });
                Ok(items)
            })
            .await?
        }
        RootfsSource::Bind { .. } => {
            return Err(EngineError::NotAvailable(
                "the container uses its root directory as it is: there is nothing to compare it with"
                    .into(),
            )
            .into());
        }
    };
    Ok(Json(Changes { items }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, FileError> + Send + 'static,
) -> std::result::Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(EngineError::from),
        Err(_) => Err(EngineError::Task),
    }
}

/// A response whose body is a tar archive that is written on a thread of its own. When packing
/// fails after the start (a disk that cannot be read), the connection breaks off instead of ending:
/// a client must not take half an archive for a whole one.
fn tar(turn: Turn, root: FilesRoot, packing: Packing<IdView>) -> Response {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    tokio::task::spawn_blocking(move || {
        let _held = (turn, root);
        let mut out = BodyWriter {
            sender,
            buffer: Vec::with_capacity(CHUNK),
        };
        let result = packing
            .write(&mut out)
            .map_err(io::Error::other)
            .and_then(|_left_out| out.flush());
        if let Err(error) = result {
            tracing::warn!(%error, "an archive could not be completed");
            let _ = out.sender.blocking_send(Err(error));
        }
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    (
        [(header::CONTENT_TYPE, "application/x-tar")],
        Body::from_stream(body),
    )
        .into_response()
}

/// A synchronous writer into a response's body.
struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(full.into()))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}

/// A synchronous reader of a request's body.
struct BodyReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(out.len());
        out[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}
