//! The root directory of a container for those who copy its files: of its running program, or of an
//! overlay that is mounted for the purpose.
//!
//! Two overlays on one upper directory are undefined behaviour (the kernel's overlayfs.rst): whoever
//! copies from a container that does not run shares one mount, and it starts when they have gone. Copiers
//! hold the lock of the container's directory (flock(2)) shared, and mounting an overlay first takes it
//! exclusively. So the mount of a run that has ended, or of a worker that an earlier daemon has left
//! behind, is gone first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use littlebox_protocol::{Call, RootfsPlan, RootfsSource};
use littlebox_types::ContainerId;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::host::looking;
use crate::engine::launch::prepare_again;
use crate::engine::{Engine, EngineError, Handle};
use crate::faults;
use crate::lifecycle::is_live;
use crate::spec;
use crate::supervisor::{Helper, HelperError, StartError};

/// How long a start waits for those who copy, and the other way round: until they have a turn and the
/// container's root.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a lock that somebody else has is tried.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Who may use the upper directory of a container.
#[derive(Debug, Default)]
pub struct UpperUse {
    /// Read: copies; written: a start.
    users: Arc<RwLock<()>>,
    mounted: Mutex<Weak<OfflineRoot>>,
}

/// A container's root directory, for as long as this lives.
#[derive(Debug, Clone)]
pub enum FilesRoot {
    /// Of its running program.
    Running(Arc<RunningRoot>),
    /// Of a mount of its own.
    Offline(Arc<OfflineRoot>),
}

/// The root of a container that runs. It keeps the overlay mounted when the program ends.
#[derive(Debug)]
pub struct RunningRoot {
    root: OwnedFd,
    turn: Option<UpperTurn>,
}

/// The root of a container that does not run.
#[derive(Debug)]
pub struct OfflineRoot {
    root: OwnedFd,
    turn: UpperTurn,
}

/// The right to use the upper directory beside others who copy.
#[derive(Debug)]
struct UpperTurn {
    /// The container's directory. First field, so it is dropped before the turn passes to the next user.
    lock: Option<OwnedFd>,
    _users: NoStart,
}

/// The container is not started while this lives.
type NoStart = OwnedRwLockReadGuard<()>;

/// Nobody copies files while this lives.
pub(in crate::engine) type NoCopies = OwnedRwLockWriteGuard<()>;

impl FilesRoot {
    /// What a worker that has the root is given to keep: until it has ended no daemon starts the
    /// container, not even one that does not know of the worker.
    pub(super) fn lock(&self) -> Option<BorrowedFd<'_>> {
        let turn = match self {
            FilesRoot::Running(running) => running.turn.as_ref(),
            FilesRoot::Offline(offline) => Some(&offline.turn),
        };
        turn?.lock.as_ref().map(AsFd::as_fd)
    }
}

impl AsFd for FilesRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            FilesRoot::Running(running) => running.root.as_fd(),
            FilesRoot::Offline(offline) => offline.root.as_fd(),
        }
    }
}

impl Engine {
    /// The container's root directory.
    pub(super) async fn files_root(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        deadline: Instant,
    ) -> Result<FilesRoot, EngineError> {
        if let Some(root) = self.running_root(handle, deadline).await? {
            return Ok(root);
        }
        // The first mounts it, the others share it.
        let mounted = timeout_at(deadline, handle.upper_use.mounted.lock()).await;
        let mut mounted = mounted.map_err(|_elapsed| in_use(handle, "is being prepared"))?;
        if let Some(offline) = mounted.upgrade() {
            return Ok(FilesRoot::Offline(offline));
        }
        let users = no_start(handle, deadline).await?;
        if is_live(handle.state()) {
            // It was started meanwhile.
            drop(users);
            let root = self.running_root(handle, deadline).await?;
            return root.ok_or_else(|| in_use(handle, "has just ended"));
        }
        let offline = Arc::new(self.offline_root(handle, users, deadline).await?);
        *mounted = Arc::downgrade(&offline);
        Ok(FilesRoot::Offline(offline))
    }

    async fn offline_root(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        users: NoStart,
        deadline: Instant,
    ) -> Result<OfflineRoot, EngineError> {
        let plan = self.rootfs_plan(handle).await?;
        let lock = match &plan.source {
            RootfsSource::Overlay { .. } => {
                self.make_missing_directories(handle)?;
                let alone = FlockOperation::NonBlockingLockExclusive;
                let doing =
                    "has files that are still being copied by a request from before it ended";
                self.lock_files(handle, alone, deadline, doing).await?
            }
            _ => None,
        };
        let maps = handle.record().id_maps;
        let opened = self.supervisor.open_rootfs(plan, maps).await;
        let root = opened.map_err(|e| match e {
            StartError::Silent(patience) => EngineError::Unanswered(patience),
            e => EngineError::start_failed(e, "the root", None),
        })?;
        if let Some(lock) = &lock {
            rustix::fs::flock(lock, FlockOperation::NonBlockingLockShared)
                .map_err(|errno| self.lock_failed(handle.id, errno))?;
        }
        let turn = UpperTurn {
            lock,
            _users: users,
        };
        Ok(OfflineRoot { root, turn })
    }

