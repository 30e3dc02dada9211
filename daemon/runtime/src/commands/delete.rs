//! `delete`.

use std::os::fd::AsFd;
use std::time::Duration;

use littlebox_helper::cgroup::Cgroup;
use littlebox_helper::sys;
use rustix::io::Errno;

use super::{find, find_locked, run_hooks};
use crate::cli::Delete;
use crate::error::{Doing, Error, Result};
use crate::process::wait_for_end;
use crate::signal::SIGKILL;
use crate::state::State;
use crate::store::{Entry, Record, Status, Store};
use crate::{log, systemd};

/// How long the end of a killed process is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// After which time a killed process is looked at: it may be frozen where this program did not.
const SUSPICION: Duration = Duration::from_millis(100);

/// Removes what is left of a stopped container. One that was created and never started is ended;
/// with `--force` one that runs, too.
pub fn run(store: &Store, arguments: &Delete) -> Result<()> {
    let (entry, record) = match find_to_delete(store, arguments) {
        Err(Error::NotFound(id)) => return not_found(store, id, arguments.force),
        other => other?,
    };
    let status = entry.status(&record)?;
    let may = arguments.force || matches!(status, Status::Stopped | Status::Created);
    if !may && record.process.is_some() {
        return Err(Error::WrongState(format!(
            "cannot delete container {} that is not stopped: {status}",
            entry.id()
        )));
    }
    destroy(&entry, &record)
}

/// Who holds the lock may wait for the container (a `start` for a hook in it). So with `--force` it
/// is ended before the lock is taken, and that wait with it.
fn find_to_delete(store: &Store, arguments: &Delete) -> Result<(Entry, Record)> {
    if !arguments.force {
        return find_locked(store, &arguments.id);
    }
    let (entry, record) = find(store, &arguments.id)?;
    end(&entry, &record)?;
    entry.lock_within(PATIENCE)?;
    // What is left was written by who held it.
    let record = entry.read()?;
    Ok((entry, record))
}

/// A directory without a record is what a `create` that was killed has left.
fn not_found(store: &Store, id: crate::id::Id, force: bool) -> Result<()> {
    match store.open(&id) {
        Ok(entry) => {
            entry.lock_within(PATIENCE)?;
            entry.remove()
        }
        Err(Error::NotFound(_)) if force => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends every process of a container, within a bounded time.
fn end(entry: &Entry, record: &Record) -> Result<Cgroup> {
    let cgroup = Cgroup::open(&record.cgroup).doing(|| "find the cgroup".to_owned())?;
    let kill_all = || {
        cgroup
            .kill_all()
            .doing(|| "end the processes of the cgroup".to_owned())
    };
    let Some(process) = &record.process else {
        kill_all()?;
        return Ok(cgroup);
    };
    let pid = process.pid;
    let pidfd = match process.open() {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => {
            kill_all()?;
            return Ok(cgroup);
        }
        Err(errno) => return Err(errno).doing(|| format!("open process {pid}")),
    };
    match sys::pidfd_send_signal(pidfd.as_fd(), SIGKILL) {
        // It ended in this moment.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(errno).doing(|| format!("kill process {pid}")),
    }
    // Some of them may be where they cannot be frozen, for the v1 kill; the wait tells.
    let killed = kill_all();
    let wait = |time| wait_for_end(&pidfd, time).doing(|| format!("wait for process {pid}"));
    if wait(SUSPICION)? {
        return killed.map(|()| cgroup);
    }
    cgroup
        .leave_foreign_freezers(Some(pid))
        .doing(|| "take the processes out of a frozen cgroup".to_owned())?;
    if wait(PATIENCE)? {
        kill_all()?;
        return Ok(cgroup);
    }
    Err(Error::WrongState(format!(
        "process {pid} of container {} was killed and does not end",
        entry.id()
    )))
}

/// Ends every process of a container, removes its cgroup and its directory, and runs its `poststop`
/// hooks; those that fail are a warning (OCI runtime.md, "Lifecycle", step 13).
pub fn destroy(entry: &Entry, record: &Record) -> Result<()> {
    let cgroup = end(entry, record)?;
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
