//! Signals, stop, restart, pause; and what happens when a program or its helper ends.

use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::{Call, ExitRecord, Target, TerminalSize, bounds};
use littlebox_types::{ContainerState, Exit, ExitStatus, TermSize};

use tokio::sync::watch;

use super::start::Cause;
use crate::engine::handle::Running;
use crate::engine::record::exit_of;
use crate::engine::{Engine, EngineError, Handle, describe_step, settle};
use crate::faults;
use crate::lifecycle::{self, Transition};
use crate::paths;
use crate::supervisor::{Helper, HelperError};
use crate::time::now_ns;

const SIGKILL: i32 = 9;

/// How to stop.
#[derive(Debug, Default, Clone, Copy)]
pub struct StopOptions {
    /// Instead of the container's own stop signal.
    pub signal: Option<i32>,
    /// Instead of the container's own grace.
    pub grace: Option<Duration>,
    /// How long the caller waits for the end; `None`: until it has ended.
    pub wait: Option<Duration>,
}

/// Who wants an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A client: no policy brings the container back.
    Client,
    /// The machine, which goes down: policies go on after its boot.
    Machine,
}

impl Engine {
    /// Sends a signal to PID 1, or to every process of the container.
    pub async fn kill(
        self: &Arc<Self>,
        reference: &str,
        signal: i32,
        all: bool,
    ) -> Result<(), EngineError> {
        let handle = self.find(reference)?;
        let running = handle.running("a signal")?;
        self.note_deadly(&handle, signal);
        self.signal_run(&handle, &running, signal, all).await?;
        if signal == SIGKILL && handle.state() == ContainerState::Paused {
            // A frozen process on cgroup v1 dies only once it is thawed.
            thaw(running.helper.as_ref()).await;
        }
        Ok(())
    }

    /// Signals a run by its helper; where that does not answer, by what is known of it.
    async fn signal_run(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        running: &Running,
        signal: i32,
        all: bool,
    ) -> Result<(), EngineError> {
        if let Some(helper) = &running.helper {
            match send_signal(helper, signal, all).await {
                Err(HelperError::Gone | HelperError::Silent) => {}
                sent => return Ok(sent?),
            }
        }
        self.signal_without_helper(handle, running.run, signal, all)
    }

    /// Asks a container to end: the signal, the grace, then SIGKILL. Returns whether it has ended
    /// within `options.wait`.
    pub async fn stop(
        self: &Arc<Self>,
        reference: &str,
        options: StopOptions,
    ) -> Result<(Arc<Handle>, bool), EngineError> {
        let handle = self.find(reference)?;
        let (engine, stopped) = (self.clone(), handle.clone());
        self.detached(async move { engine.begin_stop(&stopped, options, By::Client).await })
            .await?;
        let ended = match options.wait {
            Some(wait) => handle.ended_within(Some(wait)).await,
            None => {
                let grace = options.grace.unwrap_or(handle.record().grace());
                self.wait_for_end(&handle, grace).await?;
                true
            }
        };
        Ok((handle, ended))
    }

    /// Waits until a container that is being stopped has ended.
    ///
    /// # Errors
    /// [`EngineError::DoesNotEnd`] when it was killed long ago: it ends when the kernel lets it.
    pub(super) async fn wait_for_end(
        &self,
        handle: &Handle,
        grace: Duration,
    ) -> Result<(), EngineError> {
        let patience = grace.saturating_add(bounds::DEATH);
        if handle.ended_within(Some(patience)).await {
            return Ok(());
        }
        Err(EngineError::DoesNotEnd {
            name: handle.record().name.to_string(),
        })
    }

    /// The part of a stop that changes something: state, signal, and the timer that kills.
    pub(super) async fn begin_stop(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        options: StopOptions,
        by: By,
    ) -> Result<(), EngineError> {
        let was_starting = handle.state() == ContainerState::Starting;
        let end = handle.operations.end();
        let turn = end.turn().await;
        if by == By::Client && self.cancel_restart(handle) {
            return Ok(());
        }
        if was_starting && handle.state() == ContainerState::Failed {
            // Its start was given up for this, or did not succeed by itself.
            if by == By::Client {
                self.note_deadly(handle, SIGKILL);
            }
            return Ok(());
        }
        let ((running, was_paused, signal, grace), _queued) =
            self.change(handle, |live, recording| {
                let was_paused = live.record.state == ContainerState::Paused;
                live.transition(Transition::Stop)?;
                match by {
                    By::Client => live.record.restart.stopped = true,
                    By::Machine => live.record.restart.interrupted = true,
                }
                let signal = options.signal.unwrap_or(live.record.stop_signal);
                let grace = options.grace.unwrap_or(live.record.grace());
                let data = serde_json::json!({ "signal": crate::spec::signal_name(signal) });
                recording.event("container.stopping", data);
                live.stop_timer = true;
                let running = Running {
                    run: live.run,
                    helper: live.helper.clone(),
                };
                Ok::<_, EngineError>((running, was_paused, signal, grace))
            })?;
        // What follows is about this run alone, and a helper may take its time.
        drop((turn, end));
        let Some(helper) = &running.helper else {
            self.end_without_helper(handle, running.run, signal, grace);
            return Ok(());
        };
        // First of all what bounds this: no signal that fails or gets lost leaves it without.
        self.kill_after(handle, running.run, grace);
        if grace.is_zero() {
            return Ok(());
        }
        if let Err(error) = self.signal_run(handle, &running, signal, false).await {
            // Then it has its grace without a word, and is killed after it.
            tracing::warn!(id = %handle.id, %error, "a stop signal could not be sent");
        }
        if was_paused {
            thaw(Some(helper)).await;
        }
        Ok(())
    }

