//! Logs of containers and output of execs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use littlebox_protocol::LogStream;
use tokio::sync::watch;

use super::error::ApiError;
use super::extract::{Format, Params, Path};
use super::stream::{Gone, Sink, respond};
use super::{App, AppState};
use crate::engine::{Attachment, OutputReader};
use crate::logs::{Chunk, Filter, From, Mode, Record, TextRenderer, line, matches};
use crate::time::{now_ns, parse_instant};

type Result<T = Response> = std::result::Result<T, ApiError>;

/// What to read, and how to show it.
struct Reading {
    from: From,
    filter: Filter,
    follow: Option<watch::Receiver<bool>>,
    format: Format,
    timestamps: bool,
}

/// `GET /v1/containers/{c}/logs`.
pub async fn container(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result {
    let params = params.only(&[
        "tail",
        "since",
        "until",
        "follow",
        "stdout",
        "stderr",
        "timestamps",
        "from",
    ])?;
    let format = Format::negotiate(&headers, &[Format::Ndjson, Format::Text, Format::Sse])?;
    let of = app.engine.attachment(&reference)?;
    let filter = parse_filter(&params)?;
    let reading = Reading {
        from: start(&params, &headers, &filter)?,
        filter,
        follow: params.flag("follow", false)?.then(|| of.ended()),
        format,
        timestamps: params.flag("timestamps", false)?,
    };
    stream(app, of, reading).await
}

/// `GET /v1/execs/{e}/output`.
pub async fn exec(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result {
    let params = params.only(&["from", "follow", "stdout", "stderr"])?;
    let format = Format::negotiate(&headers, &[Format::Ndjson, Format::Raw, Format::Sse])?;
    let of = app.engine.exec_attachment(&reference)?;
    let filter = parse_filter(&params)?;
    let reading = Reading {
        from: start(&params, &headers, &filter)?,
        filter,
        follow: params.flag("follow", false)?.then(|| of.ended()),
        format,
        timestamps: false,
    };
    stream(app, of, reading).await
}

fn parse_filter(params: &Params) -> Result<Filter> {
    let instant = |name: &str| -> Result<Option<u64>> {
        let Some(text) = params.get(name) else {
            return Ok(None);
        };
        let ns = parse_instant(text, now_ns()).ok_or_else(|| {
            ApiError::invalid(format!("query parameter '{name}' is not a time: '{text}'"))
                .hint("write RFC 3339, seconds since the epoch, or a duration back like 10m")
        })?;
        Ok(Some(u64::try_from(ns).unwrap_or(0)))
    };
    Ok(Filter {
        since_ns: instant("since")?,
        until_ns: instant("until")?,
        stdout: params.flag("stdout", true)?,
        stderr: params.flag("stderr", true)?,
    })
}

/// Where to start: a position, the last lines, or the beginning.
fn start(params: &Params, headers: &HeaderMap, filter: &Filter) -> Result<From> {
    let tail = params.number("tail", 0, u32::MAX.into())?;
    let mut from = params.number("from", 0, u64::MAX)?;
    if let Some(last) = headers.get("last-event-id").and_then(|v| v.to_str().ok()) {
        from = Some(last.parse().map_err(|_| {
            ApiError::invalid(format!("the Last-Event-ID '{last}' is not a position"))
        })?);
    }
    let lines = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    match (tail, from) {
        (Some(_), Some(_)) => Err(ApiError::invalid("'tail' and 'from' exclude each other")),
        (Some(n), None) => Ok(match (filter.stdout, filter.stderr) {
            (true, false) => From::TailOf(lines(n), LogStream::Stdout),
            (false, true) => From::TailOf(lines(n), LogStream::Stderr),
            _ => From::Tail(lines(n)),
        }),
        (None, Some(position)) => Ok(From::Position(position)),
        (None, None) => Ok(From::Start),
    }
}

async fn stream(app: Arc<App>, of: Attachment, reading: Reading) -> Result {
    let output = app.engine.read_output(&of, reading.from).await?;
    Ok(respond(reading.format, move |sink| async move {
        // A send that fails means that the client has gone: nobody is left to tell.
        let _ = produce(&app, reading, output, &sink).await;
    }))
}

async fn produce(
    app: &App,
    reading: Reading,
    mut output: OutputReader,
    sink: &Sink,
) -> std::result::Result<(), Gone> {
    let mut text = TextRenderer::new(reading.timestamps);
    loop {
        let mode = reading.follow.as_ref().map_or(Mode::Snapshot, Mode::Follow);
        let chunk = tokio::select! {
            chunk = output.next(mode) => chunk,
            () = sink.closed() => return Err(Gone),
            () = app.closing.cancelled() => {
                let error = ApiError::new("unavailable", "the daemon is shutting down");
                return sink.problem(error.hint("resume with ?from= when it is back")).await;
            }
        };
        match chunk {
            Ok(Chunk::Records(records)) => {
                let mut out = Vec::new();
                for record in &records {
                    if reading.filter.is_past(record) {
                        return sink.bytes(out).await;
                    }
                    if matches(&reading.filter, record) {
                        render(&reading, record, &mut text, &mut out);
                    }
                }
                sink.bytes(out).await?;
            }
            Ok(Chunk::Lagged(bytes)) => {
                tracing::debug!(bytes, "a log reader lost records");
            }
            Ok(Chunk::End) => return Ok(()),
            Err(error) => return sink.problem(error.into()).await,
        }
    }
}

fn render(reading: &Reading, record: &Record, text: &mut TextRenderer, out: &mut Vec<u8>) {
    match reading.format {
        Format::Text | Format::Raw => text.render(record, out),
        Format::Ndjson | Format::Json => crate::logs::render_ndjson(record, out),
        Format::Sse => {
            super::stream::render(Format::Sse, &line(record), Some(record.position), None, out);
        }
    }
}
