//! Start-up: the database, the run directory and the kernel made to agree.
//!
//! Every row that should have a helper is matched with one: found alive, it is adopted; found
//! ended, its exit record tells how; not found, the row says so (`unknown`, never 0). Then
//! everything on the machine whose name is derived from an id without a row is ended and removed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lbctl::types::{ContainerId, ContainerState, ExecState, Name};
use littlebox_helper::protocol::{
    Call, CgroupPlan, EXIT_RECORD, PROTOCOL_VERSION, Reply, Status, Target,
};

use crate::engine::paths::remove_tree;
use crate::engine::record::{ExecRecord, Record, unknown_exit};
use crate::engine::{Engine, ExecHandle, Handle};
use crate::lifecycle;
use crate::store::ContainerRow;
use crate::supervisor::Supervisor;
use crate::time::now_ns;

/// How long a helper may take to answer after a restart of the daemon.
const PATIENCE: Duration = Duration::from_secs(10);
/// Helpers asked at once.
const PARALLEL: usize = 64;

/// What was found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    /// Containers in the database.
    pub containers: usize,
    /// Taken back alive.
    pub adopted: usize,
    /// Found ended.
    pub ended: usize,
    /// Things without a row that were removed.
    pub swept: usize,
}

/// Makes the three agree. The API is not served yet.
pub async fn run(engine: &Arc<Engine>) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let handles = load(engine).await?;
    summary.containers = handles.len();
    load_execs(engine).await?;
    let booted = ended_before_this_boot(engine, &handles);
    let live: Vec<_> = handles
        .iter()
        .filter(|h| lifecycle::is_live(h.state()))
        .cloned()
        .collect();
    let slots = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
    let mut tasks = tokio::task::JoinSet::new();
    for handle in live {
        let (engine, slots) = (engine.clone(), slots.clone());
        tasks.spawn(async move {
            let _slot = slots.acquire().await;
            settle(&engine, &handle).await
        });
    }
    while let Some(adopted) = tasks.join_next().await {
        if adopted.unwrap_or(false) {
            summary.adopted += 1;
        } else {
            summary.ended += 1;
        }
    }
    for handle in &handles {
        finish_interrupted(engine, handle).await;
    }
    summary.swept = sweep(engine).await;
    for handle in &handles {
        engine.resume_restart(handle, booted.contains(&handle.id));
    }
    Ok(summary)
}

async fn load(engine: &Arc<Engine>) -> anyhow::Result<Vec<Arc<Handle>>> {
    let rows = engine
        .store
        .containers()
        .await
        .context("cannot read the containers")?;
    let mut handles = Vec::with_capacity(rows.len());
    for row in rows {
        let handle = Handle::new(record(row)?);
        engine.insert(&handle).map_err(|e| anyhow::anyhow!("{e}"))?;
        if let Some(range) = handle.record().id_range {
            engine.ids.adopt(handle.id, range);
        }
        handles.push(handle);
    }
    engine
        .ids
        .settle()
        .context("cannot read the registry of id ranges")?;
    Ok(handles)
}

/// Those that last ran, or were stopped, before the machine was booted.
fn ended_before_this_boot(engine: &Engine, handles: &[Arc<Handle>]) -> HashSet<ContainerId> {
    let before = |h: &&Arc<Handle>| h.live().record.restart.boot_id != engine.boot_id;
    handles.iter().filter(before).map(|h| h.id).collect()
}

fn record(row: ContainerRow) -> anyhow::Result<Record> {
    let mut record: Record = serde_json::from_str(&row.detail)
        .with_context(|| format!("the record of container {} cannot be read", row.id))?;
    record.id = row.id;
    record.name = row
        .name
        .parse::<Name>()
        .with_context(|| format!("the name of {}", row.id))?;
    record.generation = row.generation;
    Ok(record)
}

async fn load_execs(engine: &Arc<Engine>) -> anyhow::Result<()> {
    for row in engine
        .store
        .execs()
        .await
        .context("cannot read the execs")?
    {
        let record: ExecRecord = serde_json::from_str(&row.detail)
            .with_context(|| format!("the record of exec {} cannot be read", row.id))?;
        // A row whose container has gone goes with it (foreign key); one read in between is skipped.
        if let Ok(container) = engine.find(&record.container.to_string()) {
            engine.insert_exec(&ExecHandle::new(row.id, container, record));
        }
    }
    Ok(())
}

