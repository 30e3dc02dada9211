//! The use cases. The API parses and renders; what may happen, and in which order, is here.
//!
//! Every operation that changes something runs in a task of its own ([`Engine::detached`]): a
//! client that disappears in the middle leaves no half-made container behind.

mod change;
mod containers;
mod error;
mod events;
mod execs;
mod files;
mod handle;
mod host;
mod idempotency;
mod launch;
mod namespaces;
mod operation;
mod policies;
pub mod record;
mod recovery;
mod status;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use littlebox_plan::seccomp::Compiler;
use littlebox_types::{ContainerId, ExecId, Name};
use tokio_util::task::TaskTracker;

use change::Recording;
pub use containers::{CreateOptions, Created, Filter, StopOptions};
pub use error::{EngineError, describe_step};
pub use execs::ExecOptions;
pub use files::Output;
pub use handle::{ClientGuard, ExecHandle, Handle};
pub(crate) use host::cgroups;
use host::{kernel, looking, mounts};
pub(crate) use recovery::{Settled, settle};
pub use streams::{Attachment, Input, Outcome, OutputReader, Stdin};

use crate::idpool::{IdPool, IdRange};
use crate::paths::Paths;
use crate::spec::SpecContext;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::worker::Workers;

/// The engine.
#[derive(Debug)]
pub struct Engine {
    /// The database.
    pub(crate) store: Store,
    /// Starts helpers.
    pub(crate) supervisor: Supervisor,
    /// Where things lie.
    pub(crate) paths: Paths,
    /// Host ids for user namespaces.
    pub(crate) ids: IdPool,
    /// This boot.
    pub(crate) boot_id: String,
    /// Compiles seccomp profiles.
    pub(crate) seccomp: Compiler,
    /// Follows logs.
    pub(crate) watcher: Arc<crate::logs::Watcher>,
    containers: RwLock<Containers>,
    idempotency: idempotency::Keys,
    /// Do what could block a thread for good.
    workers: Arc<Workers>,
    host_mounts: mounts::HostMounts,
    looks: looking::Looks,
    file_turns: files::Turns,
    kernel_reads: kernel::Reads,
    leftovers: Arc<AtomicUsize>,
    tasks: TaskTracker,
    closing: AtomicBool,
}

/// The containers by id and by name.
#[derive(Debug, Default)]
struct Containers {
    by_id: BTreeMap<ContainerId, Arc<Handle>>,
    by_name: HashMap<Name, ContainerId>,
    execs: BTreeMap<ExecId, Arc<ExecHandle>>,
}

