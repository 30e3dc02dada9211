//! The other daemons of the machine: which there are, and which are gone for good.
//!
//! A claim outlives its daemon, because the files of containers have its ids: it is stale when the
//! daemon's database is gone, and only a look into its state directory tells that. Such a directory may
//! lie on a server that never answers. So each look has a thread of its own, nobody holds a lock while
//! he waits for one, or waits long, and who does not answer is not known to be gone.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::{IdPool, hash, links, target};

/// In the registry: a link to each daemon's state directory.
const DAEMONS: &str = "daemons";
/// End of the name of the link to its run directory.
const RUN: &str = ".run";
/// How long a state directory has for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl IdPool {
    /// Tells the other daemons of this machine of this one and its run directory, which their
    /// containers are not to see either. It stays told as long as there is a database.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn announce(&self, run: &Path) -> io::Result<()> {
        match mkdirat(&self.registry, DAEMONS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let daemons = self.daemons()?;
        let mut states = links(&daemons)?;
        states.retain(|(name, _)| !name.to_bytes().ends_with(RUN.as_bytes()));
        let others = states.iter().map(|(_, state)| state.clone());
        let gone = self.gone(others.filter(|state| *state != self.owner));
        let _locked = self.lock()?;
        for (name, state) in states {
            // It may be another one's by now.
            let same = target(&daemons, &name).is_ok_and(|now| now == state);
            if same && (state == self.owner || gone.contains(&state)) {
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

    /// Removes the claims of daemons that are gone. To be called without any lock.
    pub(super) fn remove_stale_claims(&self) -> io::Result<()> {
        let claims = links(&self.registry)?;
        let owners = claims.iter().map(|(_, owner)| owner.clone());
        let gone = self.gone(owners.filter(|owner| *owner != self.owner));
        if gone.is_empty() {
            return Ok(());
        }
        let _locked = self.lock()?;
        for (name, owner) in claims.into_iter().filter(|(_, o)| gone.contains(o)) {
            // Another daemon may have claimed it meanwhile.
            if target(&self.registry, &name).is_ok_and(|now| now == owner) {
                unlinkat(&self.registry, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    fn gone(&self, owners: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
        let owners: BTreeSet<PathBuf> = owners.collect();
        if owners.is_empty() {
            return owners;
        }
        tokio::task::block_in_place(|| self.looks.gone(owners))
    }
}

/// Looks into other daemons' state directories.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Those that were asked and have not answered: they are not asked twice.
    under_way: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Looks {
    /// Those of the daemons with these state directories that could not come back.
    fn gone(&self, owners: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let (tell, told) = mpsc::channel();
        for owner in owners {
            self.look(owner, tell.clone());
        }
        // Disconnected, when all have answered.
        drop(tell);
        let deadline = Instant::now() + PATIENCE;
        let mut gone = BTreeSet::new();
        let rest = || deadline.saturating_duration_since(Instant::now());
        while let Ok((owner, is_gone)) = told.recv_timeout(rest()) {
            if is_gone {
                gone.insert(owner);
            }
        }
        gone
    }

    fn look(&self, owner: PathBuf, tell: mpsc::Sender<(PathBuf, bool)>) {
        if !self.under_way().insert(owner.clone()) {
            return;
        }
        let (looks, asked) = (self.under_way.clone(), owner.clone());
        let thread = std::thread::Builder::new().name("neighbour".into());
        let looking = thread.spawn(move || {
            let gone = is_gone(&asked);
            lock(&looks).remove(&asked);
            // Whoever asked may have given up.
            let _heard = tell.send((asked, gone));
        });
        if let Err(error) = looking {
            tracing::warn!(%error, owner = %owner.display(), "cannot look for a daemon");
            self.under_way().remove(&owner);
        }
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        lock(&self.under_way)
    }
}

fn lock(owners: &Mutex<BTreeSet<PathBuf>>) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    owners.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a daemon cannot come back and want its ranges: its database is not there.
fn is_gone(owner: &Path) -> bool {
    // What cannot be looked at is not known to be gone.
    matches!(owner.join("littlebox.db").try_exists(), Ok(false))
}
