//! A foreground program: its output to us, our input, terminal and signals to it.
//!
//! ```text
//! stdin, signals ──▶ writer ──▶ WebSocket ──▶ reader ──▶ stdout, stderr
//! ```
//!
//! Both run at once and neither waits for the other: a program that reads slowly does not hold
//! back its own output, and a terminal that is stopped does not hold back a signal. When the
//! stream breaks because the daemon restarts, the session goes on where it was.

use std::io;
use std::pin::pin;
use std::time::Duration;

use lbctl::client::{
    AttachFrom, AttachOptions, AttachSink, AttachStream, Attached, Client, ClientError, Received,
};
use littlebox_types::{
    Channel, ClientControl, Exit, KillRequest, ServerControl, Signal, TermSize, WaitFor,
};
use tokio::time::{Instant, sleep, timeout};

use super::detach::Scanner;
use super::error::Failure;
use super::signals::{Caught, Signals, asks_to_end};
use super::stdio::{Output, Stdin};
use super::terminal::{self, RawMode};

/// How long a broken stream is tried again.
const RECONNECT_FOR: Duration = Duration::from_secs(10);
const RECONNECT_EVERY: Duration = Duration::from_millis(100);
/// How long a last word to the daemon may take.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long a control waits for stdin that the program does not read, before it takes the way
/// round by a request of its own.
const CONTROL_PATIENCE: Duration = Duration::from_millis(100);
/// So many SIGINT or SIGTERM, and the program is killed. With one more we end whatever it does.
const KILL_AFTER: u32 = 3;

/// What the session is with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A container's PID 1; id or name.
    Container(String),
    /// An exec, by id.
    Exec(String),
}

/// How a session is to be.
#[derive(Debug)]
pub struct Options {
    /// Where the output starts.
    pub from: AttachFrom,
    /// Forward our stdin.
    pub stdin: bool,
    /// Use raw mode when the program has a terminal.
    pub interactive: bool,
    /// Keys that leave, in raw mode.
    pub keys: Scanner,
    /// Forward signals.
    pub proxy_signals: bool,
    /// A signal that came before there was anybody to hear it.
    pub early: Option<Signal>,
    /// The terminal size that the program was started with.
    pub size: Option<TermSize>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The program ended.
    Exit(Exit),
    /// The user left; the program goes on.
    Detached,
    /// A signal told us to end; the program goes on, unless it was told too.
    Signal(Signal),
    /// Nobody reads our output any more.
    BrokenPipe,
}

/// A foreground session.
pub struct Session<'a> {
    client: &'a Client,
    target: Target,
    options: Options,
    signals: &'a mut Signals,
    stdin: Stdin,
    output: [Output; 2],
    /// A position in the output, once attached: where we began, or the last one that we were told.
    start: u64,
    /// Bytes of stdout and stderr written from `start` on.
    written: [u64; 2],
    raw: Option<RawMode>,
    endings: u32,
}

/// How one connection of a session ended.
enum Step {
    End(End),
    Broken(ClientError),
}

impl<'a> Session<'a> {
    /// A session that is not attached yet.
    pub fn new(
        client: &'a Client,
        target: Target,
        options: Options,
        signals: &'a mut Signals,
    ) -> Self {
        Self {
            client,
            target,
            options,
            signals,
            stdin: Stdin::new(),
            output: [Output::stdout(), Output::stderr()],
            start: 0,
            written: [0; 2],
            raw: None,
            endings: 0,
        }
    }

