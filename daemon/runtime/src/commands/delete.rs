//! `delete`.

use std::time::Duration;

use littlebox_helper::cgroup::Cgroup;

use super::{find_locked, run_hooks};
use crate::cli::Delete;
use crate::error::{Doing, Error, Result};
use crate::process::wait_for_end;
use crate::signal::SIGKILL;
use crate::state::State;
use crate::store::{Entry, Record, Status, Store};
use crate::{log, systemd};

/// How long the end of a killed process is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes what is left of a stopped container. One that was created and never started is ended;
/// with `--force` one that runs, too.
pub fn run(store: &Store, arguments: &Delete) -> Result<()> {
    let (entry, record) = match find_locked(store, &arguments.id) {
        Err(Error::NotFound(id)) => return not_found(store, id, arguments.force),
        other => other?,
    };
    let status = entry.status(&record);
    let may = arguments.force || matches!(status, Status::Stopped | Status::Created);
    if !may && record.process.is_some() {
        return Err(Error::WrongState(format!(
            "cannot delete container {} that is not stopped: {status}",
            entry.id()
        )));
    }
    destroy(&entry, &record)
}

/// A directory without a record is what a `create` that was killed has left.
fn not_found(store: &Store, id: crate::id::Id, force: bool) -> Result<()> {
    match store.open(&id) {
        Ok(entry) => {
            entry.lock()?;
            entry.remove()
        }
        Err(_) if force => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends every process of a container, removes its cgroup and its directory, and runs its `poststop`
/// hooks; those that fail are a warning (OCI runtime.md, "Lifecycle", step 13).
pub fn destroy(entry: &Entry, record: &Record) -> Result<()> {
    let cgroup = Cgroup::open(&record.cgroup).doing(|| "find the cgroup".to_owned())?;
    if let Some(process) = &record.process
        && let Ok(pidfd) = process.open()
    {
        // It may end in this moment.
        let _ = process.signal(SIGKILL);
        cgroup
            .kill_all()
            .doing(|| "end the processes of the cgroup".to_owned())?;
        if !wait_for_end(&pidfd, PATIENCE) {
            let pid = process.pid;
            return Err(Error::WrongState(format!(
                "process {pid} of container {} was killed and does not end",
                entry.id()
            )));
        }
    } else {
        cgroup
            .kill_all()
            .doing(|| "end the processes of the cgroup".to_owned())?;
    }
    cgroup.remove().doing(|| "remove the cgroup".to_owned())?;
    if let Some(unit) = &record.scope {
        systemd::stop(unit, record.cgroup.path.as_deref());
    }
    entry.remove()?;
    let state = State::new(entry.id(), record, "stopped", None).json();
    for hook in &record.hooks.poststop {
        if let Err(error) = run_hooks("poststop", std::slice::from_ref(hook), &state) {
            log::warn(&error.to_string());
        }
    }
    Ok(())
}
