//! `pause` and `resume`.

use littlebox_helper::cgroup::Cgroup;
use littlebox_protocol::bounds;

use super::find_locked;
use crate::error::{Doing, Error, Result};
use crate::store::{Status, Store};

/// Freezes all processes of a container.
pub fn pause(store: &Store, id: &str) -> Result<()> {
    set(store, id, true)
}

/// Lets them go on.
pub fn resume(store: &Store, id: &str) -> Result<()> {
    set(store, id, false)
}

fn set(store: &Store, id: &str, frozen: bool) -> Result<()> {
    let (entry, record) = find_locked(store, id)?;
    let (what, status) = (
        if frozen { "pause" } else { "resume" },
        entry.status(&record)?,
    );
    match (frozen, status) {
        (true, Status::Running | Status::Created) | (false, Status::Paused) => {}
        (_, Status::Stopped) => return Err(Error::NotRunning(entry.id().clone())),
        _ => return Err(Error::wrong_state(what, entry.id(), status)),
    }
    let cgroup = Cgroup::open(&record.cgroup).doing(|| "find the cgroup".to_owned())?;
    cgroup
        .set_frozen(frozen, bounds::FREEZE)
        .doing(|| format!("{what} the cgroup"))
}
