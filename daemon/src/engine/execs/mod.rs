//! Execs: processes started inside a running container.

mod changes;
mod input;
mod output;
mod requests;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use littlebox_plan::ExecEnvelope;
use littlebox_protocol::{Call, ExecPlan, LogPlan, Reply, Step, bounds};
use littlebox_types::{ContainerState, ExecConfig, ExecId, ExecState};
use rustix::io::Errno;

use crate::engine::error::describe_start;
use crate::engine::record::{ExecRecord, TooLate};
use crate::engine::{Engine, EngineError, ExecHandle, Handle};
use crate::lifecycle::exec::Transition;
use crate::spec::{self, ConfigError};
use crate::store::{Queued, Write};
use crate::supervisor::{Due, EXECS_UNDER_WAY, Helper, HelperError, StartError};
use crate::time::now_ns;
use crate::{faults, lifecycle};

/// How to exec.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// The client's key and the digest of its request.
    pub idempotency: Option<(String, String)>,
}

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
                let id = ExecId::generate();
                return engine.exec_with_id(id, &handle, config, Vec::new()).await;
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

    async fn exec_with_id(
        self: &Arc<Self>,
        id: ExecId,
        handle: &Arc<Handle>,
        config: ExecConfig,
        writes: Vec<Write>,
    ) -> Result<Arc<ExecHandle>, EngineError> {
        let (run, helper) = runnable(handle)?;
        let plan = self.exec_plan(id, handle, &config).await?;
        // Before the exec is visible: the helper cannot answer requests about one that it was not sent.
        let due = self.exec_due(&helper, plan).await?;
        let exec = ExecHandle::new(id, handle.clone(), new_record(handle, &config));
        handle.live().begin_exec(run, &exec)?;
        self.insert_exec(&exec);
        faults::point("exec.before");
        let recorded = self.change_exec(&exec, |_, recording| {
            recording.writes = writes;
            Ok::<_, Infallible>(())
        });
        let Ok(_queued) = recorded;
        let answer = due.slow_call(self.supervisor.start_limit()).await;
        faults::point("exec.after");
        let started = self.exec_answered(&exec, answer).await;
        self.drop_old_execs(handle);
        started?;
        if let Some(input) = config.input {
            let (engine, fed) = (self.clone(), exec.clone());
            tokio::spawn(async move { engine.feed(helper, fed, input).await });
        }
        Ok(exec)
    }

    /// Waits until an exec may be under way.
    async fn exec_due<'a>(
        &self,
        helper: &'a Helper,
        plan: ExecPlan,
    ) -> Result<Due<'a>, EngineError> {
        let due = helper.due(Call::Exec(Box::new(plan)));
        let due = tokio::time::timeout(self.supervisor.start_limit(), due).await;
        due.map_err(|_elapsed| EngineError::Busy {
            limit: EXECS_UNDER_WAY,
            what: "starts of processes in this container",
        })
    }

    async fn exec_answered(
        &self,
        exec: &Arc<ExecHandle>,
        answer: Result<(Reply, Vec<OwnedFd>), HelperError>,
    ) -> Result<(), EngineError> {
        let error = match answer {
            Ok((Reply::ExecStarted { pid, warnings, .. }, _)) => {
                // Written, without an fsync: a client that was told of it finds it again when the
                // daemon is killed, and a power cut ends the exec anyway.
                return match self.exec_started(exec, Some(pid), warnings) {
                    Some(queued) => Ok(queued.committed().await?),
                    None => Ok(()),
                };
            }
            Ok(_) | Err(HelperError::Gone | HelperError::Protocol) => StartError::Lost(None),
            Err(HelperError::Step(failure)) => StartError::Step(*failure),
            Err(HelperError::Io(error)) => StartError::Io(error),
            Err(HelperError::Silent) => {
                // It may have been started: nobody knows it, and it is ended when the helper
                // answers again.
                let waited = self.supervisor.start_limit() + bounds::ANSWER;
                self.exec_failed(exec, StartError::Silent(waited));
                return Err(EngineError::Helper(HelperError::Silent));
            }
        };
        let container_ended = match &error {
            // The helper knows it first, and says so by ESRCH.
            StartError::Step(failure) => {
                (failure.step, failure.errno) == (Step::Checks, Errno::SRCH.raw_os_error())
            }
            // Its last word may not have been read yet.
            StartError::Lost(_) => exec.container.ended_within(Some(LAST_WORD)).await,
            _ => !lifecycle::is_live(exec.container.state()),
        };
        let failed = self.exec_failed(exec, error);
        Err(match container_ended {
            true => not_running(&exec.container, ContainerState::Exited),
            false => failed,
        })
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

    /// `None`: a quick program's exit was read, and recorded, before the answer that it was started.
    pub(super) fn exec_started(
        &self,
        exec: &ExecHandle,
        pid: Option<u32>,
        warnings: Vec<String>,
    ) -> Option<Queued> {
        let started = self.change_exec(exec, |record, recording| {
            let no_news = warnings.is_empty();
            record.warnings = warnings;
            match record.transition(Transition::Started) {
                Err(late) if no_news => return Err(late),
                Err(_late) => return Ok(()),
                Ok(_) => {}
            }
            record.pid = pid;
            let data = match pid {
                Some(pid) => serde_json::json!({ "pid": pid }),
                None => serde_json::json!({}),
            };
            recording.event("exec.started", data);
            Ok(())
        });
        started.ok().map(|((), queued)| queued)
    }

    fn exec_failed(&self, exec: &ExecHandle, error: StartError) -> EngineError {
        let program = exec.record().command.first().cloned().unwrap_or_default();
        let (failure, exit_code) = describe_start(&error, &program);
        // Too late: its container has ended, and it with it.
        let _late = self.change_exec(exec, |record, recording| {
            record.transition(Transition::Failed)?;
            record.finished_at = Some(now_ns());
            record.failure = Some(failure.clone());
            record.failure_code = Some(exit_code);
            let data = serde_json::json!({ "step": failure.step, "errno": failure.errno });
            recording.event("exec.failed", data);
            Ok::<_, TooLate>(())
        });
        EngineError::StartFailed {
            failure: Box::new(failure),
            exit_code,
            id: Some(exec.id.to_string()),
        }
    }
}

/// How long after the loss of a helper it may take to know that its container has ended.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What an exec needs, as a noun in messages.
const WISH: &str = "an exec";

/// The run of a container in which something can be started, and its helper.
fn runnable(handle: &Handle) -> Result<(u64, Helper), EngineError> {
    let found = handle.run_and_helper(WISH)?;
    match handle.state() {
        ContainerState::Running => Ok(found),
        // A process started in a frozen cgroup would hang before its first instruction.
        state => Err(not_running(handle, state)),
    }
}

fn not_running(handle: &Handle, state: ContainerState) -> EngineError {
    EngineError::NotRunning {
        name: handle.live().record.name.to_string(),
        state,
        wish: WISH,
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
