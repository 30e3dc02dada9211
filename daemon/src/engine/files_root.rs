//! The root directory of a container for those who copy its files: of its running program, or of an
//! overlay that is mounted for the purpose.
//!
//! Two overlays on one upper directory are undefined behaviour (the kernel's overlayfs.rst): whoever
//! copies from a container that does not run shares one mount, and it starts when they have gone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lbctl::types::ContainerId;
use littlebox_helper::protocol::{Call, RootfsPlan, RootfsSource};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Engine, EngineError, Handle, looking, prepare};
use crate::faults;
use crate::lifecycle::is_live;
use crate::spec;
use crate::supervisor::StartError;

/// How long a start waits for those who copy, and the other way round.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Of the container's directory (flock(2)). The first field, so that whoever gets the next turn
    /// finds it free.
    lock: Option<OwnedFd>,
    _users: OwnedRwLockReadGuard<()>,
}

/// Nobody copies files while this lives.
pub(super) type NoCopies = OwnedRwLockWriteGuard<()>;

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
    ) -> Result<FilesRoot, EngineError> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(root) = self.running_root(handle, deadline).await? {
            return Ok(root);
        }
        // The first mounts it, the others share it.
        let mounted = timeout_at(deadline, handle.upper_use.mounted.lock()).await;
        let mut mounted = mounted.map_err(|_elapsed| in_use(handle, "is being prepared"))?;
        if let Some(offline) = mounted.upgrade() {
            return Ok(FilesRoot::Offline(offline));
        }
        let turn = self.upper_turn(handle, deadline).await?;
        if is_live(handle.state()) {
            // It was started meanwhile.
            drop(turn);
            let root = self.running_root(handle, deadline).await?;
            return root.ok_or_else(|| in_use(handle, "has just ended"));
        }
        let offline = Arc::new(OfflineRoot {
            root: self.mount_offline(handle).await?,
            turn,
        });
        *mounted = Arc::downgrade(&offline);
        Ok(FilesRoot::Offline(offline))
    }

    async fn mount_offline(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<OwnedFd, EngineError> {
        let plan = self.rootfs_plan(handle).await?;
        if let RootfsSource::Overlay { .. } = &plan.source {
            self.make_directories(handle.id)?;
        }
        let maps = handle.record().id_maps;
        let opened = self.supervisor.open_rootfs(plan, maps).await;
        opened.map_err(|e| match e {
            StartError::Silent(patience) => EngineError::Unanswered(patience),
            e => EngineError::start_failed(e, "the root", None),
        })
    }

    /// `None`: it does not run.
    async fn running_root(
        &self,
        handle: &Handle,
        deadline: Instant,
    ) -> Result<Option<FilesRoot>, EngineError> {
        let helper = match handle.running_helper("its files") {
            Err(EngineError::NotRunning { .. }) => return Ok(None),
            helper => helper?,
        };
        let config = self.config(handle).await?;
        let has_upper = !spec::is_from_spec(&config) || config.overlay;
        let turn = if has_upper {
            Some(self.upper_turn(handle, deadline).await?)
        } else {
            None
        };
        let root = helper.descriptor(Call::OpenRoot).await?;
        let running = RunningRoot { root, turn };
        Ok(Some(FilesRoot::Running(Arc::new(running))))
    }

    /// The plan of the root of a container that does not run, for its files.
    pub(super) async fn rootfs_plan(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
    ) -> Result<RootfsPlan, EngineError> {
        let config = self.config(handle).await?;
        let (id, range) = (handle.id, handle.record().id_range);
        self.look(looking::named(&config), move |engine| {
            let prepared = prepare::prepare_again(&config, &engine.context(&id, range))?;
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
    pub(super) async fn no_copies(&self, handle: &Handle) -> Result<NoCopies, EngineError> {
        let copied = || in_use(handle, "cannot be started while its files are being copied");
        let users = handle.upper_use.users.clone();
        let none = timeout(PATIENCE, users.write_owned()).await;
        let none = none.map_err(|_elapsed| copied())?;
        let alone = FlockOperation::NonBlockingLockExclusive;
        match self.lock_files(handle.id, alone) {
            Ok(_) => Ok(none),
            // It was never started and nothing of it read.
            Err(Errno::NOENT) => Ok(none),
            Err(Errno::WOULDBLOCK) => Err(copied()),
            Err(errno) => Err(self.lock_failed(handle.id, errno)),
        }
    }

    /// Waits while a start goes on.
    async fn upper_turn(
        &self,
        handle: &Handle,
        deadline: Instant,
    ) -> Result<UpperTurn, EngineError> {
        let users = timeout_at(deadline, handle.upper_use.users.clone().read_owned()).await;
        let users = users.map_err(|_elapsed| in_use(handle, "is being started"))?;
        let lock = match self.lock_files(handle.id, FlockOperation::NonBlockingLockShared) {
            Ok(lock) => Some(lock),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(self.lock_failed(handle.id, errno)),
        };
        Ok(UpperTurn {
            lock,
            _users: users,
        })
    }

    fn lock_files(&self, id: ContainerId, how: FlockOperation) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.paths.container(id), flags, Mode::empty())?;
        rustix::fs::flock(&directory, how)?;
        Ok(directory)
    }

    fn lock_failed(&self, id: ContainerId, errno: Errno) -> EngineError {
        EngineError::io("lock", self.paths.container(id))(errno.into())
    }
}

fn in_use(handle: &Handle, doing: &'static str) -> EngineError {
    EngineError::FilesInUse {
        name: handle.record().name.to_string(),
        doing,
    }
}
