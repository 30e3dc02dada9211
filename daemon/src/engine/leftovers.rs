//! What a container that is gone has left on the disk and in the kernel, and its removal.
//!
//! All of it has names derived from the container's id. What cannot be removed now (no descriptors,
//! a dead process that has not left its cgroup) is tried again until it can be; what a daemon that
//! ends leaves is swept by the next one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lbctl::types::ContainerId;
use littlebox_helper::protocol::CgroupPlan;

use super::{Engine, paths};
use crate::faults;

/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Engine {
    /// Removes a container's directories; what cannot be removed now, later.
    pub(crate) async fn remove_files(self: &Arc<Self>, id: ContainerId) {
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
    pub(crate) fn remove_later(self: &Arc<Self>, id: ContainerId) {
        let engine = self.clone();
        tokio::spawn(async move {
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

    async fn try_remove_all(self: &Arc<Self>, id: ContainerId) -> io::Result<()> {
        // Known again, or still: its next start and its removal tidy up.
        if self.find(&id.to_string()).is_ok() {
            return Ok(());
        }
        self.try_remove_cgroup(id).await.map_err(io::Error::other)?;
        self.try_remove_files(id).await
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

    /// Renames first, so that a half-removed tree is never taken for a container's.
    async fn try_remove_files(&self, id: ContainerId) -> io::Result<()> {
        let dir = self.paths.container(id);
        let trash = self.paths.trash().join(id.to_string());
        let run_dir = self.paths.run_dir(id);
        let removed = tokio::task::spawn_blocking(move || {
            match std::fs::rename(&dir, &trash) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
                Ok(()) => faults::point("remove.files"),
            }
            // Also what an earlier try has renamed.
            paths::remove_tree(&trash)?;
            paths::remove_tree(&run_dir)
        });
        removed.await.map_err(io::Error::other)?
    }
}
