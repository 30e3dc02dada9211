//! Where things lie. Every name is derived from an id, so whatever is left can be found.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lbctl::types::{ContainerId, ExecId};

/// The daemon's directories.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Persistent: database, writable layers, logs.
    pub state: PathBuf,
    /// tmpfs: helpers' sockets, exit records.
    pub run: PathBuf,
    /// `/littlebox/INSTANCE`, below each hierarchy's root.
    pub cgroup: PathBuf,
}

impl Paths {
    /// Makes the directories, 0700, independent of the umask.
    pub fn create(state: &Path, run: &Path, cgroup_parent: &Path) -> io::Result<Self> {
        let state = make_dir(state)?;
        let run = make_dir(run)?;
        make_dir(&state.join("containers"))?;
        make_dir(&state.join("trash"))?;
        make_dir(&run.join("c"))?;
        let instance = instance(&state);
        Ok(Self {
            state,
            run,
            cgroup: cgroup_parent.join(instance),
        })
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("littlebox.db")
    }

    /// All containers' persistent directories.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// A container's persistent directory.
    pub fn container(&self, id: ContainerId) -> PathBuf {
        self.containers().join(id.to_string())
    }

    /// A removed directory on its way out.
    pub fn trash(&self) -> PathBuf {
        self.state.join("trash")
    }

    /// Where a container's writes go.
    pub fn upper(&self, id: ContainerId) -> PathBuf {
        self.container(id).join("upper")
    }

    /// overlayfs' scratch directory.
    pub fn work(&self, id: ContainerId) -> PathBuf {
        self.container(id).join("work")
    }

    /// A container's log.
    pub fn log(&self, id: ContainerId) -> PathBuf {
        self.container(id).join("log/container.log")
    }

    /// An exec's output.
    pub fn exec_log(&self, id: ContainerId, exec: ExecId) -> PathBuf {
        self.container(id).join(format!("execs/{exec}.log"))
    }

    /// All helpers' directories.
    pub fn runs(&self) -> PathBuf {
        self.run.join("c")
    }

    /// A helper's directory.
    pub fn run_dir(&self, id: ContainerId) -> PathBuf {
        self.runs().join(id.to_string())
    }

    /// An exec's exit record.
    pub fn exec_exit_record(&self, id: ContainerId, exec: ExecId) -> PathBuf {
        self.run_dir(id).join(format!("exec-{exec}.json"))
    }

    /// A container's cgroup below each hierarchy's root.
    pub fn container_cgroup(&self, id: ContainerId) -> PathBuf {
        self.cgroup.join(id.to_string())
    }
}

/// Twelve hex digits that tell daemons on one host apart: FNV-1a of the state directory's path.
fn instance(state: &Path) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in state.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{:012x}", hash & 0xffff_ffff_ffff)
}

/// Makes a directory with its parents, gives it 0700 and returns its real path.
pub fn make_dir(path: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    path.canonicalize()
}

/// Makes one 0700 directory; one that exists is fine.
pub fn make_leaf(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a tree; one that is missing is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
