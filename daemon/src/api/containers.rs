//! `/v1/containers`: create, look, change, remove, and the lifecycle.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use littlebox_types::{
    ContainerConfig, ContainerPatch, ContainerState, KillRequest, Page, Plan, Signal, StopRequest,
    TermSize, WaitFor, WaitResult,
};

use super::error::ApiError;
use super::extract::{self, NoBody, OptionalJson, Params, Path};
use super::{App, AppState};
use crate::engine::{CreateOptions, Filter, Handle, StopOptions};

type Result<T = Response> = std::result::Result<T, ApiError>;

fn etag(generation: u64) -> String {
    format!("\"{generation}\"")
}

/// A container as an answer: the document, its ETag.
async fn shown(app: &App, handle: &Arc<Handle>, status: StatusCode) -> Result {
    let container = app.engine.inspect(handle).await?;
    let etag = etag(container.summary.generation);
    Ok((status, [(header::ETAG, etag)], Json(container)).into_response())
}

/// `GET /v1/containers`.
pub async fn list(State(app): AppState, params: Params) -> Result {
    let params = params.only(&["limit", "cursor", "filter", "fields"])?;
    let (limit, cursor) = params.page()?;
    let filters = params
        .all("filter")
        .map(parse_filter)
        .collect::<Result<Vec<_>>>()?;
    let fields = params.get("fields").map(parse_fields).transpose()?;
    let page = app.engine.list(&filters, cursor, limit);
    let Some(fields) = fields else {
        return Ok(Json(page).into_response());
    };
    let items = page
        .items
        .iter()
        .map(|i| select(i, &fields))
        .collect::<Result<Vec<_>>>()?;
    Ok(Json(Page {
        items,
        next: page.next,
    })
    .into_response())
}

fn parse_filter(text: &str) -> Result<Filter> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key {
        "state" => parse_state(value).map(Filter::State),
        "name" => Ok(Filter::Name(value.to_owned())),
        "id" => Ok(Filter::Id(value.to_owned())),
        "label" if !value.is_empty() => Ok(match value.split_once('=') {
            Some((name, wanted)) => Filter::Label(name.to_owned(), Some(wanted.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        }),
        _ => Err(ApiError::invalid(format!("unknown filter '{text}'"))
            .hint("use state=running, name=PART, id=PREFIX, label=KEY or label=KEY=VALUE")),
    }
}

fn parse_state(text: &str) -> Result<ContainerState> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| {
        ApiError::invalid(format!("unknown state '{text}'"))
            .hint("use created, starting, running, paused, stopping, exited, failed or removing")
    })
}

/// The names of a summary's fields.
const FIELDS: [&str; 12] = [
    "id",
    "name",
    "state",
    "rootfs",
    "command",
    "labels",
    "pid",
    "created_at",
    "started_at",
    "finished_at",
    "exit",
    "generation",
];

fn parse_fields(text: &str) -> Result<Vec<&str>> {
    let known = |field: &&str| FIELDS.contains(field);
    match text.split(',').find(|field| !known(field)) {
        None => Ok(text.split(',').collect()),
        Some(field) => Err(ApiError::invalid(format!("unknown field '{field}'"))
            .hint(format!("use {}", FIELDS.join(", ")))),
    }
}

fn select(item: &littlebox_types::ContainerSummary, fields: &[&str]) -> Result<serde_json::Value> {
    let whole = serde_json::to_value(item)
        .map_err(|e| ApiError::new("internal", format!("a summary cannot be written: {e}")))?;
    let mut out = serde_json::Map::new();
    for field in fields {
        // An absent value (no pid while it does not run) stays absent.
        if let Some(value) = whole.get(field) {
            out.insert((*field).to_owned(), value.clone());
        }
    }
    Ok(out.into())
}

