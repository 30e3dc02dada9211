//! Interactive streams: `littlebox.exec.v1` over a WebSocket (RFC 6455).

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::call::Call;
use super::{Client, ClientError};
use littlebox_types::{Channel, ClientControl, EXEC_SUBPROTOCOL, ServerControl};

/// From where an interactive stream shows output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttachFrom {
    /// What comes from now on.
    #[default]
    Now,
    /// All there is, then what comes (containers; an exec's stream starts there by itself).
    Start,
    /// A position that a stream or a log line told.
    Position(u64),
}

/// How to attach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Hold the program's stdin open and write to it.
    pub stdin: bool,
    /// From where to show output.
    pub from: AttachFrom,
}

type Socket = WebSocketStream<UnixStream>;

/// An open interactive stream.
#[derive(Debug)]
pub struct Attached {
    /// Whether the program has a terminal.
    pub terminal: bool,
    /// Position in the output from which this stream starts.
    pub position: u64,
    /// Towards the program.
    pub sink: AttachSink,
    /// From the program.
    pub stream: AttachStream,
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// Output on a channel.
    Output(Channel, Bytes),
    /// Control; the last is `exit`, `detached` or `error`.
    Control(Box<ServerControl>),
}

/// The half towards the program.
#[derive(Debug)]
pub struct AttachSink(SplitSink<Socket, Message>);

/// The half from the program.
#[derive(Debug)]
pub struct AttachStream(SplitStream<Socket>);

impl Client {
    /// `GET /v1/containers/{c}/attach`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn attach_container(
        &self,
        container: &str,
        options: AttachOptions,
    ) -> Result<Attached, ClientError> {
        let call = Call::get(&["containers", container, "attach"])
            .flag("logs", options.from == AttachFrom::Start);
        self.attach(call, options).await
    }

    /// `GET /v1/execs/{e}/attach`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn attach_exec(
        &self,
        exec: &str,
        options: AttachOptions,
    ) -> Result<Attached, ClientError> {
        self.attach(Call::get(&["execs", exec, "attach"]), options)
            .await
    }

    async fn attach(&self, call: Call, options: AttachOptions) -> Result<Attached, ClientError> {
        let key = generate_key();
        let mut call = call
            .flag("stdin", options.stdin)
            .header(CONNECTION, "Upgrade")?
            .header(UPGRADE, "websocket")?
            .header(SEC_WEBSOCKET_VERSION, "13")?
            .header(SEC_WEBSOCKET_KEY, &key)?
            .header(SEC_WEBSOCKET_PROTOCOL, EXEC_SUBPROTOCOL)?;
        if let AttachFrom::Position(position) = options.from {
            call = call.query("from", position);
        }
        let reply = self.send_ok(call).await?;
        if let Some(what) = not_our_protocol(reply.parts.status, &reply.parts.headers, &key) {
            return Err(ClientError::Unexpected {
                request: reply.request,
                what,
            });
        }
        let response = Response::from_parts(reply.parts, ());
        let upgraded = match hyper::upgrade::on(response).await {
            Ok(upgraded) => upgraded,
            Err(e) => return Err(super::broken(reply.request)(e)),
        };
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(|_| {
            ClientError::Build("an upgraded connection is no Unix socket".to_owned())
        })?;
        // Every frame is flushed as it is sent: somebody is typing. Small buffers, because most
        // streams are short and these are allocated for each.
        let config = WebSocketConfig::default()
            .read_buffer_size(32 * 1024)
            .write_buffer_size(16 * 1024);
        let socket = WebSocketStream::from_partially_read(
            parts.io.into_inner(),
            parts.read_buf.to_vec(),
            Role::Client,
            Some(config),
        )
        .await;
        let (sink, stream) = socket.split();
        let mut stream = AttachStream(stream);
        let unexpected = |what: String| ClientError::Unexpected {
            request: reply.request,
            what,
        };
        match stream.next().await? {
            Received::Output(..) => Err(unexpected("output as the first frame".to_owned())),
            Received::Control(control) => match *control {
                ServerControl::Attached { terminal, position } => Ok(Attached {
                    terminal,
                    position,
                    sink: AttachSink(sink),
                    stream,
                }),
                ServerControl::Error(problem) => Err(ClientError::Problem(Box::new(problem))),
                other => Err(unexpected(format!("{other:?} as the first frame"))),
            },
        }
    }
}

/// What is wrong with an answer to the handshake (RFC 6455, section 4.1), if anything is.
fn not_our_protocol(status: StatusCode, headers: &HeaderMap, key: &str) -> Option<String> {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Some(format!("{status} instead of an upgrade"));
    }
    if header(SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Some("an upgrade to another request's WebSocket".to_owned());
    }
    if header(SEC_WEBSOCKET_PROTOCOL) != Some(EXEC_SUBPROTOCOL) {
        return Some("another subprotocol".to_owned());
    }
    None
}

impl AttachSink {
    /// Queues bytes for the program's stdin. Waits while an earlier frame is not written yet;
    /// [`AttachSink::flush`] writes.
    ///
    /// # Errors
    /// [`ClientError::Stream`].
    pub async fn feed_stdin(&mut self, data: &[u8]) -> Result<(), ClientError> {
        let mut frame = BytesMut::with_capacity(data.len() + 1);
        frame.extend_from_slice(&[Channel::Stdin as u8]);
        frame.extend_from_slice(data);
        self.0
            .feed(Message::Binary(frame.freeze()))
            .await
            .map_err(stream_error)
    }

    /// Queues control. Waits while an earlier frame is not written yet.
    ///
    /// # Errors
    /// [`ClientError::Stream`].
    pub async fn feed_control(&mut self, control: &ClientControl) -> Result<(), ClientError> {
        let text = serde_json::to_string(control).map_err(|e| ClientError::Build(e.to_string()))?;
        self.0
            .feed(Message::Text(text.into()))
            .await
            .map_err(stream_error)
    }

    /// Writes what was queued. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Stream`].
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.0.flush().await.map_err(stream_error)
    }
}

impl AttachStream {
    /// The next output or control. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Closed`] and [`ClientError::Stream`] when the connection ended without a
    /// last word; [`ClientError::Unexpected`] for a frame outside the protocol.
    pub async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            match self.0.next().await {
                None | Some(Ok(Message::Close(_))) => return Err(ClientError::Closed),
                Some(Err(e)) => return Err(stream_error(e)),
                Some(Ok(Message::Binary(frame))) => return output(&frame),
                Some(Ok(Message::Text(text))) => {
                    // Control that a newer daemon may know and we do not is left alone.
                    if let Ok(control) = serde_json::from_str(text.as_str()) {
                        return Ok(Received::Control(Box::new(control)));
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }
}

fn output(frame: &Bytes) -> Result<Received, ClientError> {
    let channel = match frame.first() {
        Some(1) => Channel::Stdout,
        Some(2) => Channel::Stderr,
        first => {
            return Err(ClientError::Unexpected {
                request: "an attach".to_owned(),
                what: format!("a frame of channel {first:?}"),
            });
        }
    };
    Ok(Received::Output(channel, frame.slice(1..)))
}

fn stream_error(e: tokio_tungstenite::tungstenite::Error) -> ClientError {
    ClientError::Stream(Box::new(e))
}