    /// Attaches and stays until the end. The terminal is as before afterwards.
    pub async fn run(mut self) -> Result<End, Failure> {
        let options = AttachOptions {
            stdin: self.options.stdin,
            from: self.options.from,
        };
        let attaching = attach(self.client, &self.target, options);
        let early = &mut self.options.early;
        let mut attached = match self.signals.uninterrupted(early, attaching).await {
            Ok(attached) => attached?,
            Err(signal) => return Ok(End::Signal(signal)),
        };
        self.start = attached.position;
        let mut skip = [0; 2];
        loop {
            if self.options.interactive && attached.terminal && self.raw.is_none() {
                self.raw = Some(RawMode::enter().map_err(Failure::io("cannot use raw mode"))?);
            }
            let error = match self.pump(attached, skip).await? {
                Step::End(end) => return Ok(end),
                Step::Broken(error) => error,
            };
            attached = match self.reconnect(error).await? {
                Ok(attached) => attached,
                Err(end) => return Ok(end),
            };
            // Positions are the daemon's own: take everything again from the last one that it told, and
            // drop what was shown already.
            skip = self.written;
        }
    }

    /// Attaches again, or learns how it ended meanwhile.
    async fn reconnect(&mut self, error: ClientError) -> Result<Result<Attached, End>, Failure> {
        let deadline = Instant::now() + RECONNECT_FOR;
        let from = AttachFrom::Position(self.start);
        let options = AttachOptions {
            stdin: self.options.stdin,
            from,
        };
        loop {
            let attempt = async {
                sleep(RECONNECT_EVERY).await;
                attach(self.client, &self.target, options).await
            };
            let attempted = tokio::select! {
                attempted = attempt => attempted,
                signal = self.signals.told_to_end() => return Ok(Err(End::Signal(signal))),
            };
            match attempted {
                Ok(attached) => return Ok(Ok(attached)),
                Err(e) if e.is_disconnect() && Instant::now() < deadline => {}
                Err(e) if e.is_disconnect() => {
                    self.raw = None;
                    eprintln!(
                        "lbctl: the connection to littleboxd was lost and did not come back in \
                         {} seconds; the program goes on without us",
                        RECONNECT_FOR.as_secs()
                    );
                    return Err(error.into());
                }
                Err(e) => {
                    return match timeout(RECONNECT_FOR, self.ended_meanwhile()).await {
                        Ok(Some(exit)) => Ok(Err(End::Exit(exit))),
                        Ok(None) | Err(_) => Err(e.into()),
                    };
                }
            }
        }
    }

    /// The exit of a program that cannot be attached to any more.
    async fn ended_meanwhile(&self) -> Option<Exit> {
        let known = Some(LAST_WORD);
        match &self.target {
            Target::Container(id) => {
                self.client
                    .wait_container(id, WaitFor::Exited, known)
                    .await
                    .ok()?
                    .exit
            }
            Target::Exec(id) => self.client.exec(id, known).await.ok()?.exit,
        }
    }

    /// Carries bytes both ways until the connection ends.
    async fn pump(&mut self, attached: Attached, skip: [u64; 2]) -> Result<Step, Failure> {
        let Attached {
            terminal,
            sink,
            stream,
            ..
        } = attached;
        let mut reader = Reader {
            stream,
            output: &mut self.output,
            start: &mut self.start,
            written: &mut self.written,
            skip,
        };
        let mut writer = Writer {
            client: self.client,
            target: &self.target,
            sink,
            dirty: false,
            stdin: &mut self.stdin,
            stdin_open: &mut self.options.stdin,
            keys: self.raw.is_some().then_some(&mut self.options.keys),
            terminal,
            size: self.options.size,
            signals: self.signals,
            proxy_signals: self.options.proxy_signals,
            early: self.options.early.take(),
            endings: &mut self.endings,
        };
        let (read, write) = (pin!(reader.run()), pin!(writer.run()));
        tokio::select! {
            biased;
            step = read => step,
            end = write => Ok(Step::End(end)),
        }
    }
}