    /// Makes a container's directories where they are missing. Its removal says under the same lock that
    /// it is gone and removes them afterwards: it finds what was made before, and nothing is made later.
    fn make_missing_directories(&self, handle: &Handle) -> Result<(), EngineError> {
        let live = handle.live();
        if live.removed {
            return Err(EngineError::ContainerNotFound(live.record.name.to_string()));
        }
        self.make_directories(handle.id)
    }

    /// `None`: it does not run.
    async fn running_root(
        &self,
        handle: &Handle,
        deadline: Instant,
    ) -> Result<Option<FilesRoot>, EngineError> {
        if running(handle)?.is_none() {
            return Ok(None);
        }
        let config = self.config(handle).await?;
        let has_upper = !spec::is_from_spec(&config) || config.overlay;
        let turn = if has_upper {
            Some(self.upper_turn(handle, deadline).await?)
        } else {
            None
        };
        // It may have ended while the turn came, and others may have mounted its root since.
        let Some(helper) = running(handle)? else {
            return Ok(None);
        };
        match helper.descriptor(Call::OpenRoot).await {
            Ok(root) => {
                let running = RunningRoot { root, turn };
                Ok(Some(FilesRoot::Running(Arc::new(running))))
            }
            // A program that has just ended has no root any more.
            Err(HelperError::Gone | HelperError::Step(_))
                if timeout_at(deadline, handle.ended_within(None))
                    .await
                    .is_ok() =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The plan of the root of a container that does not run, for its files.
    pub(super) async fn rootfs_plan(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
    ) -> Result<RootfsPlan, EngineError> {
        let config = self.config(handle).await?;
        let (id, range) = (handle.id, handle.record().id_range);
        self.look(looking::named(&config), move |engine| {
            let prepared = prepare_again(&config, &engine.context(&id, range))?;
            let mut source = engine.rootfs(id, &config, &prepared.root);
            if let RootfsSource::Overlay { volatile, .. } = &mut source {
                *volatile = false;
            }
            Ok(RootfsPlan {
                source,
                read_only: false,
                propagation: Default::default(),
                label: None,
                idmap: if faults::enabled() {
                    prepared.layer_idmap
                } else {
                    Default::default()
                },
            })
        })
        .await
    }
}

impl Engine {
    /// Waits until nobody copies files of a container that does not run, and keeps it so.
    ///
    /// # Errors
    /// [`EngineError::FilesInUse`] when somebody goes on, be it a worker that an earlier daemon has left
    /// behind.
    pub(in crate::engine) async fn no_copies(
        &self,
        handle: &Handle,
    ) -> Result<NoCopies, EngineError> {
        let deadline = Instant::now() + PATIENCE;
        let doing = "cannot be started while its files are being copied";
        let none = timeout_at(deadline, handle.upper_use.users.clone().write_owned()).await;
        let none = none.map_err(|_elapsed| in_use(handle, doing))?;
        let alone = FlockOperation::NonBlockingLockExclusive;
        // Without a directory it was never started and nothing of it read.
        drop(self.lock_files(handle, alone, deadline, doing).await?);
        Ok(none)
    }

    /// Waits while a start goes on, or while somebody mounts the root.
    async fn upper_turn(
        &self,
        handle: &Handle,
        deadline: Instant,
    ) -> Result<UpperTurn, EngineError> {
        let users = no_start(handle, deadline).await?;
        let shared = FlockOperation::NonBlockingLockShared;
        let lock = self.lock_files(handle, shared, deadline, "is being prepared");
        Ok(UpperTurn {
            lock: lock.await?,
            _users: users,
        })
    }

    /// Takes the lock of a container's directory, `None` where there is none.
    async fn lock_files(
        &self,
        handle: &Handle,
        how: FlockOperation,
        deadline: Instant,
        doing: &'static str,
    ) -> Result<Option<OwnedFd>, EngineError> {
        loop {
            match self.try_lock_files(handle.id, how) {
                Ok(lock) => return Ok(Some(lock)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_AGAIN).await,
                Err(Errno::WOULDBLOCK) => return Err(in_use(handle, doing)),
                Err(errno) => return Err(self.lock_failed(handle.id, errno)),
            }
        }
    }

    fn try_lock_files(&self, id: ContainerId, how: FlockOperation) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.paths.container(id), flags, Mode::empty())?;
        rustix::fs::flock(&directory, how)?;
        Ok(directory)
    }

    fn lock_failed(&self, id: ContainerId, errno: Errno) -> EngineError {
        EngineError::io("lock", self.paths.container(id))(errno.into())
    }
}

/// Waits while a start goes on, and keeps others from beginning.
async fn no_start(handle: &Handle, deadline: Instant) -> Result<NoStart, EngineError> {
    let users = timeout_at(deadline, handle.upper_use.users.clone().read_owned()).await;
    users.map_err(|_elapsed| in_use(handle, "is being started"))
}

/// The helper of a container that runs.
fn running(handle: &Handle) -> Result<Option<Helper>, EngineError> {
    match handle.running_helper("its files") {
        Err(EngineError::NotRunning { .. }) => Ok(None),
        helper => helper.map(Some),
    }
}

fn in_use(handle: &Handle, doing: &'static str) -> EngineError {
    EngineError::FilesInUse {
        name: handle.record().name.to_string(),
        doing,
    }
}
