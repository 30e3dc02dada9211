//! One container brought up to the truth: adopted, ended, or kept as it is and asked again.

use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::{Call, ExitRecord, Status, Target};
use littlebox_types::{ContainerState, ExecState, HelperCondition};

use super::ask::{Alive, Found, ask};
use crate::engine::handle::Live;
use crate::engine::record::{run_began, unknown_exit};
use crate::engine::{Engine, EngineError, Handle, Recording};
use crate::lifecycle::{self, Transition};
use crate::time::now_ns;

/// The pauses between questions to a helper that does not answer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What has become of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It lives and is watched again.
    Alive,
    /// It does not run.
    Ended,
    /// Nobody can tell: it is kept, shown so, and asked again.
    Unclear,
}

/// Finds out what is true of a container, whatever its row says, and makes the row say it. The caller
/// holds the operation's lock (at the daemon's start nobody else can): an answer that comes late must
/// not be taken for one about the next run.
pub(crate) async fn settle(engine: &Arc<Engine>, handle: &Arc<Handle>) -> Settled {
    match ask(&engine.paths, handle.id).await {
        Found::Alive(alive) => take_over(engine, handle, *alive).await,
        Found::Ended(record) => ended(engine, handle, &record),
        Found::Absent => absent(engine, handle).await,
        Found::Unclear(condition, pid) => keep(engine, handle, condition, pid),
    }
}

fn ended(engine: &Arc<Engine>, handle: &Arc<Handle>, record: &ExitRecord) -> Settled {
    let revived = engine.change(handle, |live, recording| {
        if lifecycle::is_live(live.record.state) {
            return Err(Some(live.run));
        }
        if live.record.finished_at == i64::try_from(record.finished_at_ns).ok() {
            return Err(None);
        }
        revive(engine, live, recording, None).map_err(|_illegal| None)?;
        Ok(live.run)
    });
    if let Ok((run, _)) | Err(Some(run)) = revived {
        engine.exited(handle, run, record);
    }
    Settled::Ended
}

async fn absent(engine: &Arc<Engine>, handle: &Arc<Handle>) -> Settled {
    let (run, lives, pidfd, rebooted) = {
        let live = handle.live();
        let process = live.record.process.as_ref();
        let rebooted = process.is_some_and(|p| p.boot_id != engine.boot_id);
        let lives = lifecycle::is_live(live.record.state);
        (live.run, lives, live.pidfd.clone(), rebooted)
    };
    if let Some(pidfd) = pidfd {
        // Without a cgroup this is all that it can be ended by.
        let _ended = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    }
    engine.remove_cgroup_of(handle.id).await;
    if lives {
        let detail = if rebooted {
            "the machine was restarted while the container ran"
        } else {
            "its helper was lost, and the container was ended with it"
        };
        engine.ended(handle, run, unknown_exit(detail), now_ns());
    }
    Settled::Ended
}

/// A start or an end that the daemon did not live to record is recorded now.
fn revive(
    engine: &Engine,
    live: &mut Live,
    recording: &mut Recording,
    pid: Option<u32>,
) -> Result<(), EngineError> {
    if live.record.state != ContainerState::Starting {
        let by_policy = live.record.restart.due_at.is_some();
        live.transition(Transition::Start)?;
        live.record.begin_run(by_policy, &engine.boot_id);
    }
    live.transition(Transition::Launched)?;
    live.record.started_at = Some(now_ns());
    live.record.cgroups.clear();
    if *live.ended.borrow() {
        live.ended = tokio::sync::watch::Sender::new(false);
    }
    let data = serde_json::json!({ "pid": pid, "recovered": true });
    recording.event("container.started", data);
    Ok(())
}

fn keep(
    engine: &Arc<Engine>,
    handle: &Arc<Handle>,
    condition: HelperCondition,
    pid: Option<u32>,
) -> Settled {
    let kept = engine.change(handle, |live, recording| {
        if live.record.state == ContainerState::Starting || !lifecycle::is_live(live.record.state) {
            revive(engine, live, recording, None).map_err(drop)?;
        }
        live.helper = None;
        if live.record.helper.is_none() {
            // Of a start that was not recorded: who ends the container by force needs it.
            live.record.helper = pid.and_then(|pid| engine.identity(pid));
        }
        if live.record.helper_condition.replace(condition).is_some() {
            return Err(());
        }
        if live.record.state == ContainerState::Stopping && !live.stop_timer {
            // The timer that would have killed it died with the daemon that set it.
            live.stop_timer = true;
            let grace = live.record.grace();
            engine.end_without_helper(handle, live.run, live.record.stop_signal, grace);
        }
        Ok(live.run)
    });
    let Ok((run, _queued)) = kept else {
        return Settled::Unclear;
    };
    tracing::error!(id = %handle.id, ?condition, "a container is kept whose helper cannot be asked");
    ask_again(engine, handle, run);
    Settled::Unclear
}

