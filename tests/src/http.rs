//! A small blocking HTTP/1.1 client over a Unix socket: one request, one connection.
//!
//! Written by hand so that a test sees what is on the wire (chunks, early close, odd headers) and
//! can do what a well-behaved client would not.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use littlebox_types::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::validate;

/// How long one read may take before the test gives up.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The methods the API knows, and one it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl Method {
    /// As it stands in the request line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Beside `Host`, `Connection`, `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// Body, when there is one.
    pub body: Option<Vec<u8>>,
    /// The `Host` header.
    pub host: String,
}

impl Request {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            host: "localhost".into(),
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().into_bytes())
    }

    /// With a body of a content type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.headers
            .push(("content-type".into(), content_type.into()));
        self.body = Some(body);
        self
    }

    /// With another `Host` header.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    fn head(&self) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.method.name(),
            self.path,
            self.host
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head
    }
}

/// Status line and headers.
#[derive(Debug, Clone)]
pub struct Head {
    /// Status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The content type without parameters.
    pub fn content_type(&self) -> Option<&str> {
        self.header("content-type")
            .map(|v| v.split(';').next().unwrap_or(v).trim())
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// What was asked, for messages.
    pub asked: String,
    /// Status line and headers.
    pub head: Head,
    /// Body, decoded from its transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// Status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The same, when the status is this one; else the test fails and shows the body.
    #[track_caller]
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status(),
            status,
            "{} answered {}",
            self.asked,
            self.text()
        );
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of a type.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!(
                "{}: {e} in the answer {} {}",
                self.asked,
                self.status(),
                self.text()
            )
        })
    }

    /// The body as untyped JSON.
    #[track_caller]
    pub fn value(&self) -> Value {
        self.json()
    }

    /// The problem of this status and code; else the test fails.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Problem {
        let this = self.expect(status);
        assert_eq!(
            this.head.content_type(),
            Some("application/problem+json"),
            "{}",
            this.asked
        );
        let problem: Problem = this.json();
        assert_eq!(problem.code, code, "{}: {problem:?}", this.asked);
        assert_eq!(problem.status, status, "{}", this.asked);
        assert_eq!(problem.kind, format!("urn:littlebox:problem:{code}"));
        assert!(
            !problem.detail.is_empty(),
            "{}: no detail: {problem:?}",
            this.asked
        );
        problem
    }

    /// The body as NDJSON records.
    #[track_caller]
    pub fn ndjson<T: DeserializeOwned>(&self) -> Vec<T> {
        self.text()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{}: {e}: {l}", self.asked)))
            .collect()
    }
}

/// What went wrong below HTTP (the daemon was killed, nobody listens).
#[derive(Debug)]
pub struct TransportError(pub String);

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for TransportError {
    fn from(e: std::io::Error) -> Self {
        Self(e.to_string())
    }
}

