//! A blocking client of `littlebox.exec.v1`.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use littlebox_types::{ClientControl, EXEC_SUBPROTOCOL, Exit, ServerControl};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::{Message, WebSocket};

use crate::http::Client;

/// What came from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Standard output, and everything of a terminal.
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
    /// A control frame.
    Control(Box<ServerControl>),
    /// The server closed.
    Closed,
}

/// An open stream.
pub struct Ws {
    socket: WebSocket<UnixStream>,
    /// All of stdout so far.
    pub stdout: Vec<u8>,
    /// All of stderr so far.
    pub stderr: Vec<u8>,
    /// The position that was told last, by the first frame or a later one.
    pub position: u64,
    /// Whether the program has a terminal.
    pub terminal: bool,
}

impl Ws {
    /// Opens the stream at `path` and reads its `attached` frame.
    #[track_caller]
    pub fn open(client: &Client, path: &str) -> Self {
        let stream = client.connect().unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut request = format!("ws://localhost{path}")
            .into_client_request()
            .unwrap();
        let protocol = EXEC_SUBPROTOCOL.parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (socket, response) = match tungstenite::client(request, stream) {
            Ok(opened) => opened,
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                panic!(
                    "{path}: {} {}",
                    response.status(),
                    String::from_utf8_lossy(&body)
                );
            }
            Err(e) => panic!("{path}: {e}"),
        };
        crate::validate::upgrade(path, &response);
        assert_eq!(
            response
                .headers()
                .get("sec-websocket-protocol")
                .map(|v| v.to_str().unwrap()),
            Some(EXEC_SUBPROTOCOL)
        );
        let mut ws = Self {
            socket,
            stdout: Vec::new(),
            stderr: Vec::new(),
            position: 0,
            terminal: false,
        };
        let first = ws.frame();
        let Frame::Control(control) = &first else {
            panic!("{path}: the first frame is {first:?}");
        };
        let ServerControl::Attached { terminal, position } = **control else {
            panic!("{path}: the first frame is {first:?}");
        };
        ws.terminal = terminal;
        ws.position = position;
        ws
    }

    /// Sends bytes to stdin.
    #[track_caller]
    pub fn stdin(&mut self, data: &[u8]) {
        let mut frame = vec![0];
        frame.extend_from_slice(data);
        self.socket.send(Message::binary(frame)).unwrap();
    }

    /// Sends control.
    #[track_caller]
    pub fn control(&mut self, control: &ClientControl) {
        self.text(&serde_json::to_string(control).unwrap());
    }

    /// Sends a text frame as it is.
    #[track_caller]
    pub fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends a binary frame as it is.
    #[track_caller]
    pub fn raw(&mut self, frame: Vec<u8>) {
        self.socket.send(Message::binary(frame)).unwrap();
    }

    /// The next frame; output is also gathered in `stdout` and `stderr`.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        loop {
            let message = match self.socket.read() {
                Ok(message) => message,
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    return Frame::Closed;
                }
                Err(tungstenite::Error::Protocol(e)) => panic!("websocket: {e}"),
                Err(tungstenite::Error::Io(e)) if is_timeout(&e) => {
                    panic!(
                        "no frame in time; so far stdout {:?} stderr {:?}",
                        String::from_utf8_lossy(&self.stdout),
                        String::from_utf8_lossy(&self.stderr)
                    )
                }
                Err(_) => return Frame::Closed,
            };
            match message {
                Message::Binary(bytes) => return self.output(&bytes),
                Message::Text(text) => {
                    crate::validate::frame(&text);
                    let control: ServerControl = serde_json::from_str(&text)
                        .unwrap_or_else(|e| panic!("control frame {text}: {e}"));
                    if let ServerControl::Position { position } = control {
                        self.position = position;
                        continue;
                    }
                    return Frame::Control(Box::new(control));
                }
                Message::Close(_) => return Frame::Closed,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn output(&mut self, bytes: &[u8]) -> Frame {
        let (channel, data) = bytes.split_first().expect("an empty binary frame");
        match channel {
            1 => {
                self.stdout.extend_from_slice(data);
                Frame::Stdout(data.to_vec())
            }
            2 => {
                self.stderr.extend_from_slice(data);
                Frame::Stderr(data.to_vec())
            }
            n => panic!("a binary frame on channel {n}"),
        }
    }

    /// Reads until stdout contains `needle`.
    #[track_caller]
    pub fn until(&mut self, needle: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !contains(&self.stdout, needle.as_bytes()) {
            assert!(
                Instant::now() < deadline,
                "{needle:?} never came: {:?}",
                String::from_utf8_lossy(&self.stdout)
            );
            match self.frame() {
                Frame::Stdout(_) | Frame::Stderr(_) => {}
                other => panic!(
                    "{other:?} before {needle:?}; stdout {:?}",
                    String::from_utf8_lossy(&self.stdout)
                ),
            }
        }
    }

    /// Reads to the end: the exit.
    #[track_caller]
    pub fn exit(&mut self) -> Exit {
        loop {
            match self.ended() {
                None => {}
                Some(ServerControl::Exit(exit)) => return exit,
                Some(other) => panic!("{other:?} instead of the exit"),
            }
        }
    }

    /// Reads one frame: `None` for output, else the control that came.
    #[track_caller]
    pub fn ended(&mut self) -> Option<ServerControl> {
        match self.frame() {
            Frame::Stdout(_) | Frame::Stderr(_) => None,
            Frame::Control(control) => Some(*control),
            Frame::Closed => panic!(
                "closed without a last word; stdout {:?}",
                String::from_utf8_lossy(&self.stdout)
            ),
        }
    }

    /// The raw connection, for tests that read slowly or not at all.
    pub fn get_ref(&self) -> &UnixStream {
        self.socket.get_ref()
    }
}

fn is_timeout(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}