/// Asks until there is an answer. Not tracked: the next daemon asks anew.
fn ask_again(engine: &Arc<Engine>, handle: &Arc<Handle>, run: u64) {
    let (engine, handle) = (engine.clone(), handle.clone());
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let _turn = handle.operations.engines_turn().await;
            let waits = {
                let live = handle.live();
                live.run == run && !live.removed && live.record.helper_condition.is_some()
            };
            if !waits || engine.is_closing() {
                return;
            }
            let settled = settle(&engine, &handle).await;
            if settled != Settled::Unclear {
                tracing::info!(id = %handle.id, ?settled, "a helper answers again");
                return;
            }
        }
    });
}

async fn take_over(engine: &Arc<Engine>, handle: &Arc<Handle>, mut alive: Alive) -> Settled {
    let Some((run, state, grace)) = adopt(engine, handle, &mut alive) else {
        return Settled::Ended;
    };
    engine.oom_killed(handle, run, alive.status.oom_kills);
    let execs = handle.live().execs.clone();
    for exec in execs {
        let state = exec.record().state;
        let runs = alive.status.running_execs.contains(&exec.id.to_string());
        match state {
            ExecState::Starting if runs => drop(engine.exec_started(&exec, None, Vec::new())),
            ExecState::Starting | ExecState::Running if !runs => engine.settle_exec(&exec),
            _ => {}
        }
    }
    end_unknown_execs(handle, &alive.status);
    engine.set_limits_back(handle).await;
    alive.listen(engine.listener(handle, run));
    let untimed = state == ContainerState::Stopping
        && !std::mem::replace(&mut handle.live().stop_timer, true);
    if untimed {
        // The timer that would have killed it died with the daemon that set it.
        engine.kill_after(handle, run, grace);
    }
    handle.notify();
    Settled::Alive
}

/// Makes the record say what the helper says: its run, its state, its grace.
fn adopt(
    engine: &Arc<Engine>,
    handle: &Handle,
    alive: &mut Alive,
) -> Option<(u64, ContainerState, Duration)> {
    let status = &alive.status;
    let adopted = engine.change(handle, |live, recording| {
        let before = live.record.state;
        if live.removed || before == ContainerState::Removing {
            return Err(None);
        }
        if before == ContainerState::Starting || !lifecycle::is_live(before) {
            revive(engine, live, recording, Some(status.launched.pid)).map_err(|_illegal| None)?;
        }
        live.helper = Some(alive.helper.clone());
        live.pidfd = alive.pidfd.take().map(Arc::new);
        live.record.helper_condition = None;
        let process = live.record.process.clone();
        engine.fill_identity(&mut live.record, &status.launched);
        match (live.record.state, status.frozen) {
            (ContainerState::Running, true) => live.transition(Transition::Freeze),
            (ContainerState::Paused, false) => live.transition(Transition::Thaw),
            _ => Ok(()),
        }
        .map_err(|_illegal| None)?;
        let state = live.record.state;
        let adopted = (live.run, state, live.record.grace());
        let is_new = live.record.process != process;
        if state == before && !is_new {
            // Nothing to record.
            return Err(Some(adopted));
        }
        if is_new {
            live.record.generation += 1;
            live.record.started_at = Some(run_began(status.launched.start_time));
        }
        recording.launched = serde_json::to_string(&status.launched).ok();
        Ok(adopted)
    });
    match adopted {
        Ok((adopted, _queued)) => Some(adopted),
        Err(adopted) => adopted,
    }
}

/// Execs that were started for a client who was never told, or was told that they failed: nobody
/// can reach them.
fn end_unknown_execs(handle: &Arc<Handle>, status: &Status) {
    let live = handle.live();
    let Some(helper) = live.helper.clone() else {
        return;
    };
    let known = |id: &str| {
        let exec = live.execs.iter().find(|exec| exec.id.to_string() == id);
        exec.is_some_and(|exec| exec.record().state != ExecState::Failed)
    };
    for id in &status.running_execs {
        if known(id) {
            continue;
        }
        let (helper, target) = (helper.clone(), Target::Exec(id.clone()));
        tokio::spawn(async move {
            let _ = helper
                .done(Call::Signal {
                    target,
                    signal: 9,
                    all: false,
                })
                .await;
        });
    }
}