/// `POST /v1/containers`.
pub async fn create(
    State(app): AppState,
    params: Params,
    headers: HeaderMap,
    body: extract::Json<ContainerConfig>,
) -> Result {
    let params = params.only(&["start", "wait", "dry_run"])?;
    let start = params.flag("start", false)?;
    let wait = params.duration("wait")?;
    if wait.is_some() && !start {
        return Err(ApiError::invalid("'wait' needs 'start'"));
    }
    let idempotency = extract::idempotency(&headers, &body.digest)?;
    if params.flag("dry_run", false)? {
        return Ok(Json(app.engine.dry_run(body.value).await?).into_response());
    }
    let options = CreateOptions { start, idempotency };
    let created = app.engine.create(body.value, options).await?;
    let handle = created.handle;
    if let Some(wait) = wait {
        handle.wait(WaitFor::Exited, Some(wait)).await;
    }
    let mut response = shown_or_last(&app, &handle, StatusCode::CREATED).await?;
    let location = format!("/v1/containers/{}", handle.id);
    if let Ok(value) = location.parse() {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// `GET /v1/containers/{c}`.
pub async fn inspect(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let known = extract::etag(&headers, header::IF_NONE_MATCH)?;
    let generation = handle.record().generation;
    if known == Some(generation) {
        let etag = [(header::ETAG, etag(generation))];
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    shown(&app, &handle, StatusCode::OK).await
}

/// `PATCH /v1/containers/{c}`.
pub async fn patch(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: extract::Json<ContainerPatch>,
) -> Result {
    params.only(&[])?;
    let expected = extract::etag(&headers, header::IF_MATCH)?;
    let handle = app.engine.patch(&reference, body.value, expected).await?;
    shown(&app, &handle, StatusCode::OK).await
}

/// `DELETE /v1/containers/{c}`.
pub async fn remove(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    _: NoBody,
) -> Result {
    let params = params.only(&["force", "wait"])?;
    let wait = params.duration("wait")?;
    let (handle, gone) = app
        .engine
        .remove(&reference, params.flag("force", false)?, wait)
        .await?;
    if gone {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    match shown(&app, &handle, StatusCode::ACCEPTED).await {
        // It went while it was being shown.
        Err(e) if e.problem().code == "container_not_found" => {
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        other => other,
    }
}

/// `POST .../start`.
pub async fn start(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    _: NoBody,
) -> Result {
    let params = params.only(&["wait"])?;
    let wait = params.duration("wait")?;
    let handle = app.engine.start(&reference).await?;
    if let Some(wait) = wait {
        handle.wait(WaitFor::Exited, Some(wait)).await;
    }
    shown_or_last(&app, &handle, StatusCode::OK).await
}

fn stop_options(request: &StopRequest, wait: Option<Duration>) -> StopOptions {
    StopOptions {
        signal: request.signal.map(Signal::number),
        grace: request.timeout_s.map(|s| Duration::from_secs(s.into())),
        wait,
    }
}

/// `POST .../stop`.
pub async fn stop(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    OptionalJson(request): OptionalJson<StopRequest>,
) -> Result {
    let params = params.only(&["wait"])?;
    let options = stop_options(&request, params.duration("wait")?);
    let (handle, ended) = app.engine.stop(&reference, options).await?;
    let status = if ended {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    shown_or_last(&app, &handle, status).await
}

/// A container that may be removed automatically in the same moment is shown as it was last.
async fn shown_or_last(app: &App, handle: &Arc<Handle>, status: StatusCode) -> Result {
    match shown(app, handle, status).await {
        Err(e) if e.problem().code == "container_not_found" => {
            let last = handle.record();
            let config = ContainerConfig {
                rootfs: last.rootfs.clone(),
                command: last.command.clone(),
                auto_remove: last.auto_remove,
                ..ContainerConfig::default()
            };
            Ok((status, Json(last.container(config, Vec::new()))).into_response())
        }
        other => other,
    }
}

/// `POST .../restart`.
pub async fn restart(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    OptionalJson(request): OptionalJson<StopRequest>,
) -> Result {
    params.only(&[])?;
    let handle = app
        .engine
        .restart(&reference, stop_options(&request, None))
        .await?;
    shown_or_last(&app, &handle, StatusCode::OK).await
}

/// `POST .../kill`.
pub async fn kill(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    OptionalJson(request): OptionalJson<KillRequest>,
) -> Result {
    params.only(&[])?;
    let signal = request.signal.unwrap_or(Signal::KILL).number();
    app.engine.kill(&reference, signal, request.all).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST .../pause`.
pub async fn pause(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    _: NoBody,
) -> Result {
    params.only(&[])?;
    let handle = app.engine.freeze(&reference, true).await?;
    shown(&app, &handle, StatusCode::OK).await
}

/// `POST .../resume`.
pub async fn resume(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    _: NoBody,
) -> Result {
    params.only(&[])?;
    let handle = app.engine.freeze(&reference, false).await?;
    shown(&app, &handle, StatusCode::OK).await
}

/// `POST .../resize`.
pub async fn resize(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    body: extract::Json<TermSize>,
) -> Result {
    params.only(&[])?;
    app.engine.resize(&reference, body.value).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET .../wait`.
pub async fn wait(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<WaitResult>> {
    let params = params.only(&["for", "timeout"])?;
    let condition = params
        .get("for")
        .unwrap_or("exited")
        .parse()
        .map_err(|()| ApiError::invalid("'for' is exited, running or removed"))?;
    let limit = params.duration("timeout")?;
    let wait = app.engine.wait(&reference, condition, limit);
    tokio::select! {
        result = wait => Ok(Json(result?)),
        () = app.closing.cancelled() => Err(ApiError::new("unavailable", "the daemon is shutting down")
            .hint("ask again when it is back: the container goes on")),
    }
}

/// `GET .../plan`.
pub async fn plan(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<Plan>> {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    Ok(Json(app.engine.plan(&handle).await?))
}
