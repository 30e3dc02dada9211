//! A container and an exec in memory: the record, the connection to the helper, who waits.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use littlebox_protocol::Call;
use littlebox_types::{ContainerConfig, ContainerId, ContainerState, ExecId};
use tokio::sync::watch;

use super::EngineError;
use super::files::{Share, UpperUse};
use super::host::kernel::CommandLines;
use super::operation::Operations;
use super::record::{ExecRecord, Record};
use super::streams::Inputs;
use crate::lifecycle::{self, Transition};
use crate::supervisor::{Due, Helper, HelperError};

/// One container.
#[derive(Debug)]
pub struct Handle {
    /// Its id, which never changes.
    pub id: ContainerId,
    /// Serialises what changes the lifecycle. No turn lasts while a program is given time to end, so
    /// that a forced removal never waits behind a stop.
    pub operations: Operations,
    /// Who may use its upper directory.
    pub upper_use: UpperUse,
    /// Its share of the requests that read or write files.
    pub(super) file_share: Share,
    /// The open standard inputs of its programs.
    pub(super) inputs: Inputs,
    /// Whose turn it is to read its processes' command lines.
    pub(super) command_lines: CommandLines,
    live: Mutex<Live>,
    changed: watch::Sender<u64>,
}

/// What changes.
#[derive(Debug)]
pub struct Live {
    /// The record, as the store has or will have it.
    pub record: Record,
    /// The connection, while a helper is expected to live.
    pub helper: Option<Helper>,
    /// The container's PID 1: what a signal goes to when its helper is lost.
    pub pidfd: Option<Arc<OwnedFd>>,
    /// What it was asked to be, kept while it lives: execs need it.
    pub config: Option<Arc<ContainerConfig>>,
    /// Counts starts, from their very beginning, so that a late timer never hits the next run.
    pub run: u64,
    /// A timer of this daemon ends this run, which is being stopped.
    pub stop_timer: bool,
    /// Counts ends of runs: who waits for one sees it, also when the next run has begun.
    pub ends: u64,
    /// Becomes true when this run's output is complete; replaced at each start.
    pub ended: watch::Sender<bool>,
    /// The row is gone.
    pub removed: bool,
    /// Foreground clients.
    pub clients: Clients,
    /// Execs, oldest first.
    pub execs: Vec<Arc<ExecHandle>>,
}

/// A run of a container.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub run: u64,
    /// `None`: it cannot be asked now.
    pub helper: Option<Helper>,
}

/// Foreground clients of a container that was created with `attach`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Clients {
    /// How many streams are open.
    pub open: u32,
    /// One was open and the last has gone.
    pub served: bool,
}

impl Handle {
    /// A container in memory; the helper comes later.
    pub fn new(record: Record) -> Arc<Self> {
        let ended = !matches!(
            record.state,
            ContainerState::Created | ContainerState::Starting
        ) && !lifecycle::is_live(record.state);
        Arc::new(Self {
            id: record.id,
            operations: Operations::default(),
            upper_use: UpperUse::default(),
            file_share: Share::default(),
            inputs: Inputs::default(),
            command_lines: CommandLines::default(),
            live: Mutex::new(Live {
                record,
                helper: None,
                pidfd: None,
                config: None,
                run: 0,
                stop_timer: false,
                ends: 0,
                ended: watch::Sender::new(ended),
                removed: false,
                clients: Clients::default(),
                execs: Vec::new(),
            }),
            changed: watch::Sender::new(0),
        })
    }

    /// Looks, or changes what needs no telling.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        // Nothing panics in a critical section; a poisoned lock still guards whole values.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits on this container.
    pub fn notify(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Follows changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A copy of the record.
    pub fn record(&self) -> Record {
        self.live().record.clone()
    }

    /// The state now.
    pub fn state(&self) -> ContainerState {
        self.live().record.state
    }

    /// The connection to the helper of a container whose program runs.
    pub fn running_helper(&self, wish: &'static str) -> Result<Helper, EngineError> {
        Ok(self.run_and_helper(wish)?.1)
    }

    /// The run of a container whose program runs, and the connection to its helper.
    pub fn run_and_helper(&self, wish: &'static str) -> Result<(u64, Helper), EngineError> {
        let live = self.live();
        if let Some(condition) = live.record.helper_condition {
            return Err(EngineError::HelperUnreachable {
                name: live.record.name.to_string(),
                condition,
            });
        }
        drop(live);
        let Running { run, helper } = self.running(wish)?;
        // Its connection has just ended, and what is true of it is being found out.
        let helper = helper.ok_or(EngineError::Helper(HelperError::Silent))?;
        Ok((run, helper))
    }

    /// A container whose program runs, and the connection to its helper where there is one.
    pub fn running(&self, wish: &'static str) -> Result<Running, EngineError> {
        let live = self.live();
        match live.record.state {
            ContainerState::Running | ContainerState::Paused | ContainerState::Stopping => {
                Ok(Running {
                    run: live.run,
                    helper: live.helper.clone(),
                })
            }
            state => Err(EngineError::NotRunning {
                name: live.record.name.to_string(),
                state,
                wish,
            }),
        }
    }

    /// Does a part of an operation that may be held up, unless somebody wants the container to end.
    ///
    /// # Errors
    /// Those of the work; [`EngineError::Cancelled`].
    pub(super) async fn unless_it_ends<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::select! {
            done = work => done,
            () = self.operations.is_held_up() => Err(self.cancelled()),
        }
    }

