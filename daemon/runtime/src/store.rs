//! What is known of each container: `ROOT/ID/`, readable by root alone.
//!
//! | file | what |
//! |---|---|
//! | `state.json` | the [`Record`], always whole: written beside and renamed |
//! | `config.json` | the bundle's, as it was when the container was created |
//! | `start.sock` | where the program waits for its start; while it is there the container is `created` |
//! | `starting.sock` | the same from when it was asked for until it runs |
//!
//! The directory itself is the lock: who changes a container holds flock(2) on it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use littlebox_helper::build::{Membership, gate};
use littlebox_helper::cgroup::Cgroup;
use littlebox_protocol::{CgroupPlan, HooksPlan, IdMapping};
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, open, openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

use crate::cli::DEFAULT_ROOT;
use crate::error::{Doing, Error, Result};
use crate::id::Id;
use crate::process::Process;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";

/// A container as it was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem on the host.
    pub rootfs: PathBuf,
    /// The spec's.
    pub annotations: BTreeMap<String, String>,
    /// When it was created (RFC 3339).
    pub created: String,
    /// The container's process; `None`: it is being created, or that was never finished.
    pub process: Option<Process>,
    /// Its cgroup.
    pub cgroup: CgroupPlan,
    /// The systemd scope that the cgroup belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What an exec joins.
    pub membership: Option<Membership>,
    /// Of a new user namespace.
    pub uid_map: Vec<IdMapping>,
    /// Of a new user namespace.
    pub gid_map: Vec<IdMapping>,
    /// The socket of the seccomp agent that is asked at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<PathBuf>,
    /// Those that are still to come: `startContainer`, `poststart`, `poststop`.
    pub hooks: HooksPlan,
}

