//! Parsing at the edge: query parameters, bodies, headers.

use std::str::FromStr;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use littlebox_plan::pointer;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::strict::Strict;
use crate::time::parse_duration;

/// The most bytes a JSON body may have.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// The path's parameters. Bytes that are no UTF-8 are no reference to anything.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|e| ApiError::new("invalid_reference", e.body_text()))
    }
}

/// The query's parameters; each handler says which it knows.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::invalid(format!("the query cannot be read: {e}")))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Refuses parameters that the route does not know, and repeated ones that it takes once.
    pub fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let list = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                return Err(
                    ApiError::invalid(format!("unknown query parameter '{name}'"))
                        .hint(format!("this route knows: {list}")),
                );
            }
            if name != "filter" && self.0[..index].iter().any(|(other, _)| other == name) {
                return Err(ApiError::invalid(format!(
                    "query parameter '{name}' is given twice"
                )));
            }
        }
        Ok(self)
    }

    /// A parameter's text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Every value of a repeatable parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// A switch: absent is `default`, present and empty is true.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(default),
            Some("" | "true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(ApiError::invalid(format!(
                "query parameter '{name}' is true or false, not '{other}'"
            ))),
        }
    }

    /// A number within bounds.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(n) if (min..=max).contains(&n) && !text.starts_with('+') => Ok(Some(n)),
            _ => Err(ApiError::invalid(format!(
                "query parameter '{name}' is a whole number from {min} to {max}, not '{text}'"
            ))),
        }
    }

    /// Which part of a list is asked for: how many items, after which one.
    pub fn page<Id: FromStr>(&self) -> Result<(usize, Option<Id>), ApiError> {
        let limit = self.number("limit", 1, 1000)?.unwrap_or(100);
        let cursor = self.get("cursor").map(|text| {
            let refused = |_| ApiError::invalid(format!("not a cursor: '{text}'"));
            text.parse().map_err(refused)
        });
        Ok((usize::try_from(limit).unwrap_or(100), cursor.transpose()?))
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        parse_duration(text).map(Some).ok_or_else(|| {
            ApiError::invalid(format!(
                "query parameter '{name}' is not a duration: '{text}'"
            ))
            .hint("write 30s, 500ms, 2m, 1h or plain seconds, at most 24h")
        })
    }
}

/// A JSON body.
#[derive(Debug)]
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// Its digest with the method and path, for idempotency.
    pub digest: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, digest) = read(request, false).await?;
        Ok(Self {
            value: parse(&bytes)?,
            digest,
        })
    }
}

/// A JSON body that may be absent.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, _) = read(request, true).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

/// A route that takes no body: one that is sent anyway is refused.
#[derive(Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, _) = collect(request).await?;
        if bytes.is_empty() || bytes.as_ref() == b"{}" {
            return Ok(Self);
        }
        Err(ApiError::invalid("this route takes no body"))
    }
}

async fn read(request: Request, optional: bool) -> Result<(bytes::Bytes, String), ApiError> {
    let json = is_json(request.headers());
    let (bytes, digest) = collect(request).await?;
    if json || (optional && bytes.is_empty()) {
        return Ok((bytes, digest));
    }
    Err(ApiError::new(
        "unsupported_media_type",
        "the body's Content-Type must be application/json",
    )
    .hint("with curl: -H 'Content-Type: application/json'"))
}

async fn collect(request: Request) -> Result<(bytes::Bytes, String), ApiError> {
    let (method, path) = (request.method().clone(), request.uri().clone());
    let bytes = whole(request.into_body().into_data_stream()).await?;
    let digest = digest(&[
        method.as_str().as_bytes(),
        path.to_string().as_bytes(),
        &bytes,
    ]);
    Ok((bytes, digest))
}

/// The whole body, up to its limit.
async fn whole(mut body: BodyDataStream) -> Result<bytes::Bytes, ApiError> {
    let mut bytes = bytes::BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece =
            piece.map_err(|e| ApiError::invalid(format!("the body could not be read: {e}")))?;
        if bytes.len() + piece.len() > BODY_LIMIT {
            return Err(ApiError::new(
                "body_too_large",
                format!("the body has more than {BODY_LIMIT} bytes"),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// A digest that tells requests apart. It is kept in the database, so it must be the same in every
/// build of the daemon.
fn digest(parts: &[&[u8]]) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length, so that no two splits of the same bytes are alike.
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    format!("{:x}", hasher.finalize())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
    else {
        return false;
    };
    let media = value.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json")
}

/// Parses JSON and points at what is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|e| {
        let text = e.inner().to_string();
        if !e.inner().is_data() {
            return ApiError::invalid(format!("the body is not JSON: {text}"));
        }
        at_pointer(&text, pointer::of(e.path()))
    })?;
    deserializer
        .end()
        .map_err(|e| ApiError::invalid(format!("the body is not JSON: {e}")))?;
    Ok(value)
}

/// What serde says of a value, with the place of it.
fn at_pointer(text: &str, mut pointer: String) -> ApiError {
    // The place in the text means nothing to who sees the pointer.
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let Some(rest) = text.strip_prefix("unknown field `") else {
        let place = if pointer.is_empty() { "" } else { ": " };
        return ApiError::invalid(format!("{pointer}{place}{text}")).pointer(pointer);
    };
    let (field, known) = rest.split_once("`, expected ").unwrap_or((rest, "none"));
    let token = pointer::below("", field);
    if !pointer.ends_with(&token) {
        pointer.push_str(&token);
    }
    ApiError::invalid(format!("unknown field '{field}'"))
        .pointer(pointer)
        .hint(format!(
            "known here: {}",
            known.trim_start_matches("one of ").replace('`', "")
        ))
}

