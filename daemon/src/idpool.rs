//! Ranges of host ids for the user namespaces of containers.
//!
//! The pool is cut into ranges of equal size. A range that is in use is claimed on the whole machine
//! by a symbolic link in the registry, one for each 65,536 ids, whose name is the first id divided
//! by 65,536 and whose target is the state directory of the daemon that has it. Making a symbolic
//! link is atomic and carries its content, so daemons that share a registry never have the same
//! range, however their pools overlap; and what a daemon that was killed has left is found by its
//! name. A claim whose daemon has no database any more is stale and may be taken over.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lbctl::types::ContainerId;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, open, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Ids of one claim: 16 bits, so that a container has every id that programs expect (65534 is
/// nobody).
pub const UNIT: u32 = 65_536;
/// Ranges that are kept claimed after their containers are gone, for the next ones.
const SPARE: usize = 64;

/// What the pool is made of; checked by the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The first id, a multiple of [`UNIT`].
    pub start: u32,
    /// How many ids, a multiple of `size`.
    pub count: u32,
    /// How many ids each container gets, a multiple of [`UNIT`].
    pub size: u32,
    /// The directory of the claims, the same for every daemon of the machine.
    pub registry: PathBuf,
}

impl PoolConfig {
    /// How many ranges there are.
    pub fn ranges(&self) -> u32 {
        self.count / self.size
    }

    /// Whether any of these ids belongs to the pool.
    pub fn overlaps(&self, first: u32, size: u32) -> bool {
        let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
        u64::from(first) < end(self.start, self.count) && u64::from(self.start) < end(first, size)
    }
}

/// The ids of one container on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The container's id 0.
    pub first: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    fn units(self) -> impl Iterator<Item = u32> {
        (self.first / UNIT)..(self.first / UNIT + self.size / UNIT)
    }
}

/// Why there is no range.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// All are in use.
    #[error("all {ranges} id ranges of the pool are in use")]
    Exhausted {
        /// How many there are.
        ranges: u32,
    },
    /// Another daemon of the machine has it.
    #[error(
        "the id range from {first} on is in use by the daemon with the state directory {owner}"
    )]
    Taken {
        /// Its first id.
        first: u32,
        /// The other's state directory.
        owner: String,
    },
    /// The registry.
    #[error("the registry of id ranges: {0}")]
    Registry(#[from] io::Error),
}

/// The pool of one daemon.
#[derive(Debug)]
pub struct IdPool {
    config: PoolConfig,
    /// Canonical state directory: what the claims point to.
    owner: PathBuf,
    registry: OwnedFd,
    ranges: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Ranges {
    /// By unit: those of containers that were made with another configuration lie elsewhere.
    used: BTreeMap<u32, ContainerId>,
    /// First ids of ranges that are claimed and free, longest free first.
    spare: VecDeque<u32>,
    /// Where to look for the next one.
    next: u32,
}

impl IdPool {
    /// Opens the registry. `owner` is the daemon's state directory.
    pub fn open(config: PoolConfig, owner: &Path) -> io::Result<Self> {
        let registry = crate::engine::paths::make_dir(&config.registry)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let registry = open(&registry, flags, Mode::empty())?;
        // Daemons begin at different places, so that they rarely look at each other's claims.
        let next = hash(owner) % config.ranges();
        Ok(Self {
            config,
            owner: owner.to_owned(),
            registry,
            ranges: Mutex::new(Ranges {
                next,
                ..Ranges::default()
            }),
        })
    }

    /// Tells the other daemons of this machine of this one and its run directory, which their
    /// containers are not to see either. It stays told as long as there is a database.
    pub fn announce(&self, run: &Path) -> io::Result<()> {
        let _locked = self.lock()?;
        match mkdirat(&self.registry, DAEMONS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let daemons = self.daemons()?;
        for (name, target) in links(&daemons)? {
            let is_run = name.to_bytes().ends_with(RUN.as_bytes());
            if target == self.owner || !is_run && !is_alive(&target) {
                let run = [name.to_bytes(), RUN.as_bytes()].concat();
                let _ = unlinkat(&daemons, run, AtFlags::empty());
                unlinkat(&daemons, name, AtFlags::empty())?;
            }
        }
        let name = format!("{:08x}", hash(&self.owner));
        let run_name = format!("{name}{RUN}");
        // Of another daemon with the same hash: it announces itself at its next start.
        let _ = unlinkat(&daemons, &run_name, AtFlags::empty());
        let _ = unlinkat(&daemons, &name, AtFlags::empty());
        symlinkat(run, &daemons, run_name)?;
        Ok(symlinkat(&self.owner, &daemons, name)?)
    }

    /// The state and run directories of every daemon of this machine that has announced itself.
    pub fn neighbours(&self) -> Vec<PathBuf> {
        let found = self.daemons().and_then(|daemons| links(&daemons));
        let found = found.inspect_err(|error| tracing::warn!(%error, "cannot read the registry"));
        found
            .unwrap_or_default()
            .into_iter()
            .map(|(_, target)| target)
            .collect()
    }

    fn daemons(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(
            &self.registry,
            DAEMONS,
            flags,
            Mode::empty(),
        )?)
    }