    /// Kills this run of the container after the grace, unless it has ended: by its helper, and when
    /// that does not bring it about, without. Not tracked: a shutdown does not wait for it, and the
    /// next daemon sets it anew.
    pub(in crate::engine) fn kill_after(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        grace: Duration,
    ) {
        let (engine, handle) = (self.clone(), handle.clone());
        let mut ended = handle.live().ended.subscribe();
        tokio::spawn(async move {
            if over_within(&mut ended, grace).await {
                return;
            }
            let helper = {
                let live = handle.live();
                if live.run != run {
                    return;
                }
                live.helper.clone()
            };
            let killed = async {
                let Some(helper) = helper else { return false };
                let killed = send_signal(&helper, SIGKILL, false).await.is_ok();
                if killed {
                    // A frozen process on cgroup v1 dies only once it is thawed.
                    thaw(Some(&helper)).await;
                }
                killed
            };
            // Bounded, because it may wait for its turn.
            if let Ok(true) = tokio::time::timeout(bounds::END, killed).await
                && over_within(&mut ended, bounds::END).await
            {
                return;
            }
            engine.end_without_helper(&handle, run, SIGKILL, Duration::ZERO);
        });
    }

    /// Stops a container if it runs, and starts it again.
    pub async fn restart(
        self: &Arc<Self>,
        reference: &str,
        options: StopOptions,
    ) -> Result<Arc<Handle>, EngineError> {
        let handle = self.find(reference)?;
        let id = handle.id.to_string();
        let engine = self.clone();
        self.detached(async move {
            if lifecycle::is_live(handle.state()) {
                engine.begin_stop(&handle, options, By::Client).await?;
                let grace = options.grace.unwrap_or(handle.record().grace());
                engine.wait_for_end(&handle, grace).await?;
            }
            let _turn = handle.operations.turn().await;
            engine.start_locked(&handle, Cause::Client).await
        })
        .await?;
        self.find(&id)
    }

