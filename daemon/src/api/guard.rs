//! What surrounds every request: who asks, from where, under which id, with which outcome.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::errno::Errno;

use super::error::{ApiError, Failed};
use super::{App, AppState};
use crate::peers::{Peer, Whereabouts};

/// Refuses what a browser sends on behalf of a foreign page (DNS rebinding, cross-site requests),
/// should the socket ever be bridged to TCP.
pub async fn check(State(app): AppState, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let place = peer.map_or(Whereabouts::Inside, |peer| peer.place);
    if place != Whereabouts::Outside && !may_ask(&app, peer).await {
        if let Whereabouts::Unknown(errno) = place {
            return refuse_unknown(errno);
        }
        let path = request.uri().path().to_owned();
        return refuse_inside(peer, &path).await;
    }
    if let Some(refusal) = foreign(request.headers()) {
        return refusal.into_response();
    }
    next.run(request).await
}

/// How long a container waits for each refusal: what it asks costs the daemon work and log.
const REFUSAL_PACE: Duration = Duration::from_millis(500);

/// Whether a container was given the socket.
async fn may_ask(app: &App, peer: Option<Peer>) -> bool {
    match peer {
        Some(peer) => app.engine.has_socket(peer.uid).await,
        None => false,
    }
}

/// The next connection is looked at anew.
fn refuse_unknown(errno: Errno) -> Response {
    let detail = format!("cannot see who asks: {errno}");
    let refusal = ApiError::new("resources_exhausted", detail).errno(errno as i32);
    closing(refusal.into_response())
}

async fn refuse_inside(peer: Option<Peer>, path: &str) -> Response {
    let (pid, uid) = peer.map_or((-1, u32::MAX), |peer| (peer.pid, peer.uid));
    tracing::warn!(
        pid,
        uid,
        path,
        "a request from inside a container is refused"
    );
    tokio::time::sleep(REFUSAL_PACE).await;
    let refusal = ApiError::new("forbidden", "requests from inside a container are refused").hint(
        "to let a container control littlebox, bind-mount the socket itself, not a directory",
    );
    closing(refusal.into_response())
}

fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn foreign(headers: &HeaderMap) -> Option<ApiError> {
    for name in [header::HOST, header::ORIGIN] {
        // A second header of the name may be the one that somebody else believes.
        for value in headers.get_all(&name) {
            let text = value.to_str().unwrap_or("?");
            if !is_local(text) {
                return Some(
                    ApiError::new(
                        "forbidden",
                        format!("the {name} header names '{text}', which is not this host"),
                    )
                    .hint("use http://localhost/ as the address on the Unix socket"),
                );
            }
        }
    }
    None
}

fn is_local(text: &str) -> bool {
    let text = text.strip_prefix("http://").unwrap_or(text);
    // A colon inside brackets belongs to the address (RFC 3986, 3.2.2).
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            host
        }
        _ => text,
    };
    let host = host.to_ascii_lowercase();
    matches!(
        host.as_str(),
        "" | "localhost" | "127.0.0.1" | "[::1]" | "littlebox"
    )
}

/// Logs the request with its peer, and puts the request's id into a problem document.
pub async fn finish(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let peer = request.extensions().get::<Peer>().copied();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request.headers().get("x-request-id").cloned();
    let mut response = next.run(request).await;
    let mut error = None;
    if let Some(Failed { problem, cause }) = response.extensions_mut().remove::<Failed>() {
        error = Some(cause.unwrap_or_else(|| problem.detail.clone()));
        response = with_instance(response, *problem, id.as_ref());
    }
    let status = response.status().as_u16();
    let id = id
        .as_ref()
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let (pid, uid, gid) = peer.map_or((-1, u32::MAX, u32::MAX), |p| (p.pid, p.uid, p.gid));
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    if status >= 500 {
        tracing::warn!(%method, path, status, ms, id, pid, uid, gid, error, "request failed");
    } else {
        tracing::info!(%method, path, status, ms, id, pid, uid, gid, "request");
    }
    response
}

fn with_instance(
    response: Response,
    mut problem: littlebox_types::Problem,
    id: Option<&HeaderValue>,
) -> Response {
    problem.instance = id
        .and_then(|v| v.to_str().ok())
        .map(|id| format!("urn:uuid:{id}"));
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let mut out = (parts.status, Json(problem)).into_response();
    parts.headers.remove(header::CONTENT_TYPE);
    out.headers_mut().extend(parts.headers);
    out.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_this_machine_is_local() {
        for host in [
            "localhost",
            "localhost:80",
            "127.0.0.1:1",
            "[::1]:9",
            "http://localhost",
            "[::1]",
            "LocalHost",
            "",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "https://localhost.evil",
            "10.0.0.1",
            "[::1].evil.example",
            "[::1]:80.evil",
            "localhost:80@evil.example",
            "localhost:evil",
            "::1",
            "null",
            "localhost.",
            "http://http://localhost",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
