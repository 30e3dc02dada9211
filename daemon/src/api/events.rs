//! `/v1/events`: durable, contiguous, resumable.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use littlebox_types::Event;

use super::error::ApiError;
use super::extract::{Format, Params};
use super::stream::{Gone, Sink, respond};
use super::{App, AppState};

/// Events read at once.
const BATCH: u32 = 500;

struct Wanted {
    kinds: Vec<String>,
    containers: Vec<String>,
}

impl Wanted {
    fn matches(&self, event: &Event) -> bool {
        let kind = |k: &String| event.kind == *k || event.kind.starts_with(&format!("{k}."));
        let container = |c: &String| {
            event.name.as_deref() == Some(c)
                || event
                    .container_id
                    .as_ref()
                    .is_some_and(|id| id.starts_with(c.as_str()))
        };
        (self.kinds.is_empty() || self.kinds.iter().any(kind))
            && (self.containers.is_empty() || self.containers.iter().any(container))
    }
}

/// `GET /v1/events`.
pub async fn list(
    State(app): AppState,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = params.only(&["since_seq", "follow", "filter"])?;
    let format = Format::negotiate(&headers, &[Format::Ndjson, Format::Sse])?;
    let follow = params.flag("follow", true)?;
    let mut wanted = Wanted {
        kinds: Vec::new(),
        containers: Vec::new(),
    };
    for filter in params.all("filter") {
        match filter.split_once('=') {
            Some(("kind", kind)) => wanted.kinds.push(kind.to_owned()),
            Some(("container", c)) => wanted.containers.push(c.to_owned()),
            _ => {
                return Err(ApiError::invalid(format!("'{filter}' is no filter"))
                    .hint("write kind=container.started, kind=exec or container=NAME"));
            }
        }
    }
    let mut since = params.number("since_seq", 0, i64::MAX.unsigned_abs())?;
    if let Some(last) = headers.get("last-event-id").and_then(|v| v.to_str().ok()) {
        since = Some(last.parse().map_err(|_| {
            ApiError::invalid(format!("the Last-Event-ID '{last}' is no sequence number"))
        })?);
    }
    if !follow {
        app.engine.settle_events().await;
    }
    // A reader that only wants what comes starts at the newest; one that wants what there is, at
    // the oldest.
    let newest = *app.engine.newest_event().borrow();
    let since = since.unwrap_or(if follow { newest } else { 0 });
    Ok(respond(format, move |sink| async move {
        // A send that fails means that the client has gone: nobody is left to tell.
        let _ = produce(&app, &sink, wanted, since, follow).await;
    }))
}

async fn produce(
    app: &Arc<App>,
    sink: &Sink,
    wanted: Wanted,
    mut since: u64,
    follow: bool,
) -> Result<(), Gone> {
    let mut newest = app.engine.newest_event();
    loop {
        newest.mark_unchanged();
        let events = match app.engine.events(since, BATCH).await {
            Ok(events) => events,
            Err(error) => return sink.problem(error.into()).await,
        };
        let whole = events.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
        for event in events {
            since = event.seq;
            if wanted.matches(&event) {
                sink.value(&event, Some(event.seq)).await?;
            }
        }
        if whole {
            continue;
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return Ok(()) },
            () = sink.closed() => return Err(Gone),
            () = app.closing.cancelled() => {
                let error = ApiError::new("unavailable", "the daemon is shutting down");
                return sink.problem(error.hint("resume with ?since_seq= when it is back")).await;
            }
        }
    }
}
