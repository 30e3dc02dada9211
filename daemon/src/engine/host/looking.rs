//! Looking at paths that a client named. Some may lie where nobody answers: on a FUSE mount, or on
//! that of a server that is gone. The kernel lets nobody out of such a call, and once a server has
//! taken it not even a process that is killed. So before the daemon looks itself, a worker has to come
//! back from there (`worker`).
//!
//! A server that answers the worker and hangs afterwards still holds a thread of the daemon: each look
//! has one of its own that nobody waits for longer than a start may take.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use littlebox_types::{ContainerConfig, Resources, Seccomp};
use rustix::io::Errno;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::engine::{Engine, EngineError};
use crate::worker::{Answer, Probe, Request};

/// Looks at once at local file systems, and at others. Each holds one of the threads for blocking
/// work (`main.rs`) until it is answered, one at others first a worker: which may be never.
const LOCAL: usize = 32;
const FOREIGN: usize = 32;

/// The rights to look.
#[derive(Debug)]
pub(in crate::engine) struct Looks {
    local: Arc<Semaphore>,
    foreign: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            local: Arc::new(Semaphore::new(LOCAL)),
            foreign: Arc::new(Semaphore::new(FOREIGN)),
        }
    }
}

/// What came of a first look.
enum Looked<T, W> {
    /// All was local.
    Done(T),
    /// Not these. The work has not begun.
    Foreign(Vec<Probe>, W),
}

/// Whether somebody waits for a piece of work.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Wanted {
    abandoned: Arc<AtomicBool>,
}

impl Wanted {
    /// To be asked before each change.
    ///
    /// # Errors
    /// `ECANCELED`: whoever asked for the work was told that it was not done.
    pub(in crate::engine) fn check(&self) -> rustix::io::Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(Errno::CANCELED);
        }
        Ok(())
    }
}

/// Waits for a piece of work until this is dropped.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Release);
    }
}

#[cfg(test)]
impl Wanted {
    /// Of work that nobody waits for.
    pub(in crate::engine) fn by_nobody() -> Self {
        let wanted = Self::default();
        drop(Waiting(wanted.clone()));
        wanted
    }
}

impl Engine {
    /// Makes ready what every look needs.
    ///
    /// # Errors
    /// A worker cannot be started, or the mount table not be read.
    pub fn stand_by(&self) -> io::Result<()> {
        self.workers.stand_by()?;
        self.host_mounts.foreign(&[Probe::Path("/".into())])?;
        Ok(())
    }

    /// Does work that looks at these paths, on a thread of its own and for a bounded time. When that
    /// is over, the work may go on, and must change nothing: see [`Engine::look_and_change`].
    ///
    /// # Errors
    /// Those of the work; [`EngineError::Unanswered`] when the time is up, and
    /// [`EngineError::TooManyWait`] when it was up before the work's turn came.
    pub(in crate::engine) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        paths: Vec<Probe>,
        work: impl FnOnce(&Arc<Engine>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.look_and_change(paths, move |engine, _| work(engine))
            .await
    }

    /// [`Engine::look`] of work that changes something, and asks before each change whether somebody
    /// waits for it yet.
    pub(in crate::engine) async fn look_and_change<T: Send + 'static>(
        self: &Arc<Self>,
        paths: Vec<Probe>,
        work: impl FnOnce(&Arc<Engine>, &Wanted) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let deadline = Instant::now() + self.supervisor.start_limit();
        let paths: Vec<Probe> = BTreeSet::from_iter(paths).into_iter().collect();
        let first = turn(&self.looks.local, deadline).await?;
        let looked = self.on_thread(first, deadline, move |engine, wanted| {
            let foreign = engine.host_mounts.foreign(&paths);
            let foreign = foreign.map_err(EngineError::io("read", "/proc/self/mountinfo"))?;
            Ok(match foreign.is_empty() {
                true => Looked::Done(work(engine, wanted)?),
                false => Looked::Foreign(foreign, work),
            })
        });
        match looked.await? {
            Looked::Done(found) => Ok(found),
            Looked::Foreign(foreign, work) => {
                let second = turn(&self.looks.foreign, deadline).await?;
                let second = self.probe(second, deadline, foreign).await?;
                self.on_thread(second, deadline, work).await
            }
        }
    }

    async fn on_thread<T: Send + 'static>(
        self: &Arc<Self>,
        turn: OwnedSemaphorePermit,
        deadline: Instant,
        work: impl FnOnce(&Arc<Engine>, &Wanted) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = self.clone();
        let wanted = Wanted::default();
        let _waiting = Waiting(wanted.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&engine, &wanted)
        });
        match timeout_at(deadline, looking).await {
            Ok(looked) => looked.unwrap_or(Err(EngineError::Task)),
            Err(_elapsed) => Err(self.unanswered()),
        }
    }

    /// Has a worker look at the paths. One that does not come back keeps the turn.
    async fn probe(
        &self,
        turn: OwnedSemaphorePermit,
        deadline: Instant,
        paths: Vec<Probe>,
    ) -> Result<OwnedSemaphorePermit, EngineError> {
        let job = self.workers.take(turn).map_err(EngineError::Worker)?;
        job.ask(&Request::Probe(paths), &[]).await?;
        match timeout_at(deadline, job.answer()).await {
            Ok(Ok(Answer::Done)) => job.done().ok_or(EngineError::Task),
            Ok(Ok(_)) => Err(EngineError::Task),
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(self.unanswered()),
        }
    }

    fn unanswered(&self) -> EngineError {
        EngineError::Unanswered(self.supervisor.start_limit())
    }
}