impl Engine {
    /// An engine without containers; [`crate::reconcile`] fills it.
    pub fn new(
        store: Store,
        supervisor: Supervisor,
        paths: Paths,
        ids: IdPool,
        boot_id: String,
        seccomp: Compiler,
        workers: Arc<Workers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            supervisor,
            paths,
            ids,
            boot_id,
            seccomp,
            watcher: crate::logs::Watcher::new(),
            containers: RwLock::default(),
            idempotency: idempotency::Keys::default(),
            workers,
            host_mounts: mounts::HostMounts::default(),
            looks: looking::Looks::default(),
            file_turns: files::Turns::default(),
            kernel_reads: kernel::Reads::default(),
            leftovers: Arc::default(),
            tasks: TaskTracker::new(),
            closing: AtomicBool::new(false),
        })
    }

    /// What a configuration is checked with.
    fn context<'a>(&'a self, id: &'a ContainerId, range: Option<IdRange>) -> SpecContext<'a> {
        SpecContext {
            id,
            range,
            seccomp: &self.seccomp,
        }
    }

    /// Runs an operation to its end, whether or not its caller stays.
    async fn detached<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(EngineError::ShuttingDown);
        }
        self.tasks
            .spawn(operation)
            .await
            .unwrap_or(Err(EngineError::Task))
    }

    /// Runs work that nobody waits for; a shutdown does.
    pub(crate) fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Refuses new operations and waits for those under way.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether a shutdown has begun.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn containers(&self) -> std::sync::RwLockReadGuard<'_, Containers> {
        self.containers
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn containers_mut(&self) -> std::sync::RwLockWriteGuard<'_, Containers> {
        self.containers
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// All containers, oldest first.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.containers().by_id.values().cloned().collect()
    }

    /// The cgroup below which containers live.
    pub fn cgroup_parent(&self) -> &std::path::Path {
        &self.paths.cgroup
    }

    /// The execs of a container, oldest first.
    ///
    /// # Errors
    /// No such container.
    pub fn execs(&self, reference: &str) -> Result<Vec<Arc<ExecHandle>>, EngineError> {
        Ok(self.find(reference)?.live().execs.clone())
    }

    /// A container by id, name, or the beginning (or the last block) of its id.
    pub fn find(&self, reference: &str) -> Result<Arc<Handle>, EngineError> {
        let containers = self.containers();
        if let Ok(id) = reference.parse::<ContainerId>() {
            return containers
                .by_id
                .get(&id)
                .cloned()
                .ok_or_else(|| EngineError::ContainerNotFound(reference.to_owned()));
        }
        let name = reference
            .parse::<Name>()
            .map_err(|_| EngineError::BadReference(reference.to_owned()))?;
        if let Some(id) = containers.by_name.get(&name) {
            return containers
                .by_id
                .get(id)
                .cloned()
                .ok_or_else(|| EngineError::ContainerNotFound(reference.to_owned()));
        }
        let found = containers
            .by_id
            .values()
            .filter(|h| is_abbreviation(reference, &h.id.to_string()))
            .collect::<Vec<_>>();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(EngineError::ContainerNotFound(reference.to_owned())),
            many => Err(EngineError::Ambiguous {
                reference: reference.to_owned(),
                count: many.len(),
            }),
        }
    }

    /// An exec by id, or an unambiguous part of it.
    pub fn find_exec(&self, reference: &str) -> Result<Arc<ExecHandle>, EngineError> {
        let containers = self.containers();
        let missing = || EngineError::ExecNotFound(reference.to_owned());
        if let Ok(id) = reference.parse::<ExecId>() {
            return containers.execs.get(&id).cloned().ok_or_else(missing);
        }
        let found = containers
            .execs
            .values()
            .filter(|e| is_abbreviation(reference, &e.id.to_string()))
            .collect::<Vec<_>>();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(missing()),
            many => Err(EngineError::Ambiguous {
                reference: reference.to_owned(),
                count: many.len(),
            }),
        }
    }

    /// Takes a container into the maps; its name must be free.
    pub(crate) fn insert(&self, handle: &Arc<Handle>) -> Result<(), EngineError> {
        let name = handle.live().record.name.clone();
        let mut containers = self.containers_mut();
        if let Some(id) = containers.by_name.get(&name) {
            return Err(EngineError::NameInUse {
                name: name.to_string(),
                id: *id,
            });
        }
        containers.by_name.insert(name, handle.id);
        containers.by_id.insert(handle.id, handle.clone());
        Ok(())
    }

    /// Takes a free name for a container, beside the one that it has.
    fn claim_name(&self, handle: &Handle, name: &Name) -> Result<(), EngineError> {
        let mut containers = self.containers_mut();
        match containers.by_name.get(name) {
            Some(id) if *id != handle.id => Err(EngineError::NameInUse {
                name: name.to_string(),
                id: *id,
            }),
            _ => {
                containers.by_name.insert(name.clone(), handle.id);
                Ok(())
            }
        }
    }

    /// Frees a name that a container had, unless it is the one that it has.
    fn release_name(&self, handle: &Handle, name: &Name) {
        // Never this lock while a record's is held: lists take them the other way round.
        let is_its_own = handle.live().record.name == *name;
        let mut containers = self.containers_mut();
        if !is_its_own && containers.by_name.get(name) == Some(&handle.id) {
            containers.by_name.remove(name);
        }
    }

    /// Drops a container and its execs from the maps, and wakes everybody who waits for it.
    fn forget(&self, handle: &Handle) {
        let (name, execs, range) = {
            let mut live = handle.live();
            live.removed = true;
            live.helper = None;
            live.pidfd = None;
            let record = &live.record;
            let (name, range) = (record.name.clone(), record.id_range);
            (name, std::mem::take(&mut live.execs), range)
        };
        if let Some(range) = range {
            self.ids.release(handle.id, range);
        }
        let mut containers = self.containers_mut();
        containers.by_id.remove(&handle.id);
        if containers.by_name.get(&name) == Some(&handle.id) {
            containers.by_name.remove(&name);
        }
        for exec in &execs {
            containers.execs.remove(&exec.id);
        }
        drop(containers);
        handle.notify();
    }

    /// Takes an exec that its container has into the map.
    pub(crate) fn insert_exec(&self, exec: &Arc<ExecHandle>) {
        self.containers_mut().execs.insert(exec.id, exec.clone());
    }
}

/// The leading digits of a UUIDv7 are its time, so the last block is the handier abbreviation.
fn is_abbreviation(part: &str, id: &str) -> bool {
    part.len() >= 4 && (id.starts_with(part) || id.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::is_abbreviation;

    #[test]
    fn ids_are_found_by_their_beginning_and_end() {
        let id = "0193e5b0-7c1a-7000-8000-0123456789ab";
        assert!(is_abbreviation("0193e5", id));
        assert!(is_abbreviation("0123456789ab", id));
        assert!(!is_abbreviation("789", id), "three characters are too few");
        assert!(!is_abbreviation("7c1a", id), "not from the middle");
    }
}