/// The client of one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the daemon at this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// A connection with the usual read timeout.
    pub fn connect(&self) -> Result<UnixStream, TransportError> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(READ_TIMEOUT * crate::proc::patience()))?;
        Ok(stream)
    }

    /// Sends and reads the whole answer, checked against the contract.
    ///
    /// # Errors
    /// When the connection breaks; a test that expects that handles it.
    pub fn try_send(&self, request: &Request) -> Result<Response, TransportError> {
        let (head, mut body) = self.open(request)?;
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        validate::response(request.method.name(), &request.path, &head, &bytes);
        validate::request(request, head.status);
        Ok(Response {
            asked: format!("{} {}", request.method.name(), request.path),
            head,
            body: bytes,
        })
    }

    /// As [`Client::try_send`]; a broken connection fails the test.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        match self.try_send(request) {
            Ok(response) => response,
            Err(e) => panic!("{} {}: {e}", request.method.name(), request.path),
        }
    }

    /// Sends and hands over the body as a stream of lines.
    #[track_caller]
    pub fn stream(&self, request: &Request) -> Stream {
        match self.open(request) {
            Ok((head, body)) => Stream {
                asked: format!("{} {}", request.method.name(), request.path),
                method: request.method,
                path: request.path.clone(),
                head,
                body: BufReader::new(body),
                seen: Vec::new(),
            },
            Err(e) => panic!("{} {}: {e}", request.method.name(), request.path),
        }
    }

    fn open(&self, request: &Request) -> Result<(Head, Body), TransportError> {
        let mut stream = self.connect()?;
        stream.write_all(request.head().as_bytes())?;
        if let Some(body) = &request.body {
            // A server that refuses a body early closes its end; its answer is still there.
            let _early_refusal = stream.write_all(body);
        }
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader)?;
        let framing = framing(&head)?;
        Ok((head, Body { reader, framing }))
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<Head, TransportError> {
    let line = read_line(reader)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| TransportError(format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(Head { status, headers });
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| TransportError(format!("no header: {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String, TransportError> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(TransportError("connection closed before its answer".into()));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    /// Bytes left in the current chunk; `None` before a chunk's size line.
    Chunked(Option<u64>),
    UntilClose,
    Ended,
}

fn framing(head: &Head) -> Result<Framing, TransportError> {
    if head.status == 204 || head.status == 304 || head.status == 101 {
        return Ok(Framing::Ended);
    }
    if head.header("transfer-encoding") == Some("chunked") {
        return Ok(Framing::Chunked(None));
    }
    match head.header("content-length") {
        Some(n) => n
            .parse()
            .map(Framing::Length)
            .map_err(|_| TransportError(format!("content-length {n:?}"))),
        None => Ok(Framing::UntilClose),
    }
}

/// A body, decoded while it is read.
#[derive(Debug)]
pub struct Body {
    reader: BufReader<UnixStream>,
    framing: Framing,
}

impl Body {
    fn next_chunk(&mut self) -> std::io::Result<u64> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(|_| {
            std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("body cut off: chunk size {line:?}"),
            )
        })?;
        if size == 0 {
            let mut end = String::new();
            self.reader.read_line(&mut end)?;
        }
        Ok(size)
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let limit = match self.framing {
            Framing::Ended => return Ok(0),
            Framing::UntilClose => u64::MAX,
            Framing::Length(n) | Framing::Chunked(Some(n)) => n,
            Framing::Chunked(None) => {
                let size = self.next_chunk()?;
                if size == 0 {
                    self.framing = Framing::Ended;
                    return Ok(0);
                }
                self.framing = Framing::Chunked(Some(size));
                size
            }
        };
        let want = buf.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let n = self.reader.read(&mut buf[..want])?;
        if n == 0 && want > 0 && limit != u64::MAX {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "body cut off",
            ));
        }
        let left = limit - n as u64;
        match self.framing {
            Framing::Length(_) if left == 0 => self.framing = Framing::Ended,
            Framing::Length(_) => self.framing = Framing::Length(left),
            Framing::Chunked(_) if left == 0 => {
                let mut end = String::new();
                self.reader.read_line(&mut end)?;
                self.framing = Framing::Chunked(None);
            }
            Framing::Chunked(_) => self.framing = Framing::Chunked(Some(left)),
            Framing::UntilClose | Framing::Ended => {}
        }
        Ok(n)
    }
}

/// A response that goes on.
#[derive(Debug)]
pub struct Stream {
    asked: String,
    method: Method,
    path: String,
    /// Status line and headers.
    pub head: Head,
    body: BufReader<Body>,
    seen: Vec<u8>,
}

impl Stream {
    /// The same, when the status is this one.
    #[track_caller]
    #[must_use]
    pub fn expect(mut self, status: u16) -> Self {
        if self.head.status != status {
            let mut rest = String::new();
            let _shown = self.body.read_to_string(&mut rest);
            panic!("{} answered {}: {rest}", self.asked, self.head.status);
        }
        self
    }

    /// Fails the read, and so the test, after this long without a byte.
    pub fn timeout(&self, timeout: Duration) {
        let socket = self.body.get_ref().reader.get_ref();
        socket.set_read_timeout(Some(timeout)).unwrap();
    }

    /// The next line without its newline; `None` at the end.
    ///
    /// # Errors
    /// When the connection broke or nothing came in time.
    pub fn try_line(&mut self) -> Result<Option<String>, TransportError> {
        let mut line = Vec::new();
        let n = self.body.read_until(b'\n', &mut line)?;
        self.seen.extend_from_slice(&line);
        if n == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    /// The next line; the test fails when the connection broke.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        match self.try_line() {
            Ok(line) => line,
            Err(e) => panic!("{}: {e}", self.asked),
        }
    }

    /// The next NDJSON record.
    #[track_caller]
    pub fn record<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.line()?;
        match serde_json::from_str(&line) {
            Ok(record) => Some(record),
            Err(e) => panic!("{}: {e}: {line}", self.asked),
        }
    }

    /// The next server-sent event: its fields by name.
    #[track_caller]
    pub fn server_sent_event(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() && !fields.is_empty() {
                return Some(fields);
            }
            if line.is_empty() || line.starts_with(':') {
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            fields.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }

    /// Everything up to the end, and the whole of it checked against the contract.
    #[track_caller]
    pub fn finish(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        validate::response(self.method.name(), &self.path, &self.head, &self.seen);
        lines
    }

    /// The bytes of the body as they come, undecoded into lines.
    pub fn into_reader(self) -> impl Read {
        self.body
    }
}

/// `s` with everything but unreserved characters percent-encoded, for a query value.
pub fn encode(s: &str) -> String {
    s.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}
