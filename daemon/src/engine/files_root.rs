//! The root directory of a container for those who copy its files: of its running program, or of an
//! overlay that is mounted for the purpose.
//!
//! Two overlays on one upper directory are undefined behaviour (the kernel's overlayfs.rst): whoever
//! copies from a container that does not run shares one mount, and it starts when they have gone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use littlebox_helper::protocol::{Call, RootfsPlan, RootfsSource};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Engine, EngineError, Handle, prepare};
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
    _turn: Option<OwnedRwLockReadGuard<()>>,
}

/// The root of a container that does not run.
#[derive(Debug)]
pub struct OfflineRoot {
    root: OwnedFd,
    _turn: OwnedRwLockReadGuard<()>,
}

/// Nobody copies files while this lives.
pub(super) type NoCopies = OwnedRwLockWriteGuard<()>;

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
    pub async fn files_root(
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
        let turn = turn(handle, deadline).await?;
        if is_live(handle.state()) {
            // It was started meanwhile.
            drop(turn);
            let root = self.running_root(handle, deadline).await?;
            return root.ok_or_else(|| in_use(handle, "has just ended"));
        }
        let offline = Arc::new(OfflineRoot {
            root: self.mount_offline(handle).await?,
            _turn: turn,
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
            Some(turn(handle, deadline).await?)
        } else {
            None
        };
        let root = helper.descriptor(Call::OpenRoot).await?;
        let running = RunningRoot { root, _turn: turn };
        Ok(Some(FilesRoot::Running(Arc::new(running))))
    }

    /// The plan of the root of a container that does not run, for its files.
    pub(crate) async fn rootfs_plan(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
    ) -> Result<RootfsPlan, EngineError> {
        let config = self.config(handle).await?;
        let (id, range) = (handle.id, handle.record().id_range);
        self.look(move |engine| {
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

impl Handle {
    /// Waits until nobody copies files of a container that does not run, and keeps it so.
    ///
    /// # Errors
    /// [`EngineError::FilesInUse`] when somebody goes on.
    pub(super) async fn no_copies(&self) -> Result<NoCopies, EngineError> {
        let users = self.upper_use.users.clone();
        timeout(PATIENCE, users.write_owned())
            .await
            .map_err(|_elapsed| in_use(self, "cannot be started while its files are being copied"))
    }
}

/// Waits while a start goes on.
async fn turn(handle: &Handle, deadline: Instant) -> Result<OwnedRwLockReadGuard<()>, EngineError> {
    timeout_at(deadline, handle.upper_use.users.clone().read_owned())
        .await
        .map_err(|_elapsed| in_use(handle, "is being started"))
}

fn in_use(handle: &Handle, doing: &'static str) -> EngineError {
    EngineError::FilesInUse {
        name: handle.record().name.to_string(),
        doing,
    }
}