async fn turn(
    turns: &Arc<Semaphore>,
    deadline: Instant,
) -> Result<OwnedSemaphorePermit, EngineError> {
    match timeout_at(deadline, turns.clone().acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(EngineError::TooManyWait),
    }
}

/// The paths of a configuration that are looked at. Those that cannot be right are refused by the
/// look itself.
pub(in crate::engine) fn named(config: &ContainerConfig) -> Vec<Probe> {
    let mut paths = disks(&config.resources);
    let path = |path: &str| Probe::Path(path.into());
    paths.extend(config.rootfs.strip_prefix("dir:").map(path));
    paths.extend(
        config
            .mounts
            .iter()
            .flat_map(|m| &m.source)
            .map(|s| path(s)),
    );
    let devices = config.devices.iter().map(|d| d.path.as_str());
    // A privileged container has all.
    let all = config.privileged.then_some("/dev");
    paths.extend(devices.chain(all).map(|path| Probe::Tree(path.into())));
    if let Some(Seccomp::Profile(profile)) = &config.seccomp {
        let agent = profile.get("listenerPath").and_then(Value::as_str);
        paths.extend(agent.map(path));
    }
    if let Some(spec) = &config.spec {
        let bundle = Path::new(config.bundle.as_deref().unwrap_or("/"));
        let of_bundle = |path: &str| Probe::Path(bundle.join(path));
        let root = spec.pointer("/root/path").and_then(Value::as_str);
        paths.extend(root.map(of_bundle));
        let mounts = spec.get("mounts").and_then(Value::as_array);
        let binds = mounts.into_iter().flatten().filter(|mount| is_bind(mount));
        paths.extend(binds.filter_map(|bind| Some(of_bundle(bind.get("source")?.as_str()?))));
        let agent = spec.pointer("/linux/seccomp/listenerPath");
        paths.extend(agent.and_then(Value::as_str).map(path));
        let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
        let files = namespaces.into_iter().flatten();
        paths.extend(files.filter_map(|ns| Some(path(ns.get("path")?.as_str()?))));
    }
    paths
}

/// Whether a mount of a spec has a path as its source (OCI config.md, "Mounts").
fn is_bind(mount: &Value) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    let mut options = options.into_iter().flatten().filter_map(Value::as_str);
    mount.get("type").and_then(Value::as_str) == Some("bind")
        || options.any(|option| matches!(option, "bind" | "rbind"))
}

/// The paths of disks in limits.
pub(in crate::engine) fn disks(resources: &Resources) -> Vec<Probe> {
    let devices = resources.io_limits.iter().map(|limit| &limit.device);
    devices
        .filter(|device| device.starts_with('/'))
        .map(|device| Probe::Path(device.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named_by(config: Value) -> Vec<String> {
        let config: ContainerConfig = serde_json::from_value(config).expect("a configuration");
        let paths = named(&config);
        let shown = |probe: &Probe| probe.path().display().to_string();
        paths.iter().map(shown).collect()
    }

    #[test]
    fn every_path_that_a_start_opens_is_named() {
        let config = json!({
            "rootfs": "dir:/root", "command": ["true"],
            "mounts": [
                {"type": "bind", "source": "/source", "destination": "/m"},
                {"type": "tmpfs", "destination": "/tmp"},
            ],
            "devices": [{"path": "/dev/fuse"}],
            "resources": {"io_limits": [{"device": "/dev/sda", "read_bps": 1}]},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"},
        });
        let named = named_by(config);
        for path in ["/root", "/source", "/dev/fuse", "/dev/sda", "/run/agent"] {
            assert!(named.iter().any(|named| named == path), "{path}: {named:?}");
        }
        assert_eq!(named.len(), 5);
    }

    #[test]
    fn every_path_of_a_spec_is_named_where_it_lies() {
        let spec = json!({
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/a", "type": "bind", "source": "relative"},
                {"destination": "/b", "source": "/absolute", "options": ["rbind", "ro"]},
                {"destination": "/proc", "type": "proc", "source": "proc"},
            ],
            "linux": {
                "namespaces": [{"type": "network", "path": "/run/ns"}, {"type": "pid"}],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"},
            },
        });
        let named = named_by(json!({"bundle": "/bundle", "spec": spec}));
        let paths = [
            "/bundle/rootfs",
            "/bundle/relative",
            "/absolute",
            "/run/agent",
            "/run/ns",
        ];
        assert_eq!(named, paths);
    }
}