/// Brings one container that should be live up to the truth. Says whether it lives.
async fn settle(engine: &Arc<Engine>, handle: &Arc<Handle>) -> bool {
    match adopt(engine, handle).await {
        Ok(Adopted::Alive) => return true,
        Ok(Adopted::Ended) => return false,
        Ok(Adopted::Nobody) => {}
        Err(error) => tracing::debug!(id = %handle.id, %error, "no helper answers"),
    }
    let run = handle.live().run;
    let path = engine.paths.run_dir(handle.id).join(EXIT_RECORD);
    if let Some(record) = std::fs::read(&path)
        .ok()
        .and_then(|t| serde_json::from_slice(&t).ok())
    {
        engine.exited(handle, run, &record);
        return false;
    }
    let detail = match &handle.record().process {
        Some(p) if p.boot_id != engine.boot_id => {
            "the machine was restarted while the container ran"
        }
        _ => "its helper was lost while the daemon was away",
    };
    engine.remove_cgroup_of(handle.id).await;
    engine.ended(handle, run, unknown_exit(detail), now_ns());
    false
}

/// What a reconnection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// The container lives and is watched again.
    Alive,
    /// It has ended, and its end is recorded.
    Ended,
    /// No helper of this container answers.
    Nobody,
}

/// Reconnects to a container's helper and takes over what it tells.
pub(crate) async fn adopt(engine: &Arc<Engine>, handle: &Arc<Handle>) -> std::io::Result<Adopted> {
    let run_dir = engine.paths.run_dir(handle.id);
    let (helper, incoming) = Supervisor::reconnect(&run_dir)?;
    // The status must be asked before events are let in, so that none meets a half-known state:
    // a listener of the same connection is started first, but the helper speaks only when asked
    // or when its container ends, and an end is also in the status.
    engine.listen(handle, incoming);
    let asked = tokio::time::timeout(PATIENCE, helper.call(Call::Status)).await;
    let (status, mut fds) = match asked {
        Ok(Ok((Reply::Status(status), fds))) => (*status, fds),
        _ => return Ok(Adopted::Nobody),
    };
    if status.version != PROTOCOL_VERSION || status.id != handle.id.to_string() {
        tracing::warn!(id = %handle.id, version = status.version, "a helper of another version");
        return Ok(Adopted::Nobody);
    }
    if let Some(record) = &status.exit {
        let run = handle.live().run;
        engine.exited(handle, run, record);
        return Ok(Adopted::Ended);
    }
    Ok(take_over(engine, handle, helper, &status, fds.pop()))
}

fn take_over(
    engine: &Arc<Engine>,
    handle: &Arc<Handle>,
    helper: crate::supervisor::Helper,
    status: &Status,
    pidfd: Option<std::os::fd::OwnedFd>,
) -> Adopted {
    let (run, stopping, grace) = {
        let mut live = handle.live();
        if !lifecycle::is_live(live.record.state) {
            // The listener has heard of its end since the status was written.
            return Adopted::Ended;
        }
        live.helper = Some(helper);
        live.pidfd = pidfd.map(Arc::new);
        engine.fill_identity(&mut live.record, &status.launched);
        let before = live.record.state;
        live.record.state = match (before, status.frozen) {
            (ContainerState::Stopping, _) => ContainerState::Stopping,
            (_, true) => ContainerState::Paused,
            (_, false) => ContainerState::Running,
        };
        if live.record.state != before || live.record.started_at.is_none() {
            live.record.started_at.get_or_insert_with(now_ns);
            live.record.generation += 1;
            let launched = serde_json::to_string(&status.launched).ok();
            let extra = crate::engine::SaveExtra {
                launched,
                ..Default::default()
            };
            drop(engine.save(&live, None, extra));
        }
        let grace = Duration::from_secs(live.record.stop_timeout_s.into());
        (
            live.run,
            live.record.state == ContainerState::Stopping,
            grace,
        )
    };
    engine.oom_killed(handle, run, status.oom_kills);
    let execs = handle.live().execs.clone();
    for exec in execs {
        let state = exec.record().state;
        let runs = status.running_execs.contains(&exec.id.to_string());
        match state {
            ExecState::Starting if runs => exec.record().state = ExecState::Running,
            ExecState::Starting | ExecState::Running if !runs => engine.settle_exec(&exec),
            _ => {}
        }
    }
    end_unknown_execs(handle, status);
    if stopping {
        // The timer that would have killed it died with the daemon that set it.
        engine.kill_after(handle, run, grace);
    }
    handle.notify();
    Adopted::Alive
}