/// From the program to us.
struct Reader<'s> {
    stream: AttachStream,
    output: &'s mut [Output; 2],
    start: &'s mut u64,
    written: &'s mut [u64; 2],
    /// Bytes that were written before the stream broke.
    skip: [u64; 2],
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<Step, Failure> {
        loop {
            match self.stream.next().await {
                Ok(Received::Output(channel, data)) => {
                    if let Err(e) = self.write(channel, &data).await {
                        return broken_output(channel, e);
                    }
                }
                Ok(Received::Control(control)) => match *control {
                    ServerControl::Exit(exit) => return Ok(Step::End(End::Exit(exit))),
                    ServerControl::Detached => return Ok(Step::End(End::Detached)),
                    ServerControl::Error(problem) => {
                        let error = ClientError::Problem(Box::new(problem));
                        return if error.is_disconnect() {
                            Ok(Step::Broken(error))
                        } else {
                            Err(error.into())
                        };
                    }
                    ServerControl::Position { position } => {
                        *self.start = position;
                        // What is still to be skipped was written, and lies behind it.
                        *self.written = self.skip;
                    }
                    ServerControl::Lagged { bytes } => {
                        self.skip = [0; 2];
                        eprint!("lbctl: {bytes} bytes of output were lost: too slow a reader\r\n");
                    }
                    ServerControl::Attached { .. } => {}
                },
                Err(e) if e.is_disconnect() => return Ok(Step::Broken(e)),
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn write(&mut self, channel: Channel, data: &[u8]) -> io::Result<()> {
        let index = usize::from(channel == Channel::Stderr);
        let skip = usize::try_from(self.skip[index]).map_or(data.len(), |n| n.min(data.len()));
        self.skip[index] -= skip as u64;
        let data = &data[skip..];
        self.written[index] += data.len() as u64;
        self.output[index].write_all(data).await
    }
}

fn broken_output(channel: Channel, e: io::Error) -> Result<Step, Failure> {
    match e.kind() {
        io::ErrorKind::BrokenPipe => Ok(Step::End(End::BrokenPipe)),
        _ if channel == Channel::Stderr => Err(Failure::Io {
            what: "cannot write to standard error".to_owned(),
            source: e,
        }),
        _ => Err(Failure::stdout(e)),
    }
}

/// From us to the program.
struct Writer<'s> {
    client: &'s Client,
    target: &'s Target,
    sink: AttachSink,
    /// Something was queued and not written yet; no stdin is read meanwhile.
    dirty: bool,
    stdin: &'s mut Stdin,
    stdin_open: &'s mut bool,
    /// In raw mode.
    keys: Option<&'s mut Scanner>,
    terminal: bool,
    size: Option<TermSize>,
    signals: &'s mut Signals,
    proxy_signals: bool,
    early: Option<Signal>,
    endings: &'s mut u32,
}

enum Event {
    Flushed(Result<(), ClientError>),
    Caught(Caught),
    Input(io::Result<Vec<u8>>),
}

impl Writer<'_> {
    /// Ends only when the user or a signal says so: a broken connection is the reader's to tell.
    async fn run(&mut self) -> End {
        self.resize().await;
        if let Some(signal) = self.early.take() {
            *self.endings += u32::from(asks_to_end(signal));
            self.control(&ClientControl::Signal { signal }).await;
        }
        loop {
            let event = tokio::select! {
                biased;
                flushed = self.sink.flush(), if self.dirty => Event::Flushed(flushed),
                caught = self.signals.next() => Event::Caught(caught),
                input = self.stdin.read(), if !self.dirty && *self.stdin_open => {
                    Event::Input(input)
                }
            };
            let end = match event {
                Event::Flushed(Ok(())) => {
                    self.dirty = false;
                    None
                }
                Event::Flushed(Err(_)) => std::future::pending().await,
                Event::Caught(Caught::Resized) => {
                    self.resize().await;
                    None
                }
                Event::Caught(Caught::Signal(signal)) => self.signal(signal).await,
                Event::Input(input) => self.input(&input.unwrap_or_default()).await,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn input(&mut self, data: &[u8]) -> Option<End> {
        if data.is_empty() {
            *self.stdin_open = false;
            self.control(&ClientControl::CloseStdin).await;
            return None;
        }
        let detach = match &mut self.keys {
            None => {
                self.dirty = self.sink.feed_stdin(data).await.is_ok();
                false
            }
            Some(keys) => {
                let scanned = keys.scan(data);
                if !scanned.forward.is_empty() {
                    self.dirty = self.sink.feed_stdin(&scanned.forward).await.is_ok();
                }
                scanned.detach
            }
        };
        if !detach {
            return None;
        }
        self.last_word(&ClientControl::Detach).await;
        Some(End::Detached)
    }

    async fn signal(&mut self, signal: Signal) -> Option<End> {
        if self.keys.is_some() {
            // The keyboard's signals reach the program as bytes. What comes here is for us; only
            // the terminal's end is also the program's.
            if signal == Signal::HUP {
                self.last_word(&ClientControl::Signal { signal }).await;
            }
            return Some(End::Signal(signal));
        }
        if !self.proxy_signals {
            return Some(End::Signal(signal));
        }
        *self.endings += u32::from(asks_to_end(signal));
        if *self.endings > KILL_AFTER {
            eprintln!("lbctl: the program has not ended yet; it goes on without us");
            return Some(End::Signal(signal));
        }
        // A PID 1 without a handler is not ended by any other signal: pid_namespaces(7).
        let kill = asks_to_end(signal) && *self.endings >= KILL_AFTER;
        if kill {
            eprintln!("lbctl: the program has not exited; killing it");
        }
        let signal = if kill { Signal::KILL } else { signal };
        self.control(&ClientControl::Signal { signal }).await;
        None
    }

    async fn resize(&mut self) {
        let size = terminal::size();
        if !self.terminal || size == self.size {
            return;
        }
        self.size = size;
        if let Some(TermSize { rows, cols }) = size {
            self.control(&ClientControl::Resize { rows, cols }).await;
        }
    }

    /// Queues control, or takes the way round when stdin is stuck before it.
    async fn control(&mut self, control: &ClientControl) {
        if self.dirty {
            self.dirty = !matches!(
                timeout(CONTROL_PATIENCE, self.sink.flush()).await,
                Ok(Ok(()))
            );
        }
        if self.dirty {
            // Whether it arrives shows in what the program does.
            let _ = timeout(LAST_WORD, self.request(control)).await;
        } else {
            self.dirty = self.sink.feed_control(control).await.is_ok();
        }
    }

    /// Sends control and waits until it is written.
    async fn last_word(&mut self, control: &ClientControl) {
        self.control(control).await;
        let _ = timeout(LAST_WORD, self.sink.flush()).await;
    }

    async fn request(&self, control: &ClientControl) -> Result<(), ClientError> {
        match (control, self.target) {
            (ClientControl::Resize { rows, cols }, target) => {
                let size = TermSize {
                    rows: *rows,
                    cols: *cols,
                };
                match target {
                    Target::Container(id) => self.client.resize_container(id, size).await,
                    Target::Exec(id) => self.client.resize_exec(id, size).await,
                }
            }
            (ClientControl::Signal { signal }, target) => {
                send_signal(self.client, target, *signal).await
            }
            (ClientControl::CloseStdin | ClientControl::Detach, _) => Ok(()),
        }
    }
}

async fn attach(
    client: &Client,
    target: &Target,
    options: AttachOptions,
) -> Result<Attached, ClientError> {
    match target {
        Target::Container(id) => client.attach_container(id, options).await,
        Target::Exec(id) => client.attach_exec(id, options).await,
    }
}

/// Signals the program by a request of its own.
pub async fn send_signal(
    client: &Client,
    target: &Target,
    signal: Signal,
) -> Result<(), ClientError> {
    match target {
        Target::Container(id) => {
            let request = KillRequest {
                signal: Some(signal),
                all: false,
            };
            client.kill_container(id, &request).await
        }
        Target::Exec(id) => client.signal_exec(id, signal).await,
    }
}
