//! HTTP/1.1 over a Unix socket, as small as a client of one server can be: the benchmark must not
//! measure its own client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

/// A connection that is kept open.
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// An answer.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON, when the status is 2xx.
    ///
    /// # Errors
    /// Any other status, with the body as the reason; a body that is no JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        self.ok()?;
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// # Errors
    /// A status other than 2xx.
    pub fn ok(&self) -> anyhow::Result<()> {
        if !(200..300).contains(&self.status) {
            bail!("{}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        Ok(())
    }
}

impl Client {
    /// # Errors
    /// Nobody listens.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        Ok(Client {
            stream: BufReader::with_capacity(64 * 1024, stream),
        })
    }

    /// One request, its whole answer.
    ///
    /// # Errors
    /// A broken connection, or an answer that is not HTTP.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response> {
        let body = body.map(Value::to_string);
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n");
        if let Some(body) = &body {
            request += &format!(
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        } else {
            request += "\r\n";
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.receive()
    }

    /// GET for JSON.
    ///
    /// # Errors
    /// As [`Self::send`], and any status but 2xx.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.send("GET", path, "application/json", None)?.json()
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("POST", path, "application/json", Some(body))?
            .json()
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn delete(&mut self, path: &str) -> anyhow::Result<()> {
        self.send("DELETE", path, "application/json", None)?.ok()
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the daemon closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }

    fn receive(&mut self) -> anyhow::Result<Response> {
        let status_line = self.line()?;
        let status: u16 = status_line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .with_context(|| format!("not HTTP: {status_line}"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = self.line()?;
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => chunked = value.contains("chunked"),
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            self.chunks(&mut body)?;
        } else {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        }
        Ok(Response { status, body })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> anyhow::Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}
