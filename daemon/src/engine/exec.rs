//! Execs: processes started inside a running container.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use lbctl::types::{
    ContainerState, Exec, ExecConfig, ExecId, ExecState, InlineOutput, OutputEncoding, TermSize,
};
use littlebox_helper::protocol::{
    Call, ExecPlan, ExitRecord, LogPlan, LogStream, Reply, Target, TerminalSize,
};
use littlebox_plan::ExecEnvelope;
use tokio::sync::oneshot;

use super::error::describe_start;
use super::record::{ExecRecord, exit_of, unknown_exit};
use super::{Engine, EngineError, ExecHandle, Handle};
use crate::faults;
use crate::logs::{Chunk, Follower, From, Mode};
use crate::spec::{self, ConfigError};
use crate::store::{NewEvent, StoreError, Write};
use crate::supervisor::{Helper, HelperError, StartError};
use crate::time::now_ns;

/// Finished execs whose result is kept, per container.
const KEPT: usize = 64;
/// Output inside an answer, per stream.
const INLINE_LIMIT: usize = 1024 * 1024;

/// How to exec.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// The client's key and the digest of its request.
    pub idempotency: Option<(String, String)>,
}

/// Comes when a row is written.
type Recorded = oneshot::Receiver<Result<(), StoreError>>;
/// An event's kind and data.
type Told = (&'static str, serde_json::Value);

impl Engine {
    /// Starts a process in a running container.
    pub async fn exec(
        self: &Arc<Self>,
        reference: &str,
        config: ExecConfig,
        options: ExecOptions,
    ) -> Result<Arc<ExecHandle>, EngineError> {
        let handle = self.find(reference)?;
        let engine = self.clone();
        self.detached(async move {
            let Some((key, digest)) = options.idempotency else {
                return engine.exec_new(&handle, config, Vec::new()).await;
            };
            let _turn = engine.idempotency.turn(&key).await;
            match engine.store.idempotent(&key).await? {
                Some((request, subject)) if request == digest => engine.find_exec(&subject),
                Some(_) => Err(EngineError::IdempotencyConflict(format!(
                    "the idempotency key '{key}' was used for another request"
                ))),
                None => {
                    let id = ExecId::generate();
                    let remember = Write::Idempotency {
                        key: key.clone(),
                        request: digest,
                        subject: id.to_string(),
                    };
                    engine
                        .exec_with_id(id, &handle, config, vec![remember])
                        .await
                }
            }
        })
        .await
    }

    async fn exec_new(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        config: ExecConfig,
        writes: Vec<Write>,
    ) -> Result<Arc<ExecHandle>, EngineError> {
        self.exec_with_id(ExecId::generate(), handle, config, writes)
            .await
    }

    async fn exec_with_id(
        self: &Arc<Self>,
        id: ExecId,
        handle: &Arc<Handle>,
        config: ExecConfig,
        writes: Vec<Write>,
    ) -> Result<Arc<ExecHandle>, EngineError> {
        let helper = runnable(handle)?;
        let plan = self.exec_plan(id, handle, &config).await?;
        let exec = ExecHandle::new(id, handle.clone(), new_record(handle, &config));
        self.insert_exec(&exec);
        faults::point("exec.before");
        self.change_exec(&exec, |_| Some(Vec::new()), writes);
        let call = Call::Exec(Box::new(plan));
        let limit = self.supervisor.start_limit();
        let answer = helper.slow_call(call, limit).await;
        faults::point("exec.after");
        let started = self.exec_answered(&exec, answer).await;
        self.drop_old_execs(handle);
        started?;
        if let Some(input) = config.input {
            let helper = helper.clone();
            tokio::spawn(async move { feed(&helper, id, input).await });
        }
        Ok(exec)
    }

    async fn exec_answered(
        &self,
        exec: &Arc<ExecHandle>,
        answer: Result<(Reply, Vec<OwnedFd>), HelperError>,
    ) -> Result<(), EngineError> {
        let failed = |error| Err(self.exec_failed(exec, error));
        match answer {
            Ok((Reply::ExecStarted { pid, warnings, .. }, _)) => {
                // Written, without an fsync: a client that was told of it finds it again when the
                // daemon is killed, and a power cut ends the exec anyway.
                match self.exec_started(exec, pid, warnings) {
                    Some(recorded) => Ok(recorded.await.unwrap_or(Err(StoreError::Closed))?),
                    None => Ok(()),
                }
            }
            Ok(_) => failed(StartError::Lost(None)),
            Err(HelperError::Silent) => {
                // It may have been started: nobody knows it, and it is ended when the helper
                // answers again.
                self.exec_failed(exec, StartError::Silent(self.supervisor.start_limit()));
                Err(EngineError::Helper(HelperError::Silent))
            }
            Err(error) => failed(start_error(error)),
        }
    }

    async fn exec_plan(
        &self,
        id: ExecId,
        handle: &Handle,
        config: &ExecConfig,
    ) -> Result<ExecPlan, EngineError> {
        let container = self.config(handle).await?;
        let prepared = spec::exec_process(config, &container, &self.context(&handle.id, None))?;
        let envelope = ExecEnvelope {
            id: id.to_string(),
            log: LogPlan {
                path: self.paths.exec_log(handle.id, id),
                // A foreground client holds the program back instead of losing output.
                max_size: prepared.log.max_size,
                max_files: prepared.log.max_files,
            },
            exit_record: self.paths.exec_exit_record(handle.id, id),
            user: Some(prepared.user),
            create_cwd: prepared.create_cwd,
            terminal_size: prepared.terminal_size,
            stdin: config.stdin || config.input.is_some(),
            gate: config.attach,
            seccomp: prepared.seccomp,
            state: self.oci_state(handle.id, &container),
            timeout_ms: prepared.timeout_ms,
            start_timeout_ms: Some(self.supervisor.start_timeout_ms()),
        };
        littlebox_plan::exec_plan(&prepared.process, envelope).map_err(|e| {
            EngineError::Config(ConfigError {
                pointer: String::new(),
                detail: e.to_string(),
                hint: None,
            })
        })
    }

    /// `None`: a quick program's end was told, and submitted, before this answer was read.
    fn exec_started(
        &self,
        exec: &Arc<ExecHandle>,
        pid: u32,
        warnings: Vec<String>,
    ) -> Option<Recorded> {
        let start = |record: &mut ExecRecord| {
            record.warnings = warnings;
            if record.state != ExecState::Starting {
                return (!record.warnings.is_empty()).then(Vec::new);
            }
            record.state = ExecState::Running;
            record.pid = Some(pid);
            Some(vec![("exec.started", serde_json::json!({ "pid": pid }))])
        };
        self.change_exec(exec, start, Vec::new())
    }

    fn exec_failed(&self, exec: &Arc<ExecHandle>, error: StartError) -> EngineError {
        let program = exec.record().command.first().cloned().unwrap_or_default();
        let (failure, exit_code) = describe_start(error, &program);
        let fail = |record: &mut ExecRecord| {
            if record.state != ExecState::Starting {
                // Its container has ended, and it with it.
                return None;
            }
            record.state = ExecState::Failed;
            record.finished_at = Some(now_ns());
            record.failure = Some(failure.clone());
            record.failure_code = Some(exit_code);
            let data = serde_json::json!({ "step": failure.step, "errno": failure.errno });
            Some(vec![("exec.failed", data)])
        };
        self.change_exec(exec, fail, Vec::new());
        exec.ended.send_replace(true);
        EngineError::StartFailed {
            failure: Box::new(failure),
            exit_code,
            id: Some(exec.id.to_string()),
        }
    }

    /// The helper says that an exec has ended; its output is complete.
    pub(crate) fn exec_exited(&self, handle: &Arc<Handle>, id: &str, record: &ExitRecord) {
        let found = handle
            .live()
            .execs
            .iter()
            .find(|e| e.id.to_string() == id)
            .cloned();
        let Some(exec) = found else {
            tracing::warn!(container = %handle.id, exec = id, "an unknown exec has ended");
            return;
        };
        let at = i64::try_from(record.finished_at_ns).unwrap_or_else(|_| now_ns());
        self.exec_ended(&exec, exit_of(record), at);
    }

    fn exec_ended(&self, exec: &Arc<ExecHandle>, exit: lbctl::types::Exit, at: i64) {
        let end = |record: &mut ExecRecord| {
            let mut told = Vec::new();
            match record.state {
                // The answer that tells its start is still on its way.
                ExecState::Starting => told.push(("exec.started", serde_json::json!({}))),
                ExecState::Running => {}
                ExecState::Exited | ExecState::Failed => return None,
            }
            told.push(("exec.exited", super::end::exit_data(&exit)));
            record.state = ExecState::Exited;
            record.pid = None;
            record.finished_at = Some(at);
            record.exit = Some(exit);
            Some(told)
        };
        if self.change_exec(exec, end, Vec::new()).is_some() {
            exec.ended.send_replace(true);
            exec.container.notify();
        }
    }

    /// Settles execs of which nothing more will be heard: by their exit records, or as unknown.
    pub(crate) fn end_execs(self: &Arc<Self>, handle: &Arc<Handle>) {
        let execs = handle.live().execs.clone();
        for exec in execs {
            let running = matches!(
                exec.record().state,
                ExecState::Starting | ExecState::Running
            );
            if running {
                self.settle_exec(&exec);
            }
        }
    }

    /// Settles one exec that does not run any more.
    pub(crate) fn settle_exec(self: &Arc<Self>, exec: &Arc<ExecHandle>) {
        let path = self.paths.exec_exit_record(exec.container.id, exec.id);
        match super::record::read_exit_record(&path) {
            Err(error) => {
                tracing::warn!(id = %exec.id, %error, "cannot read an exec's exit record yet");
                let (engine, exec) = (self.clone(), exec.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    engine.settle_exec(&exec);
                });
            }
            Ok(Some(record)) => {
                let at = i64::try_from(record.finished_at_ns).unwrap_or_else(|_| now_ns());
                self.exec_ended(exec, exit_of(&record), at);
            }
            Ok(None) => {
                let exit = unknown_exit("the container ended before the exec's end was recorded");
                self.exec_ended(exec, exit, now_ns());
            }
        }
    }

    /// Changes an exec, and submits its record with what is told of the change: under the record's
    /// lock, so that rows and events are written in the order of the changes. `None`: the change
    /// found nothing to do.
    fn change_exec(
        &self,
        exec: &ExecHandle,
        change: impl FnOnce(&mut ExecRecord) -> Option<Vec<Told>>,
        mut writes: Vec<Write>,
    ) -> Option<Recorded> {
        let name = exec.container.live().record.name.to_string();
        let mut record = exec.record();
        let told = change(&mut record)?;
        writes.push(Write::Exec {
            id: exec.id,
            container: exec.container.id,
            state: state_name(record.state),
            detail: serde_json::to_string(&*record).unwrap_or_default(),
        });
        writes.extend(told.into_iter().map(|(kind, data)| {
            Write::Event(NewEvent {
                kind,
                subject: exec.id.to_string(),
                container: Some(exec.container.id),
                name: Some(name.clone()),
                data,
            })
        }));
        Some(self.store.submit(writes, false))
    }

    /// Forgets the oldest finished execs over the number that is kept.
    fn drop_old_execs(&self, handle: &Arc<Handle>) {
        let mut dropped = Vec::new();
        {
            let mut live = handle.live();
            let finished = |e: &Arc<ExecHandle>| *e.ended.borrow();
            let mut excess = live
                .execs
                .iter()
                .filter(|e| finished(e))
                .count()
                .saturating_sub(KEPT);
            live.execs.retain(|e| {
                let drop_it = excess > 0 && finished(e);
                if drop_it {
                    excess -= 1;
                    dropped.push(e.clone());
                }
                !drop_it
            });
        }
        if dropped.is_empty() {
            return;
        }
        let mut containers = self.containers_mut();
        for exec in &dropped {
            containers.execs.remove(&exec.id);
        }
        drop(containers);
        let writes = dropped.iter().map(|e| Write::RemoveExec(e.id)).collect();
        drop(self.store.submit(writes, false));
        for exec in dropped {
            let log = self.paths.exec_log(handle.id, exec.id);
            for path in [
                log.with_extension("log.1"),
                log,
                self.paths.exec_exit_record(handle.id, exec.id),
            ] {
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, path = %path.display(), "cannot remove an exec's file");
                }
            }
        }
    }

    /// An exec as the API shows it; with `wait` once it has ended or the time is up, then with its
    /// output.
    pub async fn show_exec(
        &self,
        exec: &Arc<ExecHandle>,
        wait: Option<Duration>,
    ) -> Result<Exec, EngineError> {
        let Some(wait) = wait else {
            return Ok(exec.record().exec(exec.id));
        };
        let mut ended = exec.ended.subscribe();
        let done = tokio::time::timeout(wait, ended.wait_for(|e| *e))
            .await
            .is_ok();
        let mut shown = exec.record().exec(exec.id);
        if done && shown.failure.is_none() {
            shown.output = Some(self.inline_output(exec).await?);
        }
        Ok(shown)
    }

    async fn inline_output(&self, exec: &ExecHandle) -> Result<InlineOutput, EngineError> {
        let path = self.paths.exec_log(exec.container.id, exec.id);
        let read = |source| EngineError::Io {
            op: "read",
            path: path.clone(),
            source,
        };
        let mut follower = Follower::open(&self.watcher, path.clone(), From::Start)
            .await
            .map_err(read)?;
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        loop {
            match follower.next(Mode::Snapshot).await.map_err(read)? {
                Chunk::Records(records) => {
                    for record in records {
                        let stream = match record.stream {
                            LogStream::Stdout => &mut stdout,
                            LogStream::Stderr => &mut stderr,
                        };
                        if stream.len() + record.payload.len() >= INLINE_LIMIT {
                            truncated = true;
                            continue;
                        }
                        stream.extend_from_slice(&record.payload);
                        if !record.partial {
                            stream.push(b'\n');
                        }
                    }
                }
                Chunk::Lagged(_) => truncated = true,
                Chunk::End => break,
            }
        }
        Ok(inline(stdout, stderr, truncated))
    }

    /// Sends a signal to an exec.
    pub async fn signal_exec(&self, exec: &ExecHandle, signal: i32) -> Result<(), EngineError> {
        let helper = running(exec)?;
        let target = Target::Exec(exec.id.to_string());
        match helper
            .done(Call::Signal {
                target,
                signal,
                all: false,
            })
            .await
        {
            Ok(_) => Ok(()),
            Err(HelperError::Step(_) | HelperError::Gone) => Err(EngineError::ExecEnded {
                id: exec.id.to_string(),
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, exec: &ExecHandle, size: TermSize) -> Result<(), EngineError> {
        let helper = running(exec)?;
        if !exec.record().terminal {
            return Err(EngineError::NotAvailable("the exec has no terminal".into()));
        }
        let size = TerminalSize {
            rows: size.rows,
            cols: size.cols,
        };
        helper
            .done(Call::Resize {
                target: Target::Exec(exec.id.to_string()),
                size,
            })
            .await?;
        Ok(())
    }
}

/// The helper of a container in which something can be started.
fn runnable(handle: &Handle) -> Result<Helper, EngineError> {
    let helper = handle.running_helper("an exec")?;
    match handle.state() {
        ContainerState::Running => Ok(helper),
        // A process started in a frozen cgroup would hang before its first instruction.
        state => Err(EngineError::NotRunning {
            name: handle.live().record.name.to_string(),
            state,
            wish: "an exec",
        }),
    }
}

/// The helper of an exec that runs.
fn running(exec: &ExecHandle) -> Result<Helper, EngineError> {
    let ended = || EngineError::ExecEnded {
        id: exec.id.to_string(),
    };
    if *exec.ended.borrow() {
        return Err(ended());
    }
    match exec.container.running_helper("an exec") {
        Err(EngineError::NotRunning { .. }) => Err(ended()),
        helper => helper,
    }
}

fn new_record(handle: &Handle, config: &ExecConfig) -> ExecRecord {
    ExecRecord {
        container: handle.id,
        state: ExecState::Starting,
        command: config.command.clone(),
        terminal: config.terminal,
        stdin: config.stdin,
        attach: config.attach,
        pid: None,
        created_at: now_ns(),
        finished_at: None,
        exit: None,
        failure: None,
        failure_code: None,
        warnings: Vec::new(),
    }
}

fn state_name(state: ExecState) -> &'static str {
    match state {
        ExecState::Starting => "starting",
        ExecState::Running => "running",
        ExecState::Exited => "exited",
        ExecState::Failed => "failed",
    }
}

fn start_error(error: HelperError) -> StartError {
    match error {
        HelperError::Step(failure) => StartError::Step(*failure),
        HelperError::Gone | HelperError::Silent | HelperError::Protocol => StartError::Lost(None),
        HelperError::Io(e) => StartError::Io(e),
    }
}

/// Writes the given input to an exec's stdin and closes it.
async fn feed(helper: &Helper, id: ExecId, input: String) {
    let target = Target::Exec(id.to_string());
    if let Ok(stdin) = helper
        .descriptor(Call::OpenStdin {
            target: target.clone(),
        })
        .await
    {
        // On a thread of its own: the pipe may be full for as long as the program lives.
        let written = tokio::task::spawn_blocking(move || write_all_blocking(stdin, &input)).await;
        tracing::trace!(?written, "an exec's input");
    }
    let _ = helper.done(Call::CloseStdin { target }).await;
}

/// Writes to a non-blocking descriptor, waiting with poll(2) where it is full.
fn write_all_blocking(fd: std::os::fd::OwnedFd, input: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::from(fd);
    let mut rest = input.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let mut fds = [rustix::event::PollFd::new(
                    &file,
                    rustix::event::PollFlags::OUT,
                )];
                rustix::event::poll(&mut fds, None)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn inline(stdout: Vec<u8>, stderr: Vec<u8>, truncated: bool) -> InlineOutput {
    match (String::from_utf8(stdout), String::from_utf8(stderr)) {
        (Ok(stdout), Ok(stderr)) => InlineOutput {
            stdout,
            stderr,
            encoding: OutputEncoding::Utf8,
            truncated,
        },
        (stdout, stderr) => {
            let encode = |bytes: Result<String, std::string::FromUtf8Error>| {
                let bytes =
                    bytes.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
                base64::engine::general_purpose::STANDARD.encode(bytes)
            };
            InlineOutput {
                stdout: encode(stdout),
                stderr: encode(stderr),
                encoding: OutputEncoding::Base64,
                truncated,
            }
        }
    }
}
