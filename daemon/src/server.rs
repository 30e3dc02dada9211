//! The socket and the accept loop.
//!
//! A loop of our own instead of `axum::serve`: it gives up on clients that send half a request,
//! bounds the number of connections, tells every request who is at the other end, and always
//! comes to an end at a shutdown.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::config::Config;
use crate::peers::{Peer, Peers};

/// How long a client may take for a request's head, and keep an idle connection open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds the socket with its group and mode. A socket file that nobody answers on is replaced;
/// one that answers belongs to another daemon.
pub fn bind(config: &Config) -> anyhow::Result<std::os::unix::net::UnixListener> {
    let path = &config.socket;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another daemon answers on {}", path.display());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    // Bound under a temporary name and renamed when group and mode are right, so that nobody can
    // connect in between.
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = std::os::unix::net::UnixListener::bind(&temporary)
        .with_context(|| format!("cannot bind {}", path.display()))?;
    set_owner(&temporary, config)?;
    std::fs::rename(&temporary, path)
        .with_context(|| format!("cannot put the socket at {}", path.display()))?;
    Ok(listener)
}

fn set_owner(path: &Path, config: &Config) -> anyhow::Result<()> {
    match nix::unistd::Group::from_name(&config.socket_group) {
        Ok(Some(group)) => std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))
            .with_context(|| format!("cannot give the socket to group {}", config.socket_group))?,
        Ok(None) => tracing::info!(
            group = config.socket_group,
            "the socket's group does not exist: only root can use the socket"
        ),
        Err(error) => tracing::warn!(%error, group = config.socket_group, "cannot look up a group"),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(config.socket_mode))
        .context("cannot set the socket's mode")
}

/// Serves until `closing` is cancelled, then waits for open requests, at most for `drain`.
pub async fn serve(
    listener: UnixListener,
    router: Router,
    peers: Arc<Peers>,
    max_connections: usize,
    closing: CancellationToken,
    drain: Duration,
) {
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(max_connections));
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = closing.cancelled() => break,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let peer = peers.identify(&stream);
                let Some(place) = peers.admit(peer) else {
                    tracing::debug!(?peer, "a peer has its share of the connections already");
                    continue;
                };
                let connection = connection(stream, peer, router.clone(), closing.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop((slot, place));
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections were cut at the shutdown");
    }
}

/// Out of descriptors (EMFILE) accepting would spin; a moment later some may be free.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn connection(
    stream: UnixStream,
    peer: Option<Peer>,
    router: Router,
    closing: CancellationToken,
) {
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        request.map(axum::body::Body::new)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
