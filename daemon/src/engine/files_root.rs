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
use tokio::time::timeout;

use super::{Engine, EngineError, Handle, prepare};
use crate::faults;

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
    Running(Arc<OwnedFd>),
    /// Of a mount of its own.
    Offline(Arc<OfflineRoot>),
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
            FilesRoot::Running(root) => root.as_fd(),
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
        if let Some(root) = running_root(handle).await? {
            return Ok(root);
        }
        // The first mounts it, the others share it.
        let mut mounted = handle.upper_use.mounted.lock().await;
        if let Some(offline) = mounted.upgrade() {
            return Ok(FilesRoot::Offline(offline));
        }
        let users = handle.upper_use.users.clone();
        let turn = timeout(PATIENCE, users.read_owned()).await;
        let turn = turn.map_err(|_elapsed| in_use(handle, "is being started"))?;
        // It may have been started meanwhile.
        if let Some(root) = running_root(handle).await? {
            return Ok(root);
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
        opened.map_err(|e| EngineError::start_failed(e, "the root", None))
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
            .map_err(|_elapsed| {
                in_use(
                    self,
                    "has its files copied, and cannot be started meanwhile",
                )
            })
    }
}

async fn running_root(handle: &Handle) -> Result<Option<FilesRoot>, EngineError> {
    let helper = handle.live().helper.clone();
    let Some(helper) = helper else {
        return Ok(None);
    };
    let root = helper.descriptor(Call::OpenRoot).await?;
    Ok(Some(FilesRoot::Running(Arc::new(root))))
}

fn in_use(handle: &Handle, doing: &'static str) -> EngineError {
    EngineError::FilesInUse {
        name: handle.record().name.to_string(),
        doing,
    }
}
