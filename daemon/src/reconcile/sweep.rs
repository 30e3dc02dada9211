//! What no row knows is ended and removed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use lbctl::types::ContainerId;
use littlebox_helper::protocol::{Call, CgroupPlan, Target, bounds};

use super::cgroups::{below, cgroup_exists, cgroup_names, hierarchies, names};
use crate::engine::Engine;
use crate::engine::paths::remove_tree;
use crate::lifecycle;
use crate::supervisor::Supervisor;

/// Removes what no row knows: helpers with their directories, files, cgroups, trash.
pub(super) async fn sweep(engine: &Arc<Engine>) -> usize {
    let known: HashSet<String> = engine.all().iter().map(|h| h.id.to_string()).collect();
    let mut swept = 0;
    for name in listed(&engine.paths.runs()) {
        if !known.contains(&name) {
            end_stranger(engine, &name).await;
            swept += 1;
        }
    }
    for name in listed(&engine.paths.containers()) {
        if !known.contains(&name) {
            tracing::info!(%name, "removing files without a container");
            if let Err(error) = engine.paths.discard(&name) {
                tracing::warn!(%error, %name, "cannot discard files without a container");
            }
            swept += 1;
        }
    }
    // However much it is, the API is served meanwhile.
    engine.empty_trash(listed(&engine.paths.trash()));
    let cgroups = cgroup_names(&engine.paths.cgroup).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for cgroups that were left");
        Vec::new()
    });
    for name in cgroups {
        if !known.contains(&name) {
            tracing::info!(%name, "removing a cgroup without a container");
            remove_cgroup(engine, &engine.paths.cgroup.join(&name)).await;
            swept += 1;
        }
    }
    swept
}

/// The names in a directory. What cannot be listed now is swept at the next start.
fn listed(dir: &Path) -> Vec<String> {
    names(dir).unwrap_or_else(|error| {
        tracing::warn!(%error, dir = %dir.display(), "cannot look for what was left");
        Vec::new()
    })
}

/// Ends what runs of a container whose removal goes on.
pub(super) async fn end_leftovers(engine: &Arc<Engine>, id: ContainerId) {
    let run_dir = engine.paths.run_dir(id).try_exists();
    let cgroup = cgroup_exists(&engine.paths.container_cgroup(id));
    if !matches!((run_dir, cgroup), (Ok(false), Ok(false))) {
        end_stranger(engine, &id.to_string()).await;
    }
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
        // One that does not answer is ended by its cgroup.
        let _ = helper.call(kill).await;
        let _ = tokio::time::timeout(bounds::END, listening).await;
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
    if live || !cgroup_names(&engine.paths.cgroup).is_ok_and(|names| names.is_empty()) {
        return;
    }
    remove_cgroup(engine, &engine.paths.cgroup).await;
    if let Some(parent) = engine.paths.cgroup.parent() {
        for hierarchy in hierarchies().unwrap_or_default() {
            let _ = std::fs::remove_dir(below(&hierarchy, parent));
        }
    }
}
