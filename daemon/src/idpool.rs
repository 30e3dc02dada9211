//! Ranges of host ids for the user namespaces of containers.
//!
//! The pool is cut into ranges of equal size. A range that is in use is claimed on the whole machine
//! by a symbolic link in the registry, one for each 65,536 ids, whose name is the first id divided
//! by 65,536 and whose target is the state directory of the daemon that has it. Making a symbolic
//! link is atomic and carries its content, so daemons that share a registry never have the same
//! range, however their pools overlap; and what a daemon that was killed has left is found by its
//! name. A claim whose daemon has no database any more is stale, and is removed when a daemon starts
//! or wants a range that is claimed.

mod neighbours;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use littlebox_types::ContainerId;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, open, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use neighbours::Neighbours;
pub use neighbours::{Look, Looker};

/// Ids of one claim: 16 bits, so that a container has every id that programs expect (65534 is
/// nobody).
pub const UNIT: u32 = 65_536;
/// Ranges that are kept claimed after their containers are gone, for the next ones.
const SPARE: usize = 64;
/// How long another daemon may hold the registry's lock: one that is stopped never gives it back.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

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
    neighbours: Neighbours,
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

impl Ranges {
    fn give(&mut self, id: ContainerId, range: IdRange) {
        self.used.extend(range.units().map(|unit| (unit, id)));
    }

    fn take_back(&mut self, range: IdRange) {
        for unit in range.units() {
            self.used.remove(&unit);
        }
    }
}