/// Execs that were started for a client who was never told: nobody can reach them.
fn end_unknown_execs(handle: &Arc<Handle>, status: &Status) {
    let live = handle.live();
    let Some(helper) = live.helper.clone() else {
        return;
    };
    for id in &status.running_execs {
        if live.execs.iter().any(|e| e.id.to_string() == *id) {
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

/// Finishes what the last daemon had begun: removals, automatic removals.
async fn finish_interrupted(engine: &Arc<Engine>, handle: &Arc<Handle>) {
    let (state, auto_remove) = {
        let live = handle.live();
        (live.record.state, live.record.auto_remove && !live.removed)
    };
    match state {
        ContainerState::Removing => {
            let _operation = handle.operation.lock().await;
            if let Err(error) = engine.remove_locked(handle).await {
                tracing::warn!(id = %handle.id, %error, "an interrupted removal");
            }
        }
        ContainerState::Exited | ContainerState::Failed if auto_remove => {
            engine.schedule_auto_remove(handle);
        }
        _ => {}
    }
}

/// Removes what no row knows: helpers with their directories, files, cgroups, trash.
async fn sweep(engine: &Arc<Engine>) -> usize {
    let known: HashSet<String> = engine.all().iter().map(|h| h.id.to_string()).collect();
    let mut swept = 0;
    for name in names(&engine.paths.runs()) {
        if !known.contains(&name) {
            end_stranger(engine, &name).await;
            swept += 1;
        }
    }
    for name in names(&engine.paths.containers()) {
        if !known.contains(&name) {
            tracing::info!(%name, "removing files without a container");
            remove(&engine.paths.containers().join(&name)).await;
            swept += 1;
        }
    }
    for name in names(&engine.paths.trash()) {
        remove(&engine.paths.trash().join(&name)).await;
    }
    for name in cgroup_names(&engine.paths.cgroup) {
        if !known.contains(&name) {
            tracing::info!(%name, "removing a cgroup without a container");
            remove_cgroup(engine, &engine.paths.cgroup.join(&name)).await;
            swept += 1;
        }
    }
    swept
}

/// Ends a helper that no row knows: its create was never acknowledged.
async fn end_stranger(engine: &Arc<Engine>, name: &str) {
    tracing::warn!(%name, "ending a container that was never recorded");
    let dir = engine.paths.runs().join(name);
    if let Ok((helper, incoming)) = Supervisor::reconnect(&dir) {
        let listening = tokio::spawn(incoming.run(Deaf));
        let kill = Call::Signal {
            target: Target::Container,
            signal: 9,
            all: true,
        };
        let _ = tokio::time::timeout(PATIENCE, helper.call(kill)).await;
        let _ = tokio::time::timeout(PATIENCE, listening).await;
    }
    if name.parse::<ContainerId>().is_ok() {
        remove_cgroup(engine, &engine.paths.cgroup.join(name)).await;
    }
    remove(&dir).await;
}

/// Hears nothing.
struct Deaf;

impl crate::supervisor::Listener for Deaf {
    fn event(&self, _: littlebox_helper::protocol::Event) {}
    fn lost(&self) {}
}

async fn remove(path: &Path) {
    let (path, shown) = (path.to_owned(), path.display().to_string());
    let removed = tokio::task::spawn_blocking(move || remove_tree(&path)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, path = shown, "cannot remove it");
    }
}

async fn remove_cgroup(engine: &Engine, path: &Path) {
    let plan = CgroupPlan {
        path: Some(path.to_owned()),
        ..CgroupPlan::default()
    };
    if let Err(error) = engine.supervisor.remove_cgroup(plan).await {
        tracing::warn!(%error, path = %path.display(), "cannot remove a cgroup");
    }
}

/// At the shutdown: an instance's cgroup goes when no container is left in it, and the parent
/// that all daemons of the machine share when it is empty then (rmdir refuses any other).
pub async fn remove_empty_instance(engine: &Engine) {
    let live = engine.all().iter().any(|h| lifecycle::is_live(h.state()));
    if live || !cgroup_names(&engine.paths.cgroup).is_empty() {
        return;
    }
    remove_cgroup(engine, &engine.paths.cgroup).await;
    if let Some(parent) = engine.paths.cgroup.parent() {
        for hierarchy in hierarchies() {
            let _ = std::fs::remove_dir(below(&hierarchy, parent));
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect()
}

/// The containers' cgroups below the instance's, in whichever hierarchies are mounted.
fn cgroup_names(instance: &Path) -> Vec<String> {
    let mut found: Vec<String> = hierarchies()
        .iter()
        .flat_map(|h| {
            let dir = below(h, instance);
            names(&dir)
                .into_iter()
                .filter(move |n| dir.join(n).is_dir())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Where hierarchies are mounted by convention: the one of v2, or one per v1 controller.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    names(root).into_iter().map(|n| root.join(n)).collect()
}

fn below(hierarchy: &Path, cgroup: &Path) -> PathBuf {
    hierarchy.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}
