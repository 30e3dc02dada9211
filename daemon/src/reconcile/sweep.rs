//! What no row knows is ended and removed: behind the API, however long it takes.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::{Call, CgroupPlan, Target, bounds};
use littlebox_types::ContainerId;
use tokio::sync::Semaphore;

use crate::engine::cgroups::{below, cgroup_exists, cgroup_names, hierarchies, names};
use crate::engine::{Engine, Handle};
use crate::lifecycle;
use crate::paths::remove_tree;
use crate::supervisor::Supervisor;

/// Strangers, and containers whose removal goes on, that are ended at once.
static ENDINGS: Semaphore = Semaphore::const_new(16);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What no row knows, by the names of helpers' directories, files and cgroups. To be looked for before
/// the API is served: what is made from then on has a row.
pub(super) fn strangers(engine: &Engine) -> BTreeSet<String> {
    let cgroups = cgroup_names(&engine.paths.cgroup).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for cgroups that were left");
        Vec::new()
    });
    let mut found: BTreeSet<String> = cgroups.into_iter().collect();
    found.extend(listed(&engine.paths.runs()));
    found.extend(listed(&engine.paths.containers()));
    for handle in engine.all() {
        found.remove(&handle.id.to_string());
    }
    found
}

/// Removes strangers, and what was discarded. Waits for nothing; a shutdown waits for the first try.
pub(super) fn sweep(engine: &Arc<Engine>, strangers: BTreeSet<String>) {
    engine.empty_trash(listed(&engine.paths.trash()));
    for name in strangers {
        let sweeper = engine.clone();
        engine.background(async move { end_stranger(&sweeper, name).await });
    }
}

/// The names in a directory. What cannot be listed now is swept at the next start.
fn listed(dir: &Path) -> Vec<String> {
    names(dir).unwrap_or_else(|error| {
        tracing::warn!(%error, dir = %dir.display(), "cannot look for what was left");
        Vec::new()
    })
}

/// Finishes a removal that the last daemon had begun: what may still run of it first.
pub(super) fn finish_removal(engine: &Arc<Engine>, handle: &Arc<Handle>) {
    let (sweeper, handle) = (engine.clone(), handle.clone());
    engine.background(async move {
        let _turn = handle.operations.turn().await;
        // A client may have removed it meanwhile.
        if handle.live().removed {
            return;
        }
        let run_dir = sweeper.paths.run_dir(handle.id).try_exists();
        let cgroup = cgroup_exists(&sweeper.paths.container_cgroup(handle.id));
        if !matches!((run_dir, cgroup), (Ok(false), Ok(false))) {
            end_leftovers(&sweeper, handle.id).await;
        }
        if let Err(error) = sweeper.remove_locked(&handle).await {
            tracing::warn!(id = %handle.id, %error, "an interrupted removal");
        }
    });
}

/// Ends what runs of a container whose removal goes on. What stays is removed with its files, later.
async fn end_leftovers(engine: &Arc<Engine>, id: ContainerId) {
    let Ok(_turn) = ENDINGS.acquire().await else {
        return;
    };
    end_helper(engine, &id.to_string()).await;
    engine.remove_cgroup_of(id).await;
}

/// Ends a helper that no row knows, because its create was never acknowledged, and removes what it
/// has made; what cannot be removed now, later.
async fn end_stranger(engine: &Arc<Engine>, name: String) {
    tracing::warn!(%name, "ending and removing what belongs to no container");
    let left = engine.left_over();
    if let Err(error) = try_to_end_stranger(engine, &name).await {
        tracing::warn!(%error, %name, "cannot remove what was left yet");
        let engine = engine.clone();
        // Not tracked: a shutdown does not wait for it, and the next daemon finds it again.
        tokio::spawn(async move {
            end_stranger_later(&engine, &name).await;
            drop(left);
        });
    }
}

async fn end_stranger_later(engine: &Arc<Engine>, name: &str) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if engine.is_closing() || try_to_end_stranger(engine, name).await.is_ok() {
            return;
        }
    }
}

async fn try_to_end_stranger(engine: &Arc<Engine>, name: &str) -> io::Result<()> {
    let _turn = ENDINGS.acquire().await.map_err(io::Error::other)?;
    end_helper(engine, name).await;
    if let Ok(id) = name.parse() {
        return engine.try_remove_all(id).await;
    }
    // Nothing of ours has such a name, but the places are.
    remove_cgroup(engine, &engine.paths.cgroup.join(name)).await?;
    engine.paths.discard(name)?;
    let run_dir = engine.paths.runs().join(name);
    let removing = tokio::task::spawn_blocking(move || remove_tree(&run_dir));
    removing.await.map_err(io::Error::other)?
}

/// Has a helper end its container, where there is one that answers.
async fn end_helper(engine: &Engine, name: &str) {
    let Ok((helper, incoming)) = Supervisor::reconnect(&engine.paths.runs().join(name)) else {
        return;
    };
    let listening = tokio::spawn(incoming.run(Deaf));
    let kill = Call::Signal {
        target: Target::Container,
        signal: 9,
        all: true,
    };
    // One that does not answer is ended by its cgroup.
    let _ = helper.call(kill).await;
    let _ = tokio::time::timeout(bounds::END, listening).await;
}

/// Hears nothing.
struct Deaf;

impl crate::supervisor::Listener for Deaf {
    fn event(&self, _: littlebox_protocol::Event) {}
    fn lost(&self) {}
}

async fn remove_cgroup(engine: &Engine, path: &Path) -> io::Result<()> {
    let plan = CgroupPlan {
        path: Some(path.to_owned()),
        ..CgroupPlan::default()
    };
    let removed = engine.supervisor.remove_cgroup(plan).await;
    removed.map_err(io::Error::other)
}

/// At the shutdown: an instance's cgroup goes when no container is left in it, and the parent
/// that all daemons of the machine share when it is empty then (rmdir refuses any other).
pub async fn remove_empty_instance(engine: &Engine) {
    let live = engine.all().iter().any(|h| lifecycle::is_live(h.state()));
    if live || !cgroup_names(&engine.paths.cgroup).is_ok_and(|names| names.is_empty()) {
        return;
    }
    if let Err(error) = remove_cgroup(engine, &engine.paths.cgroup).await {
        tracing::warn!(%error, "cannot remove this instance's cgroup");
    }
    if let Some(parent) = engine.paths.cgroup.parent() {
        for hierarchy in hierarchies().unwrap_or_default() {
            let _ = std::fs::remove_dir(below(&hierarchy, parent));
        }
    }
}
