//! Interactive streams: the WebSocket subprotocol `littlebox.exec.v1`.
//!
//! Output is read from the log, at the client's own speed; input goes to a worker, which writes it to the
//! program's pipe or terminal. So a slow client holds nobody up but (with a lossless stream) its own
//! program, and a client that comes back resumes by position.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use littlebox_protocol::{Call, LogStream, Target, TerminalSize};
use littlebox_types::{Channel, ClientControl, EXEC_SUBPROTOCOL, Exit, Failure, ServerControl};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use super::attach_stdin::{self, Destination, Input};
use super::error::ApiError;
use super::extract::{Params, Path};
use super::{App, AppState};
use crate::engine::{ClientGuard, EngineError, ExecHandle, Handle};
use crate::logs::{Chunk, Follower, From, Mode, Record};

/// The most bytes of one message from a client.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// Output bytes between two words on how far the stream is, to the client and to the gate.
const POSITION_STEP: u64 = 1024 * 1024;
/// The most output in one frame.
const FRAME: usize = 64 * 1024;

/// What a stream is attached to.
enum Subject {
    Container(Arc<Handle>),
    Exec(Arc<ExecHandle>),
}

/// A stream before it begins.
struct Session {
    app: Arc<App>,
    subject: Subject,
    path: PathBuf,
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
    let handle = app.engine.find(&reference)?;
    let wants_stdin = params.flag("stdin", false)?;
    if wants_stdin && !handle.live().record.stdin {
        return Err(no_stdin("container"));
    }
    let default = if params.flag("logs", false)? {
        From::Start
    } else {
        From::End
    };
    let session = Session {
        path: app.engine.paths.log(handle.id),
        from: from(&params)?.unwrap_or(default),
        wants_stdin,
        _client: Some(handle.client()),
        subject: Subject::Container(handle),
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
    let exec = app.engine.find_exec(&reference)?;
    let wants_stdin = params.flag("stdin", false)?;
    if wants_stdin && !exec.record().stdin {
        return Err(no_stdin("exec"));
    }
    let session = Session {
        path: app.engine.paths.exec_log(exec.container.id, exec.id),
        from: from(&params)?.unwrap_or(From::Start),
        wants_stdin,
        _client: None,
        subject: Subject::Exec(exec),
        app,
    };
    begin(session, upgrade)
}

fn no_stdin(what: &str) -> ApiError {
    ApiError::invalid(format!(
        "the {what} was created without 'stdin' and takes no input"
    ))
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
                self.lift_gate().await;
                return Err(Gone);
            }
        };
        self.lift_gate().await;
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
        let mut follower =
            match Follower::open(&self.app.engine.watcher, self.path.clone(), self.from).await {
                Ok(follower) => follower,
                Err(source) => return Ok(self.read_error(source)),
            };
        let attached = ServerControl::Attached {
            terminal: self.terminal(),
            position: follower.position(),
        };
        send(out, &attached).await?;
        let ended = self.ended();
        let (stdin, frames) = mpsc::channel::<Input>(16);
        let mut stdin = Some(stdin);
        // Dropped with this call: the client has gone.
        let (_here, gone) = oneshot::channel::<()>();
        let to = Destination {
            app: self.app.clone(),
            handle: self.source(),
            target: self.target(),
            ended: ended.clone(),
        };
        // Continues after the client has disconnected: the program still gets what was sent.
        let mut writing = self
            .wants_stdin
            .then(|| tokio::spawn(attach_stdin::write(to, frames, gone)));
        let mut told = follower.position();
        // A frame that the program has not had room for yet: nothing more is read from the client
        // until it has, while output goes on.
        let mut pending: Option<Input> = None;
        loop {
            tokio::select! {
                chunk = follower.next(Mode::Follow(&ended)) => match chunk {
                    Ok(Chunk::Records(records)) => {
                        send_output(out, &records).await?;
                        let position = follower.position();
                        if position.saturating_sub(told) >= POSITION_STEP {
                            told = position;
                            send(out, &ServerControl::Position { position }).await?;
                            self.move_gate(position).await;
                        }
                    }
                    Ok(Chunk::Lagged(bytes)) => send(out, &ServerControl::Lagged { bytes }).await?,
                    Ok(Chunk::End) => return Ok(self.ending()),
                    Err(source) => return Ok(self.read_error(source)),
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
                        return Ok(ServerControl::Error(error.into_problem()));
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
        let call = match control {
            ClientControl::Detach => return Next::End(Box::new(ServerControl::Detached)),
            ClientControl::CloseStdin => return Next::CloseStdin,
            ClientControl::Resize { rows, cols } => {
                let size = TerminalSize { rows, cols };
                Call::Resize {
                    target: self.target(),
                    size,
                }
            }
            ClientControl::Signal { signal } => Call::Signal {
                target: self.target(),
                signal: signal.number(),
                all: false,
            },
        };
        self.tell_helper(call).await;
        Next::Go
    }

    /// Best effort: a program that has just ended needs no signal and no size.
    async fn tell_helper(&self, call: Call) {
        let helper = self.handle().live().helper.clone();
        if let Some(helper) = helper
            && let Err(error) = helper.call(call).await
        {
            tracing::debug!(%error, "a call on behalf of an attached client");
        }
    }

    fn handle(&self) -> &Arc<Handle> {
        match &self.subject {
            Subject::Container(handle) => handle,
            Subject::Exec(exec) => &exec.container,
        }
    }

    fn source(&self) -> Arc<Handle> {
        self.handle().clone()
    }

    fn target(&self) -> Target {
        match &self.subject {
            Subject::Container(_) => Target::Container,
            Subject::Exec(exec) => Target::Exec(exec.id.to_string()),
        }
    }

    fn terminal(&self) -> bool {
        match &self.subject {
            Subject::Container(handle) => handle.live().record.terminal,
            Subject::Exec(exec) => exec.record().terminal,
        }
    }

    fn lossless(&self) -> bool {
        match &self.subject {
            Subject::Container(handle) => handle.live().record.attach,
            Subject::Exec(exec) => exec.record().attach,
        }
    }

    fn ended(&self) -> watch::Receiver<bool> {
        match &self.subject {
            Subject::Container(handle) => handle.live().ended.subscribe(),
            Subject::Exec(exec) => exec.ended.subscribe(),
        }
    }

    /// The last frame of a program that has ended.
    fn ending(&self) -> ServerControl {
        let (exit, failure, code): (Option<Exit>, Option<Failure>, Option<i32>) =
            match &self.subject {
                Subject::Container(handle) => {
                    let live = handle.live();
                    let r = &live.record;
                    (r.exit.clone(), r.failure.clone(), r.failure_code)
                }
                Subject::Exec(exec) => {
                    let r = exec.record();
                    (r.exit.clone(), r.failure.clone(), r.failure_code)
                }
            };
        match (exit, failure) {
            (Some(exit), _) => ServerControl::Exit(exit),
            (None, Some(failure)) => {
                let error = EngineError::StartFailed {
                    failure: Box::new(failure),
                    exit_code: code.unwrap_or(125),
                    id: None,
                };
                ServerControl::Error(ApiError::from(error).into_problem())
            }
            (None, None) => {
                let error = ApiError::new("container_not_found", "the container was removed");
                ServerControl::Error(error.into_problem())
            }
        }
    }

    fn read_error(&self, source: io::Error) -> ServerControl {
        let error = EngineError::Io {
            op: "read",
            path: self.path.clone(),
            source,
        };
        ServerControl::Error(ApiError::from(error).into_problem())
    }

    /// Tells the helper how far a lossless stream has been read.
    async fn move_gate(&self, position: u64) {
        self.set_gate(Some(position)).await;
    }

    async fn lift_gate(&self) {
        self.set_gate(None).await;
    }

    async fn set_gate(&self, consumed: Option<u64>) {
        if self.lossless() {
            let target = self.target();
            self.tell_helper(Call::Gate { target, consumed }).await;
        }
    }
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