/// The `Idempotency-Key` header with the request's digest.
pub fn idempotency(
    headers: &HeaderMap,
    digest: &str,
) -> Result<Option<(String, String)>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|k| !k.is_empty() && k.len() <= 255 && k.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or_else(|| {
            ApiError::invalid("Idempotency-Key has 1 to 255 visible ASCII characters")
        })?;
    Ok(Some((key.to_owned(), digest.to_owned())))
}

/// A generation from an entity tag header (`If-Match`, `If-None-Match`). `*` is `None`.
pub fn etag(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(&name) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.trim_start_matches("W/")
        .trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| {
            ApiError::invalid(format!(
                "{name} takes one ETag as this API gives them, like \"7\""
            ))
        })
}

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON value per line.
    Ndjson,
    /// Server-sent events.
    Sse,
    /// text/plain.
    Text,
    /// application/octet-stream.
    Raw,
    /// application/json.
    Json,
}

impl Format {
    /// The media type.
    pub fn media(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Sse => "text/event-stream",
            Format::Text => "text/plain",
            Format::Raw => "application/octet-stream",
            Format::Json => "application/json",
        }
    }

    /// The first of the client's accepted media types that is allowed; without a wish the first
    /// allowed one.
    pub fn negotiate(headers: &HeaderMap, allowed: &[Format]) -> Result<Self, ApiError> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("*/*");
        for wish in accept.split(',') {
            let wish = wish.split(';').next().unwrap_or_default().trim();
            let fits = |f: &&Format| {
                let media = f.media();
                let group = media.split('/').next().unwrap_or_default();
                wish == "*/*"
                    || wish.eq_ignore_ascii_case(media)
                    || wish
                        .strip_suffix("/*")
                        .is_some_and(|g| g.eq_ignore_ascii_case(group))
            };
            if let Some(format) = allowed.iter().find(fits) {
                return Ok(*format);
            }
        }
        let list = allowed
            .iter()
            .map(|f| f.media())
            .collect::<Vec<_>>()
            .join(", ");
        Err(
            ApiError::new("not_acceptable", format!("'{accept}' cannot be given"))
                .hint(format!("this route gives {list}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littlebox_types::ContainerConfig;

    fn pointer_of(body: &str) -> String {
        let error = parse::<ContainerConfig>(body.as_bytes()).unwrap_err();
        error.problem().pointer.clone().unwrap_or_default()
    }

    #[test]
    fn an_unknown_field_is_pointed_at() {
        assert_eq!(pointer_of(r#"{"rootfs":"host","colour":1}"#), "/colour");
        assert_eq!(pointer_of(r#"{"resources":{"ram":1}}"#), "/resources/ram");
        assert_eq!(
            pointer_of(r#"{"mounts":[{"type":"bind","destination":"/x","a/b":1}]}"#),
            "/mounts/0/a~1b"
        );
    }

    #[test]
    fn a_wrong_type_is_pointed_at() {
        assert_eq!(pointer_of(r#"{"command":["a",1]}"#), "/command/1");
        assert_eq!(pointer_of(r#"{"name":"-x"}"#), "/name");
    }

    #[test]
    fn a_value_that_cannot_be_read_is_pointed_at_and_explained() {
        for (body, pointer) in [
            (r#"{"stop_signal":"SIGNONE"}"#, "/stop_signal"),
            (r#"{"groups":["adm","-2"]}"#, "/groups/1"),
            (r#"{"namespaces":{"net":"bridge"}}"#, "/namespaces/net"),
            (r#"{"namespaces":{"a/b":"new"}}"#, "/namespaces/a~1b"),
            (
                r#"{"mounts":[{"type":"tmpfs","destination":"/x","mode":"8"}]}"#,
                "/mounts/0/mode",
            ),
        ] {
            assert_eq!(pointer_of(body), pointer, "{body}");
        }
        let frame = br#"{"type":"signal","signal":"SIGNONE"}"#;
        let error = parse::<littlebox_types::ClientControl>(frame).unwrap_err();
        assert_eq!(
            error.problem().detail,
            "'SIGNONE' is not a signal: use a name like SIGTERM or RTMIN+3, or a number from 1 to 64"
        );
        let error = parse::<ContainerConfig>(br#"{"umask":"8"}"#).unwrap_err();
        assert_eq!(
            error.problem().detail,
            "/umask: '8' is not a valid octal number: use octal digits, from 0 to 777"
        );
    }

    #[test]
    fn a_digest_is_the_same_in_every_build() {
        let known = "74003b5a17beb1755204107fba92bbe25bd5a91a749e44ffd27fd395d99036b7";
        assert_eq!(digest(&[b"POST", b"/v1/containers", b"{}"]), known);
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    #[test]
    fn accept_headers() {
        let mut headers = HeaderMap::new();
        let allowed = [Format::Ndjson, Format::Sse];
        assert_eq!(
            Format::negotiate(&headers, &allowed).unwrap(),
            Format::Ndjson
        );
        headers.insert(
            header::ACCEPT,
            "text/html, text/event-stream;q=0.9".parse().unwrap(),
        );
        assert_eq!(Format::negotiate(&headers, &allowed).unwrap(), Format::Sse);
        headers.insert(header::ACCEPT, "image/png".parse().unwrap());
        assert!(Format::negotiate(&headers, &allowed).is_err());
    }
}
