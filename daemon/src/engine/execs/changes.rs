//! How an exec ends, and which execs are kept.

use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::ExitRecord;
use littlebox_types::{ExecState, Exit};

use crate::engine::record::{TooLate, exit_of, read_exit_record, unknown_exit};
use crate::engine::{Engine, ExecHandle, Handle};
use crate::lifecycle;
use crate::lifecycle::exec::Transition;
use crate::store::Write;
use crate::time::now_ns;

/// Finished execs whose result is kept, per container.
const KEPT: usize = 64;

impl Engine {
    /// The helper says that an exec has ended; its output is complete.
    pub(in crate::engine) fn exec_exited(
        &self,
        handle: &Arc<Handle>,
        id: &str,
        record: &ExitRecord,
    ) {
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

    fn exec_ended(&self, exec: &ExecHandle, exit: Exit, at: i64) {
        let _late = self.change_exec(exec, |record, recording| {
            if record.transition(Transition::Exited)? == ExecState::Starting {
                // The answer that says it was started is still on its way.
                recording.event("exec.started", serde_json::json!({}));
            }
            recording.event("exec.exited", crate::engine::containers::exit_data(&exit));
            record.pid = None;
            record.finished_at = Some(at);
            record.exit = Some(exit);
            Ok::<_, TooLate>(())
        });
    }

    /// Settles execs of which nothing more will be heard: by their exit records, or as unknown.
    pub(crate) fn end_execs(self: &Arc<Self>, handle: &Arc<Handle>) {
        let execs = handle.live().execs.clone();
        for exec in execs {
            let state = exec.record().state;
            if !lifecycle::exec::is_over(state) {
                self.settle_exec(&exec);
            }
        }
    }

    /// Settles one exec that does not run any more.
    pub(in crate::engine) fn settle_exec(self: &Arc<Self>, exec: &Arc<ExecHandle>) {
        let path = self.paths.exec_exit_record(exec.container.id, exec.id);
        match read_exit_record(&path) {
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

    /// Forgets the oldest finished execs over the number that is kept.
    pub(super) fn drop_old_execs(&self, handle: &Arc<Handle>) {
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
}
