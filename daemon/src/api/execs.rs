//! Execs as objects.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use littlebox_types::{Exec, ExecConfig, ExecId, Page, SignalRequest, TermSize};

use super::AppState;
use super::error::ApiError;
use super::extract::{self, Params, Path};
use crate::engine::ExecOptions;

type Result<T = Response> = std::result::Result<T, ApiError>;

/// `GET /v1/containers/{c}/execs`.
pub async fn list(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<Page<Exec>>> {
    let params = params.only(&["limit", "cursor"])?;
    let (limit, cursor) = params.page::<ExecId>()?;
    let execs = app.engine.execs(&reference)?;
    let mut rest = execs.iter().filter(|e| cursor.is_none_or(|c| e.id > c));
    let items: Vec<_> = rest
        .by_ref()
        .take(limit)
        .map(|e| e.record().exec(e.id))
        .collect();
    let next = rest
        .next()
        .and_then(|_| items.last().map(|e| e.id.to_string()));
    Ok(Json(Page { items, next }))
}

/// `POST /v1/containers/{c}/execs`.
pub async fn create(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: extract::Json<ExecConfig>,
) -> Result {
    let params = params.only(&["wait"])?;
    let wait = params.duration("wait")?;
    let options = ExecOptions {
        idempotency: extract::idempotency(&headers, &body.digest)?,
    };
    let exec = app.engine.exec(&reference, body.value, options).await?;
    let shown = app.engine.show_exec(&exec, wait).await?;
    let location = format!("/v1/execs/{}", exec.id);
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(shown),
    )
        .into_response())
}

/// `GET /v1/execs/{e}`.
pub async fn inspect(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<Exec>> {
    let params = params.only(&["wait"])?;
    let wait = params.duration("wait")?;
    let exec = app.engine.find_exec(&reference)?;
    Ok(Json(app.engine.show_exec(&exec, wait).await?))
}

/// `POST /v1/execs/{e}/signal`.
pub async fn signal(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    body: extract::Json<SignalRequest>,
) -> Result {
    params.only(&[])?;
    let exec = app.engine.find_exec(&reference)?;
    let signal = body.value.signal.number();
    app.engine.signal_exec(&exec, signal).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/execs/{e}/resize`.
pub async fn resize(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    body: extract::Json<TermSize>,
) -> Result {
    params.only(&[])?;
    let exec = app.engine.find_exec(&reference)?;
    app.engine.resize_exec(&exec, body.value).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