    /// Waits for the turn of a request to its helper.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`].
    pub(super) async fn due<'h>(
        &self,
        helper: &'h Helper,
        call: Call,
    ) -> Result<Due<'h>, EngineError> {
        let due = async { Ok(helper.due(call).await) };
        self.unless_it_ends(due).await
    }

    /// Why an operation that was held up is given up.
    pub(super) fn cancelled(&self) -> EngineError {
        EngineError::Cancelled {
            name: self.record().name.to_string(),
        }
    }

    /// Counts a foreground client in until the guard is dropped.
    pub fn client(self: &Arc<Self>) -> ClientGuard {
        self.live().clients.open += 1;
        self.notify();
        ClientGuard {
            handle: self.clone(),
        }
    }
}

/// A foreground client's presence.
#[derive(Debug)]
pub struct ClientGuard {
    handle: Arc<Handle>,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        {
            let mut live = self.handle.live();
            live.clients.open = live.clients.open.saturating_sub(1);
            live.clients.served = live.clients.open == 0;
        }
        self.handle.notify();
    }
}

impl Live {
    /// Asks the table whether a transition is possible now.
    pub fn may(&self, transition: Transition) -> Result<(), EngineError> {
        match lifecycle::next(self.record.state, transition) {
            Ok(_) => Ok(()),
            Err(illegal) => Err(EngineError::Illegal {
                name: self.record.name.to_string(),
                illegal,
            }),
        }
    }

    /// Takes an exec into a run that goes on. Whoever records the end of that run finds the exec
    /// here: none is left behind that nobody settles.
    pub fn begin_exec(&mut self, run: u64, exec: &Arc<ExecHandle>) -> Result<(), EngineError> {
        if self.run != run || self.removed || !lifecycle::is_live(self.record.state) {
            return Err(EngineError::NotRunning {
                name: self.record.name.to_string(),
                state: self.record.state,
                wish: "an exec",
            });
        }
        self.execs.push(exec.clone());
        Ok(())
    }

    /// Moves the state along the table.
    pub fn transition(&mut self, transition: Transition) -> Result<(), EngineError> {
        match lifecycle::next(self.record.state, transition) {
            Ok(state) if !self.removed => {
                self.record.state = state;
                if transition == Transition::Start {
                    self.run += 1;
                    self.stop_timer = false;
                }
                if !lifecycle::is_live(state) {
                    self.record.helper_condition = None;
                }
                self.record.generation += 1;
                Ok(())
            }
            Ok(_) => Err(EngineError::ContainerNotFound(self.record.name.to_string())),
            Err(illegal) => Err(EngineError::Illegal {
                name: self.record.name.to_string(),
                illegal,
            }),
        }
    }
}

/// One exec.
#[derive(Debug)]
pub struct ExecHandle {
    /// Its id.
    pub id: ExecId,
    /// Its container.
    pub container: Arc<Handle>,
    record: Mutex<ExecRecord>,
    /// True when it has ended (or never ran) and its output is complete.
    pub ended: watch::Sender<bool>,
}

impl ExecHandle {
    /// An exec in memory.
    pub fn new(id: ExecId, container: Arc<Handle>, record: ExecRecord) -> Arc<Self> {
        let ended = record.exit.is_some() || record.failure.is_some();
        Arc::new(Self {
            id,
            container,
            record: Mutex::new(record),
            ended: watch::Sender::new(ended),
        })
    }

    /// The record.
    pub fn record(&self) -> MutexGuard<'_, ExecRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: &str) -> Arc<Handle> {
        let record = serde_json::json!({
            "state": state, "rootfs": "host", "command": ["true"], "labels": {}, "created_at": 0,
            "warnings": [], "cgroups": {}, "auto_remove": false, "attach": false,
            "terminal": false, "stdin": false, "stop_signal": 15, "stop_timeout_s": 10,
        });
        Handle::new(serde_json::from_value(record).unwrap())
    }

    fn exec(container: &Arc<Handle>) -> Arc<ExecHandle> {
        let record = serde_json::json!({
            "container": container.id, "state": "starting", "command": ["true"], "terminal": false,
            "stdin": false, "attach": false, "created_at": 0, "warnings": [],
        });
        let record = serde_json::from_value(record).unwrap();
        ExecHandle::new(ExecId::generate(), container.clone(), record)
    }

    #[test]
    fn an_exec_begins_in_the_run_that_it_was_asked_for_or_not_at_all() {
        let runs = container("running");
        let (run, first) = (runs.live().run, exec(&runs));
        runs.live().begin_exec(run, &first).unwrap();
        assert_eq!(runs.live().execs.len(), 1);
        // It ended while the exec was prepared, and its execs were settled.
        runs.live().transition(Transition::Ended).unwrap();
        let late = runs.live().begin_exec(run, &exec(&runs));
        assert!(
            matches!(late, Err(EngineError::NotRunning { .. })),
            "{late:?}"
        );
        // It was started again meanwhile.
        for next in [Transition::Start, Transition::Launched] {
            runs.live().transition(next).unwrap();
        }
        assert!(runs.live().begin_exec(run, &exec(&runs)).is_err());
        assert_eq!(runs.live().execs.len(), 1);
    }
}
