//! The HTTP client: typed methods for every route, over the daemon's Unix socket.
//!
//! Requests of one [`Client`] that follow each other reuse one connection; a request made while
//! another is under way opens its own. Streams and interactive sessions keep theirs.
//!
//! Needs a running tokio runtime with I/O (and time) enabled.

mod attach;
mod call;
mod containers;
mod error;
mod execs;
mod machine;
mod stream;

pub use attach::{AttachFrom, AttachOptions, AttachSink, AttachStream, Attached, Received};
pub use containers::{CreateOptions, ListOptions, LogOptions};
pub use error::ClientError;
pub use machine::EventOptions;
pub use stream::{BodyStream, JsonLines};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::response::Parts;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use call::{Body, Call};
use littlebox_types::Problem;

/// Where the daemon listens when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/littlebox.sock";

/// A client of one daemon. Cheap to make: nothing is opened before the first request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    idle: Mutex<Option<SendRequest<Body>>>,
}

/// An answer whose body was not read yet.
struct Reply {
    request: String,
    parts: Parts,
    body: Incoming,
    sender: SendRequest<Body>,
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            idle: Mutex::new(None),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect {
                    socket: self.socket.clone(),
                    source,
                })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| ClientError::Broken {
                    request: "the opening of a connection".into(),
                    source: e,
                })?;
        // Its errors reach whoever waits for an answer.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let sender = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        (!sender.is_closed()).then_some(sender)
    }

    fn put_idle(&self, sender: SendRequest<Body>) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    /// Sends a request, whatever its answer's status will be. An idle connection that the daemon
    /// has closed meanwhile is replaced, once, as long as nothing of the request was written.
    async fn send(&self, call: Call) -> Result<Reply, ClientError> {
        let description = call.describe();
        let mut request = call.into_request()?;
        if let Some(mut sender) = self.take_idle()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Reply::new(description, response, sender)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(description)(failed.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        match sender.send_request(request).await {
            Ok(response) => Ok(Reply::new(description, response, sender)),
            Err(e) => Err(broken(description)(e)),
        }
    }

    /// Sends a request that must succeed: an answer of 400 and above becomes an error.
    async fn send_ok(&self, call: Call) -> Result<Reply, ClientError> {
        let reply = self.send(call).await?;
        if reply.parts.status.is_client_error() || reply.parts.status.is_server_error() {
            return Err(self.failure(reply).await);
        }
        Ok(reply)
    }

    /// Reads an answer to its end; its connection is free again then.
    async fn collect(&self, reply: Reply) -> Result<(String, Parts, Bytes), ClientError> {
        let Reply {
            request,
            parts,
            body,
            sender,
        } = reply;
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(e) => return Err(broken(request)(e)),
        };
        self.put_idle(sender);
        Ok((request, parts, bytes))
    }

    /// An unsuccessful answer as an error.
    async fn failure(&self, reply: Reply) -> ClientError {
        let (request, parts, bytes) = match self.collect(reply).await {
            Ok(collected) => collected,
            Err(e) => return e,
        };
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Unexpected {
                request,
                what: parts.status.to_string(),
            },
        }
    }

    /// Sends a request whose answer is JSON.
    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.json_status(call).await.map(|(value, _)| value)
    }

    /// As [`Client::json`], with the status.
    async fn json_status<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<(T, StatusCode), ClientError> {
        let reply = self.send_ok(call).await?;
        let (request, parts, bytes) = self.collect(reply).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Decode { request, source })?;
        Ok((value, parts.status))
    }

    /// Sends a request whose answer has no body, or none that matters.
    async fn empty(&self, call: Call) -> Result<(), ClientError> {
        let reply = self.send_ok(call).await?;
        self.collect(reply).await.map(drop)
    }

    /// Sends a request whose answer is text.
    async fn text(&self, call: Call) -> Result<String, ClientError> {
        let reply = self.send_ok(call).await?;
        let (_, _, bytes) = self.collect(reply).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a request whose answer is a stream of bytes; `accept` chooses the representation.
    async fn stream(&self, call: Call, accept: &str) -> Result<BodyStream, ClientError> {
        let reply = self.send_ok(call.header(header::ACCEPT, accept)?).await?;
        Ok(BodyStream::new(reply.request, reply.body))
    }

    /// Sends a request whose answer is a stream of JSON lines.
    async fn lines<T: DeserializeOwned>(&self, call: Call) -> Result<JsonLines<T>, ClientError> {
        self.stream(call, "application/x-ndjson")
            .await
            .map(JsonLines::new)
    }
}

impl Reply {
    fn new(request: String, response: http::Response<Incoming>, sender: SendRequest<Body>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            request,
            parts,
            body,
            sender,
        }
    }
}

fn broken(request: String) -> impl FnOnce(hyper::Error) -> ClientError {
    move |source| ClientError::Broken { request, source }
}
