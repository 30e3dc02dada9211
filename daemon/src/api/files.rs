//! Files in and out, changes, export.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::AppState;
use super::error::ApiError;
use super::extract::{Params, Path};
use crate::engine::Output;

type Result<T = Response> = std::result::Result<T, ApiError>;

const TAR: &str = "application/x-tar";

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
    let stat = params.flag("stat", false)?;
    let handle = app.engine.find(&reference)?;
    if stat {
        return Ok(Json(app.engine.stat(&handle, path).await?).into_response());
    }
    Ok(streamed(TAR, app.engine.pack(&handle, Some(path)).await?))
}

/// `GET /v1/containers/{c}/export`.
pub async fn export(State(app): AppState, Path(reference): Path<String>, params: Params) -> Result {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    Ok(streamed(TAR, app.engine.pack(&handle, None).await?))
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
    if !matches!(media, TAR | "application/tar") {
        return Err(
            ApiError::new("unsupported_media_type", "the body is a tar archive")
                .hint("send it with Content-Type: application/x-tar"),
        );
    }
    let handle = app.engine.find(&reference)?;
    let archive = body.into_data_stream();
    let archive = archive.map(|bytes| bytes.map_err(io::Error::other));
    app.engine.unpack(&handle, path, archive).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/containers/{c}/changes`.
pub async fn changes(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let changes = app.engine.changes(&handle).await?;
    Ok(streamed("application/json", changes))
}

/// A response whose body is what a worker writes. When that cannot be completed (a disk that cannot
/// be read), the connection breaks off instead of ending.
fn streamed(media: &'static str, output: Output) -> Response {
    let body = futures_util::stream::unfold(output, |mut output| async {
        let bytes = output.next().await?;
        Some((bytes, output))
    });
    let headers = [(header::CONTENT_TYPE, media)];
    (headers, Body::from_stream(body)).into_response()
}
