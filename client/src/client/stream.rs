//! Streams of bytes and of JSON lines (NDJSON).

use std::io;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::ClientError;
use littlebox_types::Problem;

/// The body of an answer, in pieces as they come.
#[derive(Debug)]
pub struct BodyStream {
    request: String,
    body: Incoming,
}

impl BodyStream {
    pub(super) fn new(request: String, body: Incoming) -> Self {
        Self { request, body }
    }

    /// The next piece; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the stream ended before its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            match frame {
                // Trailers carry nothing here.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                Err(source) => {
                    return Err(ClientError::Broken {
                        request: self.request.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// As a [`Stream`], for combinators.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::unfold(self, |mut this| async move {
            let item = this.next().await.map_err(io::Error::other).transpose()?;
            Some((item, this))
        })
    }
}

/// A stream of JSON lines, each a `T`.
#[derive(Debug)]
pub struct JsonLines<T> {
    body: BodyStream,
    buffer: BytesMut,
    /// How much of `buffer` is known to have no newline.
    searched: usize,
    done: bool,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(super) fn new(body: BodyStream) -> Self {
        let (buffer, item) = (BytesMut::new(), PhantomData);
        Self {
            body,
            buffer,
            searched: 0,
            done: false,
            item,
        }
    }

    /// The next line as it came, without its newline; `None` at the end. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`ClientError::Broken`], and [`ClientError::Problem`] when the stream ends with one.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(line) = self.buffered_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return problem_of(&line).map_or(Ok(Some(line)), Err);
            }
            if self.done {
                return Ok(None);
            }
            match self.body.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => self.done = true,
            }
        }
    }

    /// The next item; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`JsonLines::next_line`], and [`ClientError::Decode`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        let Some(line) = self.next_line().await? else {
            return Ok(None);
        };
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|source| ClientError::Decode {
                request: self.body.request.clone(),
                source,
            })
    }

    /// As a [`Stream`], for combinators.
    pub fn into_stream(self) -> impl Stream<Item = Result<T, ClientError>> + Send
    where
        T: Send,
    {
        futures_util::stream::unfold(self, |mut this| async move {
            let item = this.next().await.transpose()?;
            Some((item, this))
        })
    }

    fn buffered_line(&mut self) -> Option<Bytes> {
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|&b| b == b'\n');
        if let Some(at) = newline {
            let line = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            return Some(line.slice(..line.len() - 1));
        }
        self.searched = self.buffer.len();
        if self.done && !self.buffer.is_empty() {
            self.searched = 0;
            return Some(self.buffer.split().freeze());
        }
        None
    }
}

/// The problem that a line tells, if it does: a stream that fails after its start ends with one.
fn problem_of(line: &[u8]) -> Option<ClientError> {
    const PREFIX: &str = "urn:littlebox:problem:";
    // Cheap first: an ordinary line is parsed only once, by the caller.
    let marked = line.windows(PREFIX.len()).any(|w| w == PREFIX.as_bytes());
    let problem = marked
        .then(|| serde_json::from_slice::<Problem>(line).ok())
        .flatten()?;
    problem
        .kind
        .starts_with(PREFIX)
        .then(|| ClientError::Problem(Box::new(problem)))
}
