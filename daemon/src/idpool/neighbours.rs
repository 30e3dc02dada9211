//! The other daemons of the machine: which there are, and which are gone for good.
//!
//! A claim outlives its daemon, because the files of containers have its ids: it is stale when the
//! daemon's database is gone, and only a look into its state directory tells that. Such a directory may
//! lie on a server that never answers. So looks are a [`Looker`]'s, bounded, and taken without the
//! registry's lock, and a daemon that does not answer counts as alive.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::iter;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, symlinkat, unlinkat};
use rustix::io::Errno;

use tokio::time::timeout;

use super::{IdPool, hash, link, links};

/// In the registry: a link to each daemon's state directory.
const DAEMONS: &str = "daemons";
/// End of the name of the link to its run directory.
const RUN: &str = ".run";
/// What a daemon that could come back has in its state directory.
const DATABASE: &str = "littlebox.db";
/// How long state directories have for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many are looked into at once.
const AT_ONCE: usize = 8;

impl IdPool {
    /// Tells the other daemons of this machine of this one and its run directory, which their
    /// containers are not to see either. It stays told as long as there is a database.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn announce(&self, run: &Path) -> io::Result<()> {
        match mkdirat(&self.registry, DAEMONS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let daemons = self.daemons()?;
        let mut states = links(&daemons)?;
        states.retain(|(name, _)| !name.to_bytes().ends_with(RUN.as_bytes()));
        let others = states.iter().map(|(_, link)| link.target.clone());
        let others = others.filter(|state| *state != self.owner).collect();
        let gone = self.neighbours.gone(others).await;
        let _locked = self.lock().await?;
        for (name, found) in states {
            // It may be another one's by now, or the same daemon's that has come back.
            let same = link(&daemons, &name).is_ok_and(|now| now == found);
            if same && (found.target == self.owner || gone.contains(&found.target)) {
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
            .map(|(_, link)| link.target)
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
    pub(super) async fn remove_stale_claims(&self) -> io::Result<()> {
        // A second caller finds what the first one found already removed.
        let _first = self.neighbours.turn.lock().await;
        let claims = links(&self.registry)?;
        let owners = claims.iter().map(|(_, claim)| claim.target.clone());
        let others = owners.filter(|owner| *owner != self.owner).collect();
        let gone = self.neighbours.gone(others).await;
        if gone.is_empty() {
            return Ok(());
        }
        let _locked = self.lock().await?;
        for (name, claim) in claims {
            // It may have been claimed anew meanwhile, by another daemon or by the same.
            let same = || link(&self.registry, &name).is_ok_and(|now| now == claim);
            if gone.contains(&claim.target) && same() {
                unlinkat(&self.registry, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// Looks for files where nobody may answer.
pub trait Looker: std::fmt::Debug + Send + Sync {
    /// Whether the file is known to be missing. May never complete where a file system does not respond;
    /// the future is then dropped, and `look` must be held until the look itself has ended.
    fn is_missing(&self, file: PathBuf, look: Look) -> BoxFuture<'_, bool>;
}

/// A look at a state directory, until it is dropped.
#[derive(Debug)]
pub struct Look {
    state: PathBuf,
    under_way: UnderWay,
}

/// The state directories that are looked into.
type UnderWay = Arc<Mutex<BTreeSet<PathBuf>>>;

impl Drop for Look {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.state);
    }
}

/// The other daemons, as far as one looks for them.
#[derive(Debug)]
pub(super) struct Neighbours {
    looker: Box<dyn Looker>,
    /// Those that have not answered are not asked again meanwhile.
    under_way: UnderWay,
    turn: tokio::sync::Mutex<()>,
}

impl Neighbours {
    pub(super) fn new(looker: impl Looker + 'static) -> Self {
        Self {
            looker: Box::new(looker),
            under_way: UnderWay::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Those of the daemons with these state directories that could not come back: their database is
    /// not there.
    async fn gone(&self, states: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let looks = iter(states.into_iter().filter_map(|state| self.look(state)));
        let answers = looks.map(|look| async {
            let state = look.state.clone();
            let missing = self.looker.is_missing(state.join(DATABASE), look);
            let gone = timeout(PATIENCE, missing).await.unwrap_or(false);
            gone.then_some(state)
        });
        let answers = answers.buffer_unordered(AT_ONCE);
        answers.filter_map(|gone| async { gone }).collect().await
    }

    fn look(&self, state: PathBuf) -> Option<Look> {
        let first = lock(&self.under_way).insert(state.clone());
        first.then(|| Look {
            state,
            under_way: self.under_way.clone(),
        })
    }
}

fn lock(states: &Mutex<BTreeSet<PathBuf>>) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}
