//! The cgroup of the helpers under systemd.
//!
//! What a service forks is born in the service's own cgroup, and would be counted, limited and
//! listed with it. systemd gives containers a delegated cgroup of their own
//! (`littlebox-containers.service`, systemd.resource-control(5), `Delegate=`); helpers get a leaf
//! in it, beside the containers and outside their limits. So do workers, which may be left behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of the helpers' cgroup below `parent`, made when it is missing: in the hierarchy
/// by which systemd knows processes, the v2 one. `None` on a host without.
pub fn make(parent: &Path) -> io::Result<Option<PathBuf>> {
    // A pure v2 host, and a hybrid one as systemd mounts it (file-hierarchy(7)).
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let Some(mount) = mounts.into_iter().find(|m| m.join("cgroup.procs").exists()) else {
        return Ok(None);
    };
    let below = parent.strip_prefix("/").unwrap_or(parent);
    let home = mount.join(below).join("helpers");
    fs::create_dir_all(&home)?;
    Ok(Some(home))
}

/// Moves a process that has no children yet.
pub fn enter(home: &Path, pid: u32) -> io::Result<()> {
    fs::write(home.join("cgroup.procs"), pid.to_string())
}
