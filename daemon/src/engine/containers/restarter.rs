//! Restart policies at work: what [`crate::engine::policies::restart`] decides is recorded, and done in time.

use std::sync::Arc;
use std::time::Duration;

use littlebox_types::{ContainerState, ExitStatus, RestartMode};

use super::start::Cause;
use crate::engine::policies::restart::{Ending, RestartState};
use crate::engine::record::Record;
use crate::engine::{Engine, EngineError, Handle, Recording};
use crate::lifecycle;
use crate::time::now_ns;

const SIGKILL: i32 = 9;

impl Engine {
    /// A run is over: decides whether there is another one, records that, and returns when it is due.
    pub(super) fn again_after_run(
        &self,
        record: &mut Record,
        exit: &ExitStatus,
        recording: &mut Recording,
    ) -> Option<i64> {
        let lasted = match (record.started_at, record.finished_at) {
            (Some(from), Some(to)) => u64::try_from(to.saturating_sub(from)).unwrap_or(0),
            // The daemon died while it started it.
            _ => 0,
        };
        let lasted = Duration::from_nanos(lasted);
        self.again(record, Ending::Exit(exit), lasted, recording)
    }

    /// The same after a start that failed. When it was a client's, the client knows, and decides.
    pub(super) fn again_after_failed_start(
        &self,
        record: &mut Record,
        recording: &mut Recording,
    ) -> Option<i64> {
        if record.restart.count == 0 {
            return None;
        }
        self.again(record, Ending::FailedStart, Duration::ZERO, recording)
    }

    fn again(
        &self,
        record: &mut Record,
        ending: Ending<'_>,
        lasted: Duration,
        recording: &mut Recording,
    ) -> Option<i64> {
        record.restart.boot_id.clone_from(&self.boot_id);
        let delay = record.restart.after(ending, lasted)?;
        let due_at = now_ns().saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
        record.restart.due_at = Some(due_at);
        let data = serde_json::json!({
            "restart_count": record.restart.count.saturating_add(1),
            "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        });
        recording.event("container.restarting", data);
        Some(due_at)
    }

    /// Starts a container when its time has come. Not tracked: a shutdown does not wait for it,
    /// and the next daemon finds `due_at` in the record.
    pub(super) fn restart_at(self: &Arc<Self>, handle: &Arc<Handle>, due_at: i64) {
        let (engine, handle) = (self.clone(), handle.clone());
        tokio::spawn(async move {
            tokio::time::sleep(RestartState::remaining(due_at, now_ns())).await;
            let (task, restarted) = (engine.clone(), handle.clone());
            let started = engine
                .detached(async move { task.start_when_due(&restarted, due_at).await })
                .await;
            match started {
                Ok(()) | Err(EngineError::ShuttingDown) => {}
                Err(error) => tracing::warn!(id = %handle.id, %error, "an automatic start failed"),
            }
        });
    }

    async fn start_when_due(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        due_at: i64,
    ) -> Result<(), EngineError> {
        let _turn = handle.operations.turn().await;
        {
            // A client may have stopped, started or removed it meanwhile.
            let live = handle.live();
            if live.removed || live.record.restart.due_at != Some(due_at) {
                return Ok(());
            }
        }
        self.start_locked(handle, Cause::Policy).await
    }

    /// A client sends a signal that is meant to end the container: then that is what it wants, and
    /// no policy brings it back.
    pub(super) fn note_deadly(&self, handle: &Handle, signal: i32) {
        let _unchanged = self.change(handle, |live, _| {
            let deadly = signal == SIGKILL || signal == live.record.stop_signal;
            let restart = &mut live.record.restart;
            if !deadly || restart.stopped || restart.policy.policy == RestartMode::No {
                return Err(());
            }
            restart.stopped = true;
            Ok(())
        });
    }

    /// A client asks a container to stop that only waits for its next start: it waits no more.
    /// `false`: it does not wait.
    pub(super) fn cancel_restart(&self, handle: &Handle) -> bool {
        let cancelled = self.change(handle, |live, recording| {
            let record = &mut live.record;
            if lifecycle::is_live(record.state) || record.restart.due_at.take().is_none() {
                return Err(());
            }
            record.generation += 1;
            record.restart.stopped = true;
            record.restart.boot_id.clone_from(&self.boot_id);
            let data = serde_json::json!({ "restart": "cancelled" });
            recording.event("container.updated", data);
            Ok(())
        });
        cancelled.is_ok()
    }

    /// After a start of the daemon: starts again what waited for it, and, after a boot of the
    /// machine (`booted`), what its policy brings back then.
    pub(crate) fn resume_restart(self: &Arc<Self>, handle: &Arc<Handle>, booted: bool) {
        let due_at = {
            let mut live = handle.live();
            let ended = matches!(
                live.record.state,
                ContainerState::Exited | ContainerState::Failed
            );
            let has_run = live.record.started_at.is_some();
            let restart = &mut live.record.restart;
            if ended && booted && has_run && restart.due_at.is_none() && restart.at_boot() {
                restart.due_at = Some(now_ns());
            }
            restart.due_at.filter(|_| ended)
        };
        if let Some(due_at) = due_at {
            self.restart_at(handle, due_at);
        }
    }
}
