//! Streams as bodies: NDJSON, server-sent events, text.

use std::convert::Infallible;
use std::future::Future;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::extract::Format;

/// Where a stream's producer writes. Bounded: a slow client holds its own producer back and
/// nobody else.
#[derive(Debug)]
pub struct Sink {
    sender: mpsc::Sender<Bytes>,
    format: Format,
}

/// The client has gone.
#[derive(Debug)]
pub struct Gone;

impl Sink {
    /// Sends bytes as they are.
    pub async fn bytes(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.send(bytes.into()).await.map_err(|_| Gone)
    }

    /// Sends one value; `id` is the `id:` of a server-sent event.
    pub async fn value<T: Serialize>(&self, value: &T, id: Option<u64>) -> Result<(), Gone> {
        let mut out = Vec::new();
        render(self.format, value, id, None, &mut out);
        self.bytes(out).await
    }

    /// Ends the stream with a record of the problem's shape.
    pub async fn problem(&self, error: ApiError) -> Result<(), Gone> {
        let problem = error.into_problem();
        let mut out = Vec::new();
        match self.format {
            Format::Ndjson | Format::Json => render(self.format, &problem, None, None, &mut out),
            Format::Sse => render(self.format, &problem, None, Some("problem"), &mut out),
            // Bytes of a program have no room for a record of ours: the body just ends.
            Format::Text | Format::Raw => return Ok(()),
        }
        self.bytes(out).await
    }

    /// Completes when the client has gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// Writes one value in a format.
pub fn render<T: Serialize>(
    format: Format,
    value: &T,
    id: Option<u64>,
    event: Option<&str>,
    out: &mut Vec<u8>,
) {
    // Our wire types have string keys only: writing them into memory cannot fail.
    let json = serde_json::to_vec(value).unwrap_or_default();
    if format == Format::Sse {
        if let Some(id) = id {
            out.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        if let Some(event) = event {
            out.extend_from_slice(format!("event: {event}\n").as_bytes());
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&json);
        out.extend_from_slice(b"\n\n");
    } else {
        out.extend_from_slice(&json);
        out.push(b'\n');
    }
}

/// A response whose body is produced by `produce` in a task of its own, which ends when the
/// client goes (its sends fail, or [`Sink::closed`] completes).
pub fn respond<F, Fut>(format: Format, produce: F) -> Response
where
    F: FnOnce(Sink) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(produce(Sink { sender, format }));
    let body = stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(bytes), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, format.media()),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(body)).into_response()
}
