//! Start-up: the database, the run directory and the kernel made to agree.
//!
//! Every row that should have a helper, and every other with a run directory or a cgroup, is matched
//! with what is there: found alive, it is adopted; found ended, its exit record tells how; not found,
//! the row says so (`unknown`, never 0); and what cannot be told is kept, shown and asked again.
//! Everything on the machine whose name is derived from an id without a row is found as well; it is
//! ended and removed while the API is served already.

mod sweep;

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use littlebox_types::{ContainerId, ContainerState, Name};

use crate::engine::record::{ExecRecord, Record};
use crate::engine::{Engine, ExecHandle, Handle, Settled, cgroups, settle};
use crate::lifecycle;
use crate::store::ContainerRow;
pub use sweep::remove_empty_instance;

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
    /// Kept although their helpers cannot be asked.
    pub unclear: usize,
    /// What has no row, and is being removed.
    pub strangers: usize,
}

/// Makes the three agree. The API is not served yet.
pub async fn run(engine: &Arc<Engine>) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let handles = load(engine).await?;
    summary.containers = handles.len();
    load_execs(engine).await?;
    let booted = ended_before_this_boot(engine, &handles);
    let there = what_is_there(engine).context("cannot tell what runs on this machine")?;
    let live = handles.iter().filter(|h| {
        let state = h.state();
        let there = there.contains(&h.id.to_string()) && state != ContainerState::Removing;
        lifecycle::is_live(state) || there
    });
    let slots = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
    let mut tasks = tokio::task::JoinSet::new();
    for handle in live {
        let (engine, handle, slots) = (engine.clone(), handle.clone(), slots.clone());
        tasks.spawn(async move {
            let _slot = slots.acquire().await;
            settle(&engine, &handle).await
        });
    }
    while let Some(settled) = tasks.join_next().await {
        match settled.context("the recovery of a container failed")? {
            Settled::Alive => summary.adopted += 1,
            Settled::Ended => summary.ended += 1,
            Settled::Unclear => summary.unclear += 1,
        }
    }
    // Those of a container whose end was recorded, by a daemon that died before it recorded theirs.
    for handle in handles.iter().filter(|h| !lifecycle::is_live(h.state())) {
        engine.end_execs(handle);
    }
    for handle in &handles {
        finish_interrupted(engine, handle);
    }
    let strangers = sweep::strangers(engine);
    summary.strangers = strangers.len();
    sweep::sweep(engine, strangers);
    for handle in &handles {
        engine.resume_restart(handle, booted.contains(&handle.id));
    }
    Ok(summary)
}

/// The names of all run directories and cgroups: whatever the rows say, something may run there. A
/// daemon that was killed while it started a container has not recorded it.
fn what_is_there(engine: &Engine) -> std::io::Result<HashSet<String>> {
    let mut there: HashSet<String> = cgroups::names(&engine.paths.runs())?.into_iter().collect();
    there.extend(cgroups::cgroup_names(&engine.paths.cgroup)?);
    Ok(there)
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
        .await
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
            let exec = ExecHandle::new(row.id, container.clone(), record);
            container.live().execs.push(exec.clone());
            engine.insert_exec(&exec);
        }
    }
    Ok(())
}

/// Finishes what the last daemon had begun: removals, automatic removals.
fn finish_interrupted(engine: &Arc<Engine>, handle: &Arc<Handle>) {
    let (state, auto_remove) = {
        let live = handle.live();
        (live.record.state, live.record.auto_remove && !live.removed)
    };
    match state {
        ContainerState::Removing => sweep::finish_removal(engine, handle),
        ContainerState::Exited | ContainerState::Failed if auto_remove => {
            engine.schedule_auto_remove(handle);
        }
        _ => {}
    }
}