    /// Freezes or thaws a container.
    pub async fn freeze(
        self: &Arc<Self>,
        reference: &str,
        frozen: bool,
    ) -> Result<Arc<Handle>, EngineError> {
        let handle = self.find(reference)?;
        let engine = self.clone();
        self.detached(async move {
            let _turn = handle.operations.turn().await;
            let transition = if frozen {
                Transition::Freeze
            } else {
                Transition::Thaw
            };
            // Ask the table before the kernel.
            handle.live().may(transition)?;
            let helper = handle.running_helper("a pause")?;
            let due = handle.due(&helper, Call::Freeze { frozen }).await?;
            match due.done().await {
                Err(HelperError::Step(failure)) => {
                    let failure = Box::new(describe_step(&failure, ""));
                    return Err(EngineError::PauseFailed(failure));
                }
                other => other?,
            };
            engine.change(&handle, |live, recording| {
                live.transition(transition)?;
                let kind = if frozen {
                    "container.paused"
                } else {
                    "container.resumed"
                };
                recording.event(kind, serde_json::json!({}));
                Ok::<_, EngineError>(())
            })?;
            Ok(handle.clone())
        })
        .await
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(&self, reference: &str, size: TermSize) -> Result<(), EngineError> {
        let handle = self.find(reference)?;
        let helper = handle.running_helper("a resize")?;
        if !handle.live().record.terminal {
            return Err(EngineError::NotAvailable(
                "the container has no terminal".into(),
            ));
        }
        let size = TerminalSize {
            rows: size.rows,
            cols: size.cols,
        };
        helper
            .done(Call::Resize {
                target: Target::Container,
                size,
            })
            .await?;
        Ok(())
    }

    /// The OOM killer has ended `kills` processes of this run by now.
    pub(in crate::engine) fn oom_killed(&self, handle: &Handle, run: u64, kills: u64) {
        let _known = self.change(handle, |live, recording| {
            if live.run != run || live.record.oom_kills >= kills {
                return Err(());
            }
            let new = kills - live.record.oom_kills;
            live.record.oom_kills = kills;
            live.record.generation += 1;
            let data = serde_json::json!({ "count": new, "total": kills });
            recording.event("container.oom", data);
            Ok(())
        });
    }

    /// The helper says that the program has ended; its exit record is on disk.
    pub(in crate::engine) fn exited(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        record: &ExitRecord,
    ) {
        let at = i64::try_from(record.finished_at_ns).unwrap_or_else(|_| now_ns());
        // What the helper could not tell while the daemon was away.
        self.oom_killed(handle, run, record.oom_kills);
        self.ended(handle, run, exit_of(record), at);
    }

    /// Records an end, however it became known.
    pub(in crate::engine) fn ended(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        exit: Exit,
        at: i64,
    ) {
        faults::point("exited.before");
        let ended = self.change(handle, |live, recording| {
            if live.run != run {
                return Err(());
            }
            live.transition(Transition::Ended).map_err(drop)?;
            live.helper = None;
            live.pidfd = None;
            // What removes itself is gone before the last who waits for it is answered with it.
            if !live.record.auto_remove {
                live.config = None;
            }
            live.record.process = None;
            live.record.helper = None;
            live.record.cgroups.clear();
            live.record.finished_at = Some(at);
            live.record.exit = Some(exit.clone());
            live.ends = live.ends.wrapping_add(1);
            live.ended.send_replace(true);
            recording.event("container.exited", exit_data(&exit));
            let again = self.again_after_run(&mut live.record, &exit.status, recording);
            Ok((live.record.auto_remove, again))
        });
        let Ok(((auto_remove, again), recorded)) = ended else {
            return;
        };
        self.end_execs(handle);
        let (engine, ended, id) = (self.clone(), handle.clone(), handle.id);
        self.background(async move {
            // The exit record may go only when the row holds what it says.
            if recorded.committed().await.is_ok() {
                faults::point("exited.after");
                engine.remove_run_dir_of(&ended, run);
            } else {
                tracing::error!(%id, "an exit could not be recorded; its record stays on disk");
            }
        });
        if auto_remove {
            self.schedule_auto_remove(handle);
        }
        if let Some(due_at) = again {
            self.restart_at(handle, due_at);
        }
    }

    /// Removes what the helper of an ended run left, unless the next start has begun: the directory
    /// is then that one's. The lock keeps the next start from beginning in between.
    fn remove_run_dir_of(&self, handle: &Handle, run: u64) {
        let run_dir = self.paths.run_dir(handle.id);
        let live = handle.live();
        if live.run != run || live.record.state != ContainerState::Exited {
            return;
        }
        if let Err(error) = paths::remove_tree(&run_dir) {
            tracing::warn!(%error, path = %run_dir.display(), "cannot remove it");
        }
    }

    /// A helper's connection ended although its container had not: find out what is true.
    pub(super) async fn helper_lost(self: &Arc<Self>, handle: &Arc<Handle>, run: u64) {
        // A stop or a start that is under way comes first.
        let _turn = handle.operations.engines_turn().await;
        if handle.live().run != run {
            return;
        }
        // It may have ended properly and only its last word was lost, or only the connection.
        let settled = settle(self, handle).await;
        tracing::warn!(id = %handle.id, ?settled, "the connection to a helper was lost");
    }
}

impl Handle {
    /// Waits until the present run has ended; `false` when the time was up first.
    pub async fn ended_within(&self, limit: Option<Duration>) -> bool {
        let mut ended = self.live().ended.subscribe();
        let wait = async { ended.wait_for(|e| *e).await.is_ok() };
        match limit {
            None => wait.await,
            Some(limit) => tokio::time::timeout(limit, wait).await.unwrap_or(false),
        }
    }
}

/// Waits for the end of the run that a receiver was taken from.
async fn over_within(ended: &mut watch::Receiver<bool>, limit: Duration) -> bool {
    // A sender that is gone was replaced by the next run's.
    tokio::time::timeout(limit, ended.wait_for(|ended| *ended))
        .await
        .is_ok()
}

async fn send_signal(helper: &Helper, signal: i32, all: bool) -> Result<(), HelperError> {
    let call = Call::Signal {
        target: Target::Container,
        signal,
        all,
    };
    match helper.done(call).await {
        // It has just ended: then the signal has nothing left to do.
        Err(HelperError::Step(f)) if f.errno == rustix::io::Errno::SRCH.raw_os_error() => Ok(()),
        sent => sent.map(drop),
    }
}

/// Lets the processes of a container go on, so that they get their signals.
async fn thaw(helper: Option<&Helper>) {
    if let Some(helper) = helper {
        // Whoever waits for the end of one that stays frozen ends it by its cgroup.
        let _thawed = helper.done(Call::Freeze { frozen: false }).await;
    }
}

pub(in crate::engine) fn exit_data(exit: &Exit) -> serde_json::Value {
    let mut data = match &exit.status {
        ExitStatus::Exited { code } => serde_json::json!({ "exit_code": code }),
        ExitStatus::Signaled {
            signal,
            signal_name,
        } => {
            serde_json::json!({ "signal": signal, "signal_name": signal_name })
        }
        ExitStatus::Unknown { detail } => serde_json::json!({ "unknown": detail }),
    };
    if exit.oom_killed {
        data["oom_killed"] = true.into();
    }
    if exit.timed_out {
        data["timed_out"] = true.into();
    }
    data
}
