//! Where things lie. Every name is derived from an id, so whatever is left can be found.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use littlebox_types::{ContainerId, ExecId};
use rustix::io::Errno;

pub use crate::files::{remove_tree, remove_tree_unless};

use crate::config::Config;

/// The daemon's directories.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Persistent: database, writable layers, logs.
    pub state: PathBuf,
    /// tmpfs: helpers' sockets, exit records.
    pub run: PathBuf,
    /// `/littlebox/INSTANCE`, below each hierarchy's root.
    pub cgroup: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
}

impl Paths {
    /// Makes the directories, 0700, independent of the umask.
    pub fn create(config: &Config) -> io::Result<Self> {
        let state = make_dir(&config.state_dir)?;
        let run = make_dir(&config.run_dir)?;
        make_dir(&state.join("containers"))?;
        make_dir(&state.join("trash"))?;
        make_dir(&run.join("c"))?;
        let instance = instance(&state);
        Ok(Self {
            state,
            run,
            cgroup: config.cgroup_parent.join(instance),
            socket: config.socket.clone(),
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

    /// Moves a container's persistent directory out of the way, by one rename, so that a
    /// half-removed tree is never taken for a container's. Returns where it is now.
    pub fn discard(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let from = self.containers().join(name);
        // An earlier one may still be on its way out.
        let mut to = self.trash().join(name);
        for n in 1.. {
            match rustix::fs::rename(&from, &to) {
                Ok(()) => return Ok(Some(to)),
                Err(Errno::NOENT) => break,
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if n < 100 => {
                    to.set_file_name(format!("{name}-{n}"));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
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