/// Where a container is in its life (OCI runtime.md, "State"; `paused` is runc's and everybody's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` works on it.
    Creating,
    /// Its program waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// All containers below one root directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The containers below `root`.
    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    /// The directory that the container's own will be in.
    pub fn path_of(&self, id: &Id) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// A new, locked directory.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn create(&self, id: &Id) -> Result<Entry> {
        let private = Mode::from_raw_mode(0o700);
        let path = self.path_of(id);
        let doing = || format!("make {}", path.display());
        let mut made = rustix::fs::mkdir(&path, private);
        if made == Err(Errno::NOENT) {
            fs::create_dir_all(&self.root).doing(|| format!("make {}", self.root.display()))?;
            // Only what was made here: an administrator's own directory stays as it is.
            made = mkdirat(rustix::fs::CWD, &path, private);
        }
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists(id.clone())),
            Err(errno) => return Err(errno).doing(doing),
        }
        let entry = self.open(id)?;
        entry.lock()?;
        Ok(entry)
    }

    /// An existing container.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn open(&self, id: &Id) -> Result<Entry> {
        let path = self.path_of(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Entry {
                id: id.clone(),
                path,
                dir,
            }),
            Err(Errno::NOENT) => Err(Error::NotFound(id.clone())),
            Err(errno) => Err(errno).doing(|| format!("open {}", path.display())),
        }
    }

    /// The ids of all, sorted.
    ///
    /// # Errors
    /// A directory that was named and is not there: no container was ever created in it.
    pub fn ids(&self) -> Result<Vec<Id>> {
        let is_default = self.root == Path::new(DEFAULT_ROOT);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if is_default && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            other => other.doing(|| format!("read {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.doing(|| format!("read {}", self.root.display()))?;
            if entry.path().join(STATE).exists()
                && let Some(Ok(id)) = entry.file_name().to_str().map(str::parse)
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// Whether the container's cgroup is frozen; without a freezer nothing is.
fn is_frozen(record: &Record) -> io::Result<bool> {
    match Cgroup::open(&record.cgroup)?.is_frozen() {
        // Removed at this very moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

/// One container's directory.
#[derive(Debug)]
pub struct Entry {
    id: Id,
    path: PathBuf,
    dir: OwnedFd,
}

impl Entry {
    /// The container's id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Waits until nobody else changes this container. Kept until the entry is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it was deleted meanwhile.
    pub fn lock(&self) -> Result<()> {
        retry_on_intr(|| flock(&self.dir, FlockOperation::LockExclusive))
            .doing(|| format!("lock {}", self.path.display()))?;
        self.locked()
    }

    /// The same, and gives up after a while: what the others do may depend on a container.
    ///
    /// # Errors
    /// As [`Entry::lock`]; [`Error::WrongState`] when the time is up.
    pub fn lock_within(&self, at_most: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            match flock(&self.dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return self.locked(),
                Err(Errno::WOULDBLOCK) if start.elapsed() < at_most => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::WrongState(format!(
                        "another command works on container {} and does not end",
                        self.id
                    )));
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(errno).doing(|| format!("lock {}", self.path.display()));
                }
            }
        }
    }

    fn locked(&self) -> Result<()> {
        let still = statat(rustix::fs::CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        let own = rustix::fs::fstat(&self.dir);
        match (still, own) {
            (Ok(still), Ok(own)) if still.st_ino == own.st_ino => {
                // Left by a start that was killed on its way: none is under way now.
                let _ = unlinkat(&self.dir, gate::ASKED, AtFlags::empty());
                Ok(())
            }
            _ => Err(Error::NotFound(self.id.clone())),
        }
    }

    /// Lets others change it.
    pub fn unlock(&self) {
        // The descriptor is open and ours: this cannot fail.
        let _ = flock(&self.dir, FlockOperation::Unlock);
    }

    /// Whether somebody changes it at this moment.
    fn is_locked(&self) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let doing = || format!("look at the lock of {}", self.path.display());
        // By its descriptor: another container may have the name by now.
        let again = openat(&self.dir, ".", flags, Mode::empty()).doing(doing)?;
        match flock(&again, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno).doing(doing),
        }
    }

    /// Writes the record, whole or not at all.
    pub fn write(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .doing(|| "state.json".to_owned())?;
        self.write_file(STATE, &json)
    }

    /// The record.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the directory is there, but no container (yet, or any more).
    pub fn read(&self) -> Result<Record> {
        let json = match self.read_file(STATE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(self.id.clone()));
            }
            other => other.doing(|| format!("read {}", self.path.join(STATE).display()))?,
        };
        serde_json::from_slice(&json)
            .map_err(io::Error::from)
            .doing(|| format!("read {}", self.path.join(STATE).display()))
    }

    /// Keeps the bundle's `config.json` as it is now.
    pub fn write_config(&self, json: &[u8]) -> Result<()> {
        self.write_file(CONFIG, json)
    }

    /// The `config.json` that the container was created with.
    pub fn read_config(&self) -> Result<Vec<u8>> {
        self.read_file(CONFIG)
            .doing(|| format!("read {}", self.path.join(CONFIG).display()))
    }

    fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let doing = || format!("write {}", self.path.join(name).display());
        let temporary = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.dir, &temporary, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.doing(doing)?);
        file.write_all(content).doing(doing)?;
        renameat(&self.dir, &temporary, &self.dir, name).doing(doing)
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, name, flags, Mode::empty())?);
        let mut content = Vec::new();
        io::Read::read_to_end(&mut file, &mut content)?;
        Ok(content)
    }

    /// Where the container is in its life, asked from the kernel.
    ///
    /// # Errors
    /// The kernel cannot be asked: a container of which nothing is known has not stopped.
    pub fn status(&self, record: &Record) -> Result<Status> {
        let Some(process) = &record.process else {
            return Ok(if self.is_locked()? {
                Status::Creating
            } else {
                Status::Stopped
            });
        };
        let pid = process.pid;
        if !process
            .is_alive()
            .doing(|| format!("look at process {pid}"))?
        {
            return Ok(Status::Stopped);
        }
        if is_frozen(record).doing(|| "look at the freezer".to_owned())? {
            return Ok(Status::Paused);
        }
        // Whoever asked for the start holds the lock until the program runs; one that was killed on
        // the way leaves the name and no lock.
        if self.has(gate::NAME)? || (self.has(gate::ASKED)? && self.is_locked()?) {
            Ok(Status::Created)
        } else {
            Ok(Status::Running)
        }
    }

    fn has(&self, name: &str) -> Result<bool> {
        match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => {
                Err(errno).doing(|| format!("look at {}", self.path.join(name).display()))
            }
        }
    }

    /// Removes the directory with what this program has put there.
    pub fn remove(&self) -> Result<()> {
        for name in [
            gate::NAME,
            gate::ASKED,
            CONFIG,
            "config.json.new",
            "state.json.new",
            STATE,
        ] {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno)
                        .doing(|| format!("remove {}", self.path.join(name).display()));
                }
            }
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("remove {}", self.path.display())),
        }
    }
}
