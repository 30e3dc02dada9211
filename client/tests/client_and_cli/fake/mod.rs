//! A daemon played by the test: answers HTTP/1.1 on a Unix socket as it is told.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "tests, which each use a part"
)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use lbctl::client::Client;
use littlebox_types::EXEC_SUBPROTOCOL;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A request, read to its end.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

type Play = Box<dyn FnOnce(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What to answer.
pub struct Reply {
    status: u16,
    headers: String,
    body: Vec<Vec<u8>>,
    chunked: bool,
    close: bool,
    cut_off: bool,
    play: Option<(Play, &'static str)>,
}

impl Reply {
    fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = format!("content-type: {content_type}\r\n");
        let body = vec![body];
        Self {
            status,
            headers,
            body,
            chunked: false,
            close: false,
            cut_off: false,
            play: None,
        }
    }

    pub fn json(status: u16, value: &impl Serialize) -> Self {
        Self::new(
            status,
            "application/json",
            serde_json::to_vec(value).unwrap(),
        )
    }

    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain", text.into())
    }

    pub fn empty(status: u16) -> Self {
        Self::new(status, "text/plain", Vec::new())
    }

    /// A stream of these pieces.
    pub fn chunks(pieces: Vec<Vec<u8>>) -> Self {
        let stream = Self::new(200, "application/x-ndjson", Vec::new());
        Self {
            body: pieces,
            chunked: true,
            ..stream
        }
    }

    /// An upgrade, and what happens then. The connection is dropped afterwards.
    pub fn web_socket(
        play: impl FnOnce(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            play: Some((Box::new(play), EXEC_SUBPROTOCOL)),
            ..Self::empty(101)
        }
    }

    pub fn of_protocol(mut self, protocol: &'static str) -> Self {
        if let Some((_, subprotocol)) = &mut self.play {
            *subprotocol = protocol;
        }
        self
    }

    /// Closes the connection after the answer, without having said so.
    pub fn and_close(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }

    /// Closes the connection before the answer's end.
    pub fn cut_off(self) -> Self {
        Self {
            cut_off: true,
            close: true,
            ..self
        }
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// The daemon; its socket goes with it.
pub struct Fake {
    directory: tempfile::TempDir,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Listens. Needs a tokio runtime.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, answer): (_, Arc<Answer>) = (connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Self {
            directory,
            connections,
        }
    }

    pub fn socket(&self) -> PathBuf {
        Path::join(self.directory.path(), "s")
    }

    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: UnixStream, answer: Arc<Answer>) {
    while let Some(request) = read_request(&mut stream).await {
        let reply = answer(&request);
        if let Some((play, protocol)) = reply.play {
            let accept = derive_accept_key(request.header("sec-websocket-key").unwrap().as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-accept: {accept}\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            return play(Socket(socket)).await;
        }
        write_reply(&mut stream, &reply).await;
        if reply.close {
            return;
        }
    }
}

async fn write_reply(stream: &mut UnixStream, reply: &Reply) {
    let length = if reply.chunked {
        "transfer-encoding: chunked\r\n".to_owned()
    } else if matches!(reply.status, 204 | 304) {
        String::new()
    } else {
        format!("content-length: {}\r\n", reply.body[0].len())
    };
    let Reply {
        status, headers, ..
    } = reply;
    let head = format!("HTTP/1.1 {status} \r\n{headers}{length}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in &reply.body {
        if reply.chunked {
            stream
                .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                .await
                .unwrap();
        }
        stream.write_all(piece).await.unwrap();
        if reply.chunked {
            stream.write_all(b"\r\n").await.unwrap();
            // So that pieces arrive as such.
            tokio::task::yield_now().await;
        }
    }
    if reply.chunked && !reply.cut_off {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
}

async fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let mut data = Vec::new();
    let head_end = loop {
        if let Some(at) = data.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut data).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(data[..head_end].to_vec()).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request {
        method,
        target,
        head,
        body: data.split_off(head_end),
    };
    if request.header("transfer-encoding") == Some("chunked") {
        while !request.body.ends_with(b"0\r\n\r\n") {
            stream.read_buf(&mut request.body).await.unwrap();
        }
        request.body = unchunk(&request.body);
    } else {
        let length = request
            .header("content-length")
            .map_or(0, |n| n.parse().unwrap());
        while request.body.len() < length {
            stream.read_buf(&mut request.body).await.unwrap();
        }
    }
    Some(request)
}

fn unchunk(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line_end = data.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&data[..line_end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return out;
        }
        out.extend_from_slice(&data[line_end + 2..][..size]);
        data = &data[line_end + 2 + size + 2..];
    }
}

/// The daemon's end of an interactive stream.
pub struct Socket(WebSocketStream<UnixStream>);

impl Socket {
    pub async fn control(&mut self, control: &impl Serialize) {
        let text = serde_json::to_string(control).unwrap();
        // The client may have gone.
        let _ = self.0.send(Message::Text(text.into())).await;
    }

    pub async fn output(&mut self, channel: u8, data: &[u8]) {
        let frame = [&[channel], data].concat();
        let _ = self.0.send(Message::Binary(frame.into())).await;
    }

    /// The next binary frame.
    pub async fn binary(&mut self) -> Vec<u8> {
        match self.0.next().await {
            Some(Ok(Message::Binary(data))) => data.to_vec(),
            other => panic!("{other:?} instead of a binary frame"),
        }
    }

    /// The next text frame.
    pub async fn text<T: DeserializeOwned>(&mut self) -> T {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("{other:?} instead of a text frame"),
        }
    }

    /// Until the client has gone.
    pub async fn closed(&mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }
}
