//! `start`.

use std::os::fd::OwnedFd;

use littlebox_helper::build::agent;
use littlebox_helper::build::gate::{self, GateError};
use littlebox_protocol::Step;

use super::{delete, find_locked, run_hooks};
use crate::error::{Error, Result};
use crate::state::State;
use crate::store::{Entry, Record, Status, Store};

/// Executes the program of a created container.
pub fn run(store: &Store, id: &str) -> Result<()> {
    let (entry, record) = find_locked(store, id)?;
    let status = entry.status(&record)?;
    let refused = |why: &str| Err(Error::WrongState(format!("{why}: {id}")));
    match status {
        Status::Created => {}
        Status::Stopped => return refused("cannot start a container that has stopped"),
        Status::Running => return refused("cannot start an already running container"),
        Status::Creating | Status::Paused => {
            return Err(Error::wrong_state("start", entry.id(), status));
        }
    }
    match gate::open(entry.dir(), connect_agent(&record)?) {
        Ok(()) => {}
        Err(GateError::NotWaiting) => return refused("cannot start a container that has stopped"),
        Err(GateError::Failed(failure)) => return Err(failure.into()),
    }
    // Other commands may come now, a poststart hook's among them.
    entry.unlock();
    poststart(&entry, &record)
}

/// The seccomp agent, once for each filter that the start loads. Where it cannot be reached, the container
/// still waits for its start.
fn connect_agent(record: &Record) -> Result<Vec<OwnedFd>> {
    let Some(path) = &record.agent else {
        return Ok(Vec::new());
    };
    let filters = 0..=record.hooks.start_container.len();
    let connections = filters.map(|_| agent::connect(path, None));
    let connections = connections.collect::<std::result::Result<_, _>>();
    connections.map_err(|fault| fault.of_step(Step::Seccomp).into())
}

/// The hooks that come when the program runs. One that fails ends the container, and it is undone
/// with its `poststop` hooks (OCI runtime.md, "Lifecycle", steps 9, 12 and 13).
pub fn poststart(entry: &Entry, record: &Record) -> Result<()> {
    if record.hooks.poststart.is_empty() {
        return Ok(());
    }
    let pid = record.process.map(|process| process.pid);
    let state = State::new(entry.id(), record, "running", pid).json();
    run_hooks("poststart", &record.hooks.poststart, &state).inspect_err(|_| {
        // The hook's error is the one to tell.
        let _ = entry.lock().and_then(|()| delete::destroy(entry, record));
    })
}