    /// The configuration.
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// How many containers of this daemon have a range.
    pub fn used(&self) -> usize {
        let ranges = self.ranges();
        let owners: std::collections::HashSet<_> = ranges.used.values().collect();
        owners.len()
    }

    /// Whose a host id is.
    pub fn owner(&self, host_id: u32) -> Option<ContainerId> {
        self.ranges().used.get(&(host_id / UNIT)).copied()
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A range that nobody has.
    pub fn allocate(&self, id: ContainerId) -> Result<IdRange, PoolError> {
        let mut ranges = self.ranges();
        let first = match ranges.spare.pop_front() {
            Some(first) => first,
            None => self.find(&mut ranges)?,
        };
        let range = self.range(first);
        ranges.used.extend(range.units().map(|unit| (unit, id)));
        Ok(range)
    }

    /// What [`IdPool::allocate`] would look at first: for a plan that is not carried out.
    pub fn example(&self) -> IdRange {
        let ranges = self.ranges();
        let next = self.config.start + ranges.next * self.config.size;
        self.range(ranges.spare.front().copied().unwrap_or(next))
    }

    fn range(&self, first: u32) -> IdRange {
        IdRange {
            first,
            size: self.config.size,
        }
    }

    fn find(&self, ranges: &mut Ranges) -> Result<u32, PoolError> {
        let all = self.config.ranges();
        let _locked = self.lock()?;
        for _ in 0..all {
            let first = self.config.start + ranges.next * self.config.size;
            ranges.next = (ranges.next + 1) % all;
            let range = self.range(first);
            let unused = range.units().all(|unit| !ranges.used.contains_key(&unit));
            if unused && self.claim(range)?.is_ok() {
                return Ok(first);
            }
        }
        Err(PoolError::Exhausted { ranges: all })
    }

    /// Takes back the range of a container that was recorded; [`IdPool::settle`] claims it.
    pub fn adopt(&self, id: ContainerId, range: IdRange) {
        self.ranges()
            .used
            .extend(range.units().map(|unit| (unit, id)));
    }

    /// Makes sure that a range is this daemon's before a container runs with it.
    pub fn ensure(&self, range: IdRange) -> Result<(), PoolError> {
        let _locked = self.lock()?;
        self.claim(range)?.map_err(|owner| PoolError::Taken {
            first: range.first,
            owner: owner.display().to_string(),
        })
    }

    /// The container is gone.
    pub fn release(&self, id: ContainerId, range: IdRange) {
        let mut ranges = self.ranges();
        if ranges.used.get(&(range.first / UNIT)) != Some(&id) {
            return;
        }
        for unit in range.units() {
            ranges.used.remove(&unit);
        }
        let of_this_pool = range.size == self.config.size
            && self.config.overlaps(range.first, range.size)
            && range
                .first
                .checked_sub(self.config.start)
                .is_some_and(|offset| offset.is_multiple_of(self.config.size));
        if of_this_pool && ranges.spare.len() < SPARE {
            ranges.spare.push_back(range.first);
            return;
        }
        drop(ranges);
        self.unclaim(range);
    }

    /// For the daemon's start, when every container was adopted: claims their ranges again (after a
    /// reboot the registry is empty), and removes this daemon's claims that no container has (it was
    /// killed between claim and commit) and those of daemons that are gone. A range that another
    /// daemon has taken meanwhile stays with its container, whose start [`IdPool::ensure`] refuses.
    pub fn settle(&self) -> io::Result<()> {
        let ranges = self.ranges();
        let _locked = self.lock()?;
        for (unit, id) in &ranges.used {
            if let Claim::Theirs(owner) = self.claim_unit(*unit)? {
                tracing::warn!(%id, owner = %owner.display(), "another daemon has this container's host ids");
            }
        }
        let spare = ranges
            .spare
            .iter()
            .flat_map(|first| self.range(*first).units());
        let wanted: std::collections::HashSet<u32> =
            ranges.used.keys().copied().chain(spare).collect();
        let mut alive: BTreeMap<PathBuf, bool> = BTreeMap::new();
        for entry in rustix::fs::Dir::read_from(&self.registry)? {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(owner) = readlinkat(&self.registry, name, Vec::new()) else {
                continue;
            };
            let owner = PathBuf::from(std::ffi::OsStr::from_bytes(owner.as_bytes()));
            let keep = if owner == self.owner {
                let unit = name.to_str().ok().and_then(|n| n.parse().ok());
                unit.is_some_and(|unit: u32| wanted.contains(&unit))
            } else {
                *alive
                    .entry(owner.clone())
                    .or_insert_with(|| is_alive(&owner))
            };
            if !keep {
                unlinkat(&self.registry, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Gives up what no container has: for the daemon's end.
    pub fn close(&self) {
        let spare: Vec<u32> = self.ranges().spare.drain(..).collect();
        for first in spare {
            self.unclaim(self.range(first));
        }
    }

    /// Serialises changes of the registry among daemons; held for the time of a few links.
    fn lock(&self) -> io::Result<OwnedFd> {
        // A description of its own: flock(2) belongs to it, and closing it is the unlock.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.registry, c".", flags, Mode::empty())?;
        rustix::io::retry_on_intr(|| flock(fd.as_fd(), FlockOperation::LockExclusive))?;
        Ok(fd)
    }

    /// Claims every unit of a range, or none of them; the inner error is who has one. Locked.
    fn claim(&self, range: IdRange) -> io::Result<Result<(), PathBuf>> {
        let mut made = Vec::new();
        for unit in range.units() {
            match self.claim_unit(unit)? {
                Claim::Made => made.push(unit),
                Claim::Ours => {}
                Claim::Theirs(owner) => {
                    made.into_iter().for_each(|unit| self.unlink(unit));
                    return Ok(Err(owner));
                }
            }
        }
        Ok(Ok(()))
    }

    fn claim_unit(&self, unit: u32) -> io::Result<Claim> {
        let name = unit.to_string();
        match symlinkat(&self.owner, &self.registry, &name) {
            Ok(()) => return Ok(Claim::Made),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let owner = readlinkat(&self.registry, &name, Vec::new())?;
        let owner = PathBuf::from(std::ffi::OsStr::from_bytes(owner.as_bytes()));
        if owner == self.owner {
            return Ok(Claim::Ours);
        }
        if is_alive(&owner) {
            return Ok(Claim::Theirs(owner));
        }
        self.unlink(unit);
        symlinkat(&self.owner, &self.registry, &name)?;
        Ok(Claim::Made)
    }

    fn unclaim(&self, range: IdRange) {
        let _locked = match self.lock() {
            Ok(locked) => locked,
            Err(error) => {
                tracing::warn!(%error, "cannot give an id range back; the next start does");
                return;
            }
        };
        for unit in range.units() {
            let owner = readlinkat(&self.registry, unit.to_string(), Vec::new());
            if owner.is_ok_and(|owner| owner.as_bytes() == self.owner.as_os_str().as_bytes()) {
                self.unlink(unit);
            }
        }
    }

    fn unlink(&self, unit: u32) {
        // What cannot be removed is found by the next sweep.
        let _ = unlinkat(&self.registry, unit.to_string(), AtFlags::empty());
    }
}

/// In the registry: a link to each daemon's state directory.
const DAEMONS: &str = "daemons";
/// End of the name of the link to its run directory.
const RUN: &str = ".run";

/// The links of a directory, and where they lead.
fn links(dir: &OwnedFd) -> io::Result<Vec<(CString, PathBuf)>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if let Ok(target) = readlinkat(dir, &name, Vec::new()) {
            found.push((name, PathBuf::from(OsStr::from_bytes(target.as_bytes()))));
        }
    }
    Ok(found)
}

enum Claim {
    Made,
    Ours,
    Theirs(PathBuf),
}

/// Whether a daemon could come back and want its ranges: its database is there.
fn is_alive(owner: &Path) -> bool {
    // What cannot be looked at is not known to be gone.
    owner.join("littlebox.db").try_exists().unwrap_or(true)
}

/// FNV-1a, 32 bits.
fn hash(path: &Path) -> u32 {
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

/// Lines of `/etc/subuid` and `/etc/subgid` (subuid(5)) whose ids belong to the pool: they are
/// somebody's already.
pub fn delegated(config: &PoolConfig, text: &str) -> Vec<String> {
    let overlaps = |line: &&str| {
        let mut fields = line.rsplitn(3, ':');
        let (size, first) = (fields.next(), fields.next());
        match (
            first.and_then(|f| f.trim().parse().ok()),
            size.and_then(|s| s.trim().parse().ok()),
        ) {
            (Some(first), Some(size)) => config.overlaps(first, size),
            _ => false,
        }
    };
    text.lines().filter(overlaps).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