impl IdPool {
    /// Opens the registry. `owner` is the daemon's state directory; `looker` looks into those of
    /// others.
    pub fn open(
        config: PoolConfig,
        owner: &Path,
        looker: impl Looker + 'static,
    ) -> io::Result<Self> {
        let registry = crate::paths::make_dir(&config.registry)?;
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
            neighbours: Neighbours::new(looker),
        })
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
    ///
    /// # Errors
    /// [`PoolError::Exhausted`], and those of the registry.
    pub async fn allocate(&self, id: ContainerId) -> Result<IdRange, PoolError> {
        if let Some(range) = self.take_spare(id) {
            return Ok(range);
        }
        if let Some(range) = self.find(id).await? {
            return Ok(range);
        }
        // Some may be claimed by daemons that are gone.
        self.remove_stale_claims().await?;
        self.find(id).await?.ok_or(PoolError::Exhausted {
            ranges: self.config.ranges(),
        })
    }

    fn take_spare(&self, id: ContainerId) -> Option<IdRange> {
        let mut ranges = self.ranges();
        let range = self.range(ranges.spare.pop_front()?);
        ranges.give(id, range);
        Some(range)
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

    /// Claims a range that nobody has claimed.
    async fn find(&self, id: ContainerId) -> io::Result<Option<IdRange>> {
        let _locked = self.lock().await?;
        for _ in 0..self.config.ranges() {
            let Some(range) = self.reserve_next(id) else {
                continue;
            };
            let claimed = self.claim(range);
            if let Ok(Ok(())) = claimed {
                return Ok(Some(range));
            }
            self.ranges().take_back(range);
            claimed?.unwrap_or_else(drop);
        }
        Ok(None)
    }

    /// The next range, unless a container of this daemon has it.
    fn reserve_next(&self, id: ContainerId) -> Option<IdRange> {
        let mut ranges = self.ranges();
        let range = self.range(self.config.start + ranges.next * self.config.size);
        ranges.next = (ranges.next + 1) % self.config.ranges();
        let unused = range.units().all(|unit| !ranges.used.contains_key(&unit));
        unused.then(|| ranges.give(id, range))?;
        Some(range)
    }

    /// Takes back the range of a container that was recorded; [`IdPool::settle`] claims it.
    pub fn adopt(&self, id: ContainerId, range: IdRange) {
        self.ranges().give(id, range);
    }

    /// Makes sure that a range is this daemon's before a container runs with it.
    ///
    /// # Errors
    /// [`PoolError::Taken`], and those of the registry.
    pub async fn ensure(&self, range: IdRange) -> Result<(), PoolError> {
        if self.claim_alone(range).await?.is_ok() {
            return Ok(());
        }
        // By a daemon that is gone, perhaps.
        self.remove_stale_claims().await?;
        let claimed = self.claim_alone(range).await?;
        claimed.map_err(|owner| PoolError::Taken {
            first: range.first,
            owner: owner.display().to_string(),
        })
    }

    async fn claim_alone(&self, range: IdRange) -> io::Result<Result<(), PathBuf>> {
        let _locked = self.lock().await?;
        self.claim(range)
    }

    /// The container is gone.
    pub fn release(&self, id: ContainerId, range: IdRange) {
        let mut ranges = self.ranges();
        if ranges.used.get(&(range.first / UNIT)) != Some(&id) {
            return;
        }
        ranges.take_back(range);
        let can_be_spare = self.is_of_this_pool(range);
        if can_be_spare && ranges.spare.len() < SPARE {
            ranges.spare.push_back(range.first);
            return;
        }
        drop(ranges);
        match self.try_unclaim(range) {
            Ok(()) => {}
            Err(_) if can_be_spare => self.ranges().spare.push_back(range.first),
            Err(error) => {
                tracing::warn!(%error, "cannot give an id range back; the next start does");
            }
        }
    }

    /// Whether it could be given to another container; not so when it was made with another
    /// configuration.
    fn is_of_this_pool(&self, range: IdRange) -> bool {
        let offset = range.first.checked_sub(self.config.start);
        range.size == self.config.size
            && self.config.overlaps(range.first, range.size)
            && offset.is_some_and(|offset| offset.is_multiple_of(self.config.size))
    }

    /// For the daemon's start, when every container was adopted: claims their ranges again (after a
    /// reboot the registry is empty), and removes this daemon's claims that no container has (it was
    /// killed between claim and commit) and those of daemons that are gone. A range that another
    /// daemon has taken meanwhile stays with its container, whose start [`IdPool::ensure`] refuses.
    pub async fn settle(&self) -> io::Result<()> {
        self.remove_stale_claims().await?;
        let _locked = self.lock().await?;
        let ranges = self.ranges();
        for (unit, id) in &ranges.used {
            if let Claim::Theirs(owner) = self.claim_unit(*unit)? {
                tracing::warn!(%id, owner = %owner.display(), "another daemon has this container's host ids");
            }
        }
        let spare = ranges
            .spare
            .iter()
            .flat_map(|first| self.range(*first).units());
        let wanted: HashSet<u32> = ranges.used.keys().copied().chain(spare).collect();
        for (name, claim) in links(&self.registry)? {
            let unit = name.to_str().ok().and_then(|n| n.parse().ok());
            let wanted = unit.is_some_and(|unit: u32| wanted.contains(&unit));
            if claim.target == self.owner && !wanted {
                unlinkat(&self.registry, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Gives up what no container has: for the daemon's end.
    pub async fn close(&self) {
        let spare: Vec<u32> = self.ranges().spare.drain(..).collect();
        if spare.is_empty() {
            return;
        }
        match self.lock().await {
            Ok(_locked) => spare
                .iter()
                .for_each(|first| self.unclaim(self.range(*first))),
            Err(error) => {
                tracing::warn!(%error, "cannot give id ranges back; the next start does");
            }
        }
    }

    /// Serialises changes of the registry among daemons; held for the time of a few links.
    ///
    /// # Errors
    /// `TimedOut`, when another daemon holds it for longer than any that goes on.
    async fn lock(&self) -> io::Result<OwnedFd> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.try_lock() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                locked => return locked,
            }
            if Instant::now() > deadline {
                let why = "another daemon does not give its lock back";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// # Errors
    /// `WouldBlock`, when another daemon holds it now.
    fn try_lock(&self) -> io::Result<OwnedFd> {
        // A description of its own: flock(2) belongs to it, and closing it is the unlock.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.registry, c".", flags, Mode::empty())?;
        let operation = FlockOperation::NonBlockingLockExclusive;
        rustix::io::retry_on_intr(|| flock(&fd, operation))?;
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
        let owner = target(&self.registry, &name)?;
        if owner == self.owner {
            return Ok(Claim::Ours);
        }
        Ok(Claim::Theirs(owner))
    }

    fn try_unclaim(&self, range: IdRange) -> io::Result<()> {
        let _locked = self.try_lock()?;
        self.unclaim(range);
        Ok(())
    }

    /// Locked.
    fn unclaim(&self, range: IdRange) {
        for unit in range.units() {
            // It may have been given to another container meanwhile.
            let used = self.ranges().used.contains_key(&unit);
            let owner = target(&self.registry, unit.to_string());
            if !used && owner.is_ok_and(|owner| owner == self.owner) {
                self.unlink(unit);
            }
        }
    }

    fn unlink(&self, unit: u32) {
        // What cannot be removed is found by the next sweep.
        let _ = unlinkat(&self.registry, unit.to_string(), AtFlags::empty());
    }
}

/// Where a link leads.
fn target(dir: &OwnedFd, name: impl rustix::path::Arg) -> io::Result<PathBuf> {
    let target = readlinkat(dir, name, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// A link of the registry. A link made anew under the same name compares as different.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    target: PathBuf,
    inode: u64,
    /// Seconds and nanoseconds.
    made_at: (i64, i64),
}

fn link(dir: &OwnedFd, name: impl rustix::path::Arg + Copy) -> io::Result<Link> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Link {
        target: target(dir, name)?,
        inode: stat.st_ino,
        made_at: (stat.st_ctime, stat.st_ctime_nsec.try_into().unwrap_or(0)),
    })
}

/// The links of a directory.
fn links(dir: &OwnedFd) -> io::Result<Vec<(CString, Link)>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if let Ok(link) = link(dir, &name) {
            found.push((name, link));
        }
    }
    Ok(found)
}

enum Claim {
    Made,
    Ours,
    Theirs(PathBuf),
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
