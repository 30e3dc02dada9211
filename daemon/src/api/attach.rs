//! Interactive streams: the WebSocket subprotocol `littlebox.exec.v1`.
//!
//! Output is read from the log, at the client's own speed; input goes to a worker, which writes it to the
//! program's pipe or terminal. So a slow client holds nobody up but (with a lossless stream) its own
//! program, and a client that comes back resumes by position.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use littlebox_protocol::LogStream;
use littlebox_types::{Channel, ClientControl, EXEC_SUBPROTOCOL, ServerControl, TermSize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

use super::error::ApiError;
use super::extract::{Params, Path};
use super::{App, AppState};
use crate::engine::{Attachment, ClientGuard, EngineError, Input, Outcome};
use crate::logs::{Chunk, From, Mode, Record};

/// The most bytes of one message from a client.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// Output bytes between two words on how far the stream is, to the client and to the gate.
const POSITION_STEP: u64 = 1024 * 1024;
/// The most output in one frame.
const FRAME: usize = 64 * 1024;

/// A stream before it begins.
struct Session {
    app: Arc<App>,
    to: Attachment,
    from: From,
    wants_stdin: bool,
    /// Counts as the announced foreground client.
    _client: Option<ClientGuard>,
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /v1/containers/{c}/attach`.
pub async fn container(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let params = params.only(&["stdin", "from", "logs"])?;
    let to = app.engine.attachment(&reference)?;
    let wants_stdin = wants_stdin(&params, &to, "container")?;
    let default = if params.flag("logs", false)? {
        From::Start
    } else {
        From::End
    };
    let session = Session {
        from: from(&params)?.unwrap_or(default),
        wants_stdin,
        _client: to.client(),
        to,
        app,
    };
    begin(session, upgrade)
}

/// `GET /v1/execs/{e}/attach`.
pub async fn exec(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let params = params.only(&["stdin", "from"])?;
    let to = app.engine.exec_attachment(&reference)?;
    let session = Session {
        from: from(&params)?.unwrap_or(From::Start),
        wants_stdin: wants_stdin(&params, &to, "exec")?,
        _client: to.client(),
        to,
        app,
    };
    begin(session, upgrade)
}

fn wants_stdin(params: &Params, to: &Attachment, what: &str) -> Result<bool, ApiError> {
    let wants = params.flag("stdin", false)?;
    if wants && !to.takes_input() {
        return Err(ApiError::invalid(format!(
            "the {what} was created without 'stdin' and takes no input"
        )));
    }
    Ok(wants)
}

fn from(params: &Params) -> Result<Option<From>, ApiError> {
    Ok(params.number("from", 0, u64::MAX)?.map(From::Position))
}

fn begin(session: Session, upgrade: Upgrade) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|e| {
        ApiError::new(
            "upgrade_required",
            format!("this route needs a WebSocket: {e}"),
        )
        .hint(format!("connect with the subprotocol {EXEC_SUBPROTOCOL}"))
    })?;
    Ok(upgrade
        .protocols([EXEC_SUBPROTOCOL])
        .max_message_size(MESSAGE_LIMIT)
        .max_frame_size(MESSAGE_LIMIT)
        .on_upgrade(move |socket| async move {
            // Errors here mean that the client has gone; nobody is left to tell.
            let _ = session.run(socket).await;
        }))
}

/// What a control frame leads to.
enum Next {
    Go,
    CloseStdin,
    End(Box<ServerControl>),
}

/// The client has gone.
struct Gone;

impl<E: std::error::Error> std::convert::From<E> for Gone {
    fn from(_: E) -> Self {
        Gone
    }
}

impl Session {
    async fn run(self, socket: WebSocket) -> Result<(), Gone> {
        let (mut out, input) = socket.split();
        let ending = match self.stream(&mut out, input).await {
            Ok(ending) => ending,
            Err(Gone) => {
                self.to.set_gate(None).await;
                return Err(Gone);
            }
        };
        self.to.set_gate(None).await;
        send(&mut out, &ending).await?;
        out.send(Message::Close(None)).await?;
        Ok(())
    }

    /// Carries output and input until one of them ends; says how to end.
    async fn stream(
        &self,
        out: &mut SplitSink<WebSocket, Message>,
        mut input: SplitStream<WebSocket>,
    ) -> Result<ServerControl, Gone> {
        let engine = &self.app.engine;
        let mut output = match engine.read_output(&self.to, self.from).await {
            Ok(output) => output,
            Err(error) => return Ok(failed(error)),
        };
        let attached = ServerControl::Attached {
            terminal: self.to.has_terminal(),
            position: output.position(),
        };
        send(out, &attached).await?;
        let ended = self.to.ended();
        let (stdin, frames) = mpsc::channel::<Input>(16);
        let mut stdin = Some(stdin);
        // Dropped with this call: the client has gone.
        let (_here, gone) = oneshot::channel::<()>();
        // Continues after the client has disconnected: the program still gets what was sent.
        let mut writing = self.wants_stdin.then(|| {
            let (to, closing) = (self.to.clone(), self.app.closing.clone());
            tokio::spawn(engine.clone().write_input(to, frames, gone, closing))
        });
        let mut told = output.position();
        // A frame that the program has not had room for yet: nothing more is read from the client
        // until it has, while output goes on.
        let mut pending: Option<Input> = None;
        loop {
            tokio::select! {
                chunk = output.next(Mode::Follow(&ended)) => match chunk {
                    Ok(Chunk::Records(records)) => {
                        send_output(out, &records).await?;
                        let position = output.position();
                        if position.saturating_sub(told) >= POSITION_STEP {
                            told = position;
                            send(out, &ServerControl::Position { position }).await?;
                            self.to.set_gate(Some(position)).await;
                        }
                    }
                    Ok(Chunk::Lagged(bytes)) => send(out, &ServerControl::Lagged { bytes }).await?,
                    Ok(Chunk::End) => return Ok(ending(self.to.outcome())),
                    Err(error) => return Ok(failed(error)),
                },
                permit = reserve(stdin.clone()), if pending.is_some() => {
                    match (permit, pending.take()) {
                        (Some(permit), Some(input)) => drop(permit.send(input)),
                        // The program takes no more input; what is sent is dropped, as by a pipe
                        // into a program that has closed its end.
                        _ => stdin = None,
                    }
                }
                message = input.next(), if pending.is_none() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Gone),
                    Some(Ok(Message::Binary(frame))) => {
                        match self.input(&frame) {
                            Ok(input) => pending = input.filter(|_| stdin.is_some()),
                            Err(error) => return Ok(ServerControl::Error(error.into_problem())),
                        }
                    }
                    Some(Ok(Message::Text(text))) => {
                        match self.control(&text).await {
                            Next::Go => {}
                            Next::CloseStdin => pending = Some(Input::End).filter(|_| stdin.is_some()),
                            Next::End(ending) => return Ok(*ending),
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                },
                written = joined(&mut writing), if writing.is_some() => {
                    writing = None;
                    if let Ok(Err(error)) = written {
                        return Ok(failed(error));
                    }
                }
                () = self.app.closing.cancelled() => {
                    let error = ApiError::new("unavailable", "the daemon is shutting down")
                        .hint("attach again with ?from= when it is back: the program goes on");
                    return Ok(ServerControl::Error(error.into_problem()));
                }
            }
        }
    }

    /// Input from a binary frame; a frame of another channel ends the stream.
    fn input(&self, frame: &Bytes) -> Result<Option<Input>, ApiError> {
        match frame.first() {
            Some(channel) if *channel == Channel::Stdin as u8 && self.wants_stdin => {
                Ok(Some(Input::Bytes(frame.slice(1..))).filter(|_| frame.len() > 1))
            }
            Some(channel) if *channel == Channel::Stdin as u8 => Err(ApiError::invalid(
                "this stream was opened without 'stdin': it takes no input",
            )),
            _ => Err(ApiError::invalid(
                "a binary frame from a client begins with channel 0, its stdin",
            )),
        }
    }

    /// Does what a control frame says.
    async fn control(&self, text: &Utf8Bytes) -> Next {
        let control: ClientControl = match super::extract::parse(text.as_bytes()) {
            Ok(control) => control,
            Err(error) => return Next::End(Box::new(ServerControl::Error(error.into_problem()))),
        };
        match control {
            ClientControl::Detach => return Next::End(Box::new(ServerControl::Detached)),
            ClientControl::CloseStdin => return Next::CloseStdin,
            ClientControl::Resize { rows, cols } => self.to.resize(TermSize { rows, cols }).await,
            ClientControl::Signal { signal } => self.to.signal(signal).await,
        }
        Next::Go
    }
}

/// The last frame of a program that has ended.
fn ending(outcome: Outcome) -> ServerControl {
    match outcome {
        Outcome::Exited(exit) => ServerControl::Exit(exit),
        Outcome::Failed(error) => failed(error),
        Outcome::Removed => {
            let error = ApiError::new("container_not_found", "the container was removed");
            ServerControl::Error(error.into_problem())
        }
    }
}

fn failed(error: EngineError) -> ServerControl {
    ServerControl::Error(ApiError::from(error).into_problem())
}

async fn joined<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn reserve(stdin: Option<mpsc::Sender<Input>>) -> Option<mpsc::OwnedPermit<Input>> {
    stdin?.reserve_owned().await.ok()
}

async fn send(
    out: &mut SplitSink<WebSocket, Message>,
    control: &ServerControl,
) -> Result<(), Gone> {
    let text = serde_json::to_string(control)?;
    out.send(Message::Text(text.into())).await?;
    Ok(())
}

/// Sends records as binary frames, neighbours of one stream together.
async fn send_output(
    out: &mut SplitSink<WebSocket, Message>,
    records: &[Record],
) -> Result<(), Gone> {
    let mut frame: Vec<u8> = Vec::new();
    for record in records {
        let channel = match record.stream {
            LogStream::Stdout => Channel::Stdout as u8,
            LogStream::Stderr => Channel::Stderr as u8,
        };
        if frame.first().is_some_and(|c| *c != channel) || frame.len() >= FRAME {
            out.feed(Message::Binary(std::mem::take(&mut frame).into()))
                .await?;
        }
        if frame.is_empty() {
            frame.push(channel);
        }
        frame.extend_from_slice(&record.payload);
        if !record.partial {
            frame.push(b'\n');
        }
    }
    if !frame.is_empty() {
        out.feed(Message::Binary(frame.into())).await?;
    }
    out.flush().await?;
    Ok(())
}
