//! What a container that is gone has left on the disk and in the kernel, and its removal; and the cgroup
//! of one that has ended.
//!
//! All of it has names derived from the container's id. What cannot be removed now (no descriptors,
//! a dead process that has not left its cgroup) is tried again until it can be; what a daemon that
//! ends leaves is swept by the next one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use littlebox_protocol::CgroupPlan;
use littlebox_types::ContainerId;
use tokio::sync::Semaphore;

use crate::engine::Engine;
use crate::{faults, lifecycle, paths};

/// Trees that are removed at once; each holds one of the threads for blocking work.
static REMOVALS: Semaphore = Semaphore::const_new(8);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Something that was left and is not removed yet.
#[derive(Debug)]
pub(crate) struct LeftOver(Arc<AtomicUsize>);

impl Drop for LeftOver {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Removes a container's directories; what cannot be removed now, later.
    pub(super) async fn remove_files(self: &Arc<Self>, id: ContainerId) {
        if let Err(error) = self.try_remove_files(id).await {
            tracing::warn!(%id, %error, "cannot remove a container's files yet");
            self.remove_later(id);
        }
    }

    /// Ends whatever is left in a container's cgroup and removes it.
    pub(crate) async fn remove_cgroup_of(self: &Arc<Self>, id: ContainerId) {
        if let Err(error) = self.try_remove_cgroup(id).await {
            tracing::warn!(%id, %error, "cannot remove a cgroup yet");
            self.remove_later(id);
        }
    }

    /// Tries again, in growing intervals. Not tracked: a shutdown does not wait for it.
    pub(super) fn remove_later(self: &Arc<Self>, id: ContainerId) {
        let engine = self.clone();
        tokio::spawn(async move {
            let _left = engine.left_over();
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if engine.is_closing() || engine.try_remove_all(id).await.is_ok() {
                    return;
                }
            }
        });
    }

    /// Removes all that a container which has no row has left; of one that has, its cgroup.
    pub(crate) async fn try_remove_all(self: &Arc<Self>, id: ContainerId) -> io::Result<()> {
        if let Ok(handle) = self.find(&id.to_string()) {
            // It is not started meanwhile: a run has the same cgroup.
            let _turn = handle.operations.engines_turn().await;
            // That run's end removes it.
            if lifecycle::is_live(handle.state()) {
                return Ok(());
            }
            if !handle.live().removed {
                return self.try_remove_cgroup(id).await.map_err(io::Error::other);
            }
        }
        self.try_remove_cgroup(id).await.map_err(io::Error::other)?;
        self.try_remove_files(id).await
    }

    /// Counts something that was left, until it is removed or given up.
    pub(crate) fn left_over(&self) -> LeftOver {
        self.leftovers.fetch_add(1, Ordering::Relaxed);
        LeftOver(self.leftovers.clone())
    }

    /// How many containers that are gone or have ended have left something that is not removed yet.
    pub fn leftovers(&self) -> usize {
        self.leftovers.load(Ordering::Relaxed)
    }

    async fn try_remove_cgroup(
        &self,
        id: ContainerId,
    ) -> Result<(), crate::supervisor::StartError> {
        let path = Some(self.paths.container_cgroup(id));
        let plan = CgroupPlan {
            path,
            ..CgroupPlan::default()
        };
        self.supervisor.remove_cgroup(plan).await
    }

    async fn try_remove_files(self: &Arc<Self>, id: ContainerId) -> io::Result<()> {
        let (engine, run_dir) = (self.clone(), self.paths.run_dir(id));
        let discarded = on_a_thread(move || {
            let discarded = engine.paths.discard(&id.to_string())?;
            if discarded.is_some() {
                faults::point("remove.files");
            }
            paths::remove_tree(&run_dir)?;
            Ok(discarded)
        })
        .await?;
        // Also what an earlier try has discarded.
        let earlier = self.paths.trash().join(id.to_string());
        for path in discarded.into_iter().filter(|path| *path != earlier) {
            self.try_remove_trash(path).await?;
        }
        self.try_remove_trash(earlier).await
    }

    /// Removes what was discarded. A container may have filled it for hours: only so
    /// many threads do that at once, and a shutdown ends it.
    async fn try_remove_trash(self: &Arc<Self>, trash: PathBuf) -> io::Result<()> {
        let _turn = REMOVALS.acquire().await.map_err(io::Error::other)?;
        let engine = self.clone();
        on_a_thread(move || paths::remove_tree_unless(&trash, &|| engine.is_closing())).await
    }

    /// Removes everything discarded so far, behind the API. What cannot be removed waits for the
    /// next daemon.
    pub(crate) fn empty_trash(self: &Arc<Self>, names: Vec<String>) {
        let engine = self.clone();
        self.background(async move {
            for name in names {
                if engine.is_closing() {
                    return;
                }
                if let Err(error) = engine
                    .try_remove_trash(engine.paths.trash().join(&name))
                    .await
                {
                    tracing::warn!(%error, %name, "cannot remove discarded files yet");
                }
            }
        });
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
