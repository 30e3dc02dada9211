//! Building requests: targets, queries, bodies.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::ClientError;

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One request, to be sent.
pub(super) struct Call {
    method: Method,
    target: String,
    has_query: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
}

impl Call {
    /// A request to the path made of these segments below `/v1`; they are percent-encoded.
    pub(super) fn new(method: Method, segments: &[&str]) -> Self {
        let mut target = String::from("/v1");
        for segment in segments {
            target.push('/');
            encode(&mut target, segment);
        }
        Self {
            method,
            target,
            has_query: false,
            headers: Vec::new(),
            body: empty(),
        }
    }

    pub(super) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub(super) fn post(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    /// A request to a path outside `/v1`.
    pub(super) fn get_root(path: &str) -> Self {
        let target = path.to_owned();
        let (method, headers) = (Method::GET, Vec::new());
        Self {
            method,
            target,
            has_query: false,
            headers,
            body: empty(),
        }
    }

    /// Adds `key=value`.
    pub(super) fn query(mut self, key: &str, value: impl Display) -> Self {
        self.target.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.target.push_str(key);
        self.target.push('=');
        encode(&mut self.target, &value.to_string());
        self
    }

    /// Adds `key=value` when there is a value.
    pub(super) fn maybe(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// Adds `key=true` when set.
    pub(super) fn flag(self, key: &str, set: bool) -> Self {
        if set { self.query(key, true) } else { self }
    }

    /// Adds a duration when there is one.
    pub(super) fn duration(self, key: &str, value: Option<Duration>) -> Self {
        self.maybe(key, value.map(|d| format!("{}ms", d.as_millis())))
    }

    /// Adds a header; the value must be visible ASCII.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, ClientError> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| ClientError::Build(format!("not a valid {name} header: '{value}'")))?;
        self.headers.push((name, value));
        Ok(self)
    }

    /// With a JSON body.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|e| ClientError::Build(e.to_string()))?;
        self.body = Full::new(Bytes::from(bytes))
            .map_err(|e| match e {})
            .boxed_unsync();
        let json = HeaderValue::from_static("application/json");
        self.headers.push((header::CONTENT_TYPE, json));
        Ok(self)
    }

    /// With a streamed body of this content type.
    pub(super) fn stream<S>(mut self, content_type: &'static str, stream: S) -> Self
    where
        S: futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        use futures_util::StreamExt;
        self.body = StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
        self.headers
            .push((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        self
    }

    /// Method and path, for messages.
    pub(super) fn describe(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    pub(super) fn into_request(self) -> Result<Request<Body>, ClientError> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(header::HOST, HeaderValue::from_static("localhost"))
            .body(self.body)
            .map_err(|e| ClientError::Build(e.to_string()))?;
        request.headers_mut().extend(self.headers);
        Ok(request)
    }
}

fn empty() -> Body {
    Empty::new().map_err(|e| match e {}).boxed_unsync()
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_values_are_percent_encoded() {
        let call = Call::get(&["containers", "a/b c"])
            .query("filter", "label=k=v&x")
            .flag("follow", true)
            .flag("stdout", false)
            .duration("wait", Some(Duration::from_millis(1500)));
        assert_eq!(
            call.target,
            "/v1/containers/a%2Fb%20c?filter=label%3Dk%3Dv%26x&follow=true&wait=1500ms"
        );
    }
}
