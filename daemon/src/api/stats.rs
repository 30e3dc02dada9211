//! `top` and `stats`.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use littlebox_types::{Stats, Top, TopProcess};

use super::AppState;
use super::error::ApiError;
use super::extract::{Format, Params, Path};
use super::stream::respond;
use crate::engine::record::Record;
use crate::engine::{Engine, EngineError, Handle};
use crate::files::IdView;
use crate::procfs;

/// The record of a container that has processes, and its PID 1.
fn running(handle: &Handle, wish: &'static str) -> Result<(Record, u32), EngineError> {
    let record = handle.record();
    match &record.process {
        Some(process) => {
            let pid = process.pid;
            Ok((record, pid))
        }
        None => Err(EngineError::NotRunning {
            name: record.name.to_string(),
            state: record.state,
            wish,
        }),
    }
}

/// `GET /v1/containers/{c}/top`.
pub async fn top(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<Top>, ApiError> {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let (record, pid) = running(&handle, "top")?;
    let ids = IdView::new(record.id_maps.clone());
    let read = move || procfs::top(&record.cgroups, pid);
    let op = "read the container's processes";
    let found = app.engine.read_kernel(op, read).await?;
    let (mut processes, pids): (Vec<TopProcess>, Vec<_>) = found.into_iter().unzip();
    let mut commands = app.engine.command_lines(Some(&handle), pids).await;
    for process in &mut processes {
        process.container_uid = ids.user_inside(process.uid);
        if let Some(command) = commands.remove(&process.pid) {
            process.command = command;
        }
    }
    Ok(Json(Top { processes }))
}

/// `GET /v1/containers/{c}/stats`.
pub async fn stats(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = params.only(&["stream", "interval"])?;
    let interval = params
        .duration("interval")?
        .unwrap_or(Duration::from_secs(1));
    if interval < Duration::from_millis(100) {
        return Err(ApiError::invalid("'interval' is at least 100ms"));
    }
    let handle = app.engine.find(&reference)?;
    let first = measure(&app.engine, &handle).await?;
    if !params.flag("stream", false)? {
        Format::negotiate(&headers, &[Format::Json])?;
        return Ok(Json(first).into_response());
    }
    let format = Format::negotiate(&headers, &[Format::Ndjson, Format::Sse])?;
    let (engine, closing) = (app.engine.clone(), app.closing.clone());
    Ok(respond(format, move |sink| async move {
        let mut last = (first, Instant::now());
        if sink.value(&last.0, None).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = sink.closed() => return,
                () = closing.cancelled() => return,
            }
            // The container has ended: so does its stream.
            let Ok(mut now) = measure(&engine, &handle).await else {
                return;
            };
            let percent = procfs::cpu_percent(last.0.cpu_ns, now.cpu_ns, last.1.elapsed());
            now.cpu_percent = Some(percent);
            last = (now, Instant::now());
            if sink.value(&last.0, None).await.is_err() {
                return;
            }
        }
    }))
}

async fn measure(engine: &Engine, handle: &Handle) -> Result<Stats, ApiError> {
    let (record, pid) = running(handle, "stats")?;
    let read = move || procfs::stats(&record.cgroups, pid);
    Ok(engine.read_kernel("measure the container", read).await?)
}
