//! What is true of a container's helper.
//!
//! Four answers and no fifth: it lives, it has ended and left a record, there is none, or it cannot
//! be told. Only `ENOENT` and `ECONNREFUSED` of its path socket mean that there is none (unix(7)):
//! whatever else fails (no descriptors, no memory, a disk) fails here and not in the container, and
//! is asked again.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use littlebox_protocol::{
    Call, EXIT_RECORD, Event, ExitRecord, HELPER_SOCKET, HELPER_SOCKET_UNREADY, PROTOCOL_VERSION,
    Reply, Status,
};
use littlebox_types::{ContainerId, HelperCondition};
use tokio::time::Instant;

use crate::engine::record::read_exit_record;
use crate::paths::Paths;
use crate::supervisor::{Helper, HelperError, Listener, Supervisor};

/// How long a helper may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A helper that answers.
    Alive(Box<Alive>),
    /// Its container has ended.
    Ended(ExitRecord),
    /// There is no helper, and none will come.
    Absent,
    /// There may be one (this process, where it could be connected to), and its container may run.
    Unclear(HelperCondition, Option<u32>),
}

/// A connection to a helper, whose events wait until somebody wants them.
#[derive(Debug)]
pub(super) struct Alive {
    pub helper: Helper,
    pub status: Status,
    /// Of the container's PID 1.
    pub pidfd: Option<OwnedFd>,
    pub events: Arc<Held>,
    /// The task that reads the connection; it ends with this unless it is let go.
    reading: Reading,
}

impl Alive {
    /// Gives the events to a listener, those first that have come already.
    pub fn listen(self, listener: impl Listener) {
        self.events.give_to(Box::new(listener));
        self.reading.let_go();
    }
}

/// Asks until there is an answer, or the time is up.
pub(super) async fn ask(paths: &Paths, id: ContainerId) -> Found {
    let run_dir = paths.run_dir(id);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    let (mut why, mut pid) = (None, None);
    loop {
        match tokio::time::timeout_at(deadline, look(&run_dir, id, &mut pid)).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => why = Some(error),
            Err(_elapsed) => break,
        }
        if Instant::now() + pause > deadline {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let why = why.map(|e| e.to_string()).unwrap_or_default();
    tracing::warn!(%id, why, "a helper does not answer");
    Found::Unclear(HelperCondition::Silent, pid)
}

/// One look. An error says nothing about the helper. `pid` becomes that of who listens.
async fn look(run_dir: &Path, id: ContainerId, pid: &mut Option<u32>) -> io::Result<Found> {
    let (helper, incoming) = match Supervisor::reconnect(run_dir) {
        Ok(connection) => connection,
        Err(e) if e.kind() == ErrorKind::NotFound => return nobody_listens(run_dir),
        // A helper listens before its socket has this name: whoever did is dead.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => return dead(run_dir),
        Err(e) => return Err(e),
    };
    *pid = helper.pid();
    let events = Arc::new(Held::default());
    let reading = Reading(Some(
        tokio::spawn(incoming.run(events.clone())).abort_handle(),
    ));
    let (status, mut fds) = match helper.call(Call::Status).await {
        Ok((Reply::Status(status), fds)) => (*status, fds),
        Ok(_) | Err(HelperError::Protocol) => return Ok(foreign(id, None, *pid)),
        Err(HelperError::Step(f)) if f.errno != 0 => {
            return Err(io::Error::from_raw_os_error(f.errno));
        }
        Err(HelperError::Step(_)) => return Ok(foreign(id, None, *pid)),
        // It may have ended in this moment.
        Err(error @ (HelperError::Gone | HelperError::Silent)) => {
            return Err(io::Error::other(error));
        }
        Err(HelperError::Io(e)) => return Err(e),
    };
    if status.version != PROTOCOL_VERSION || status.id != id.to_string() {
        return Ok(foreign(id, Some(status.version), *pid));
    }
    if let Some(record) = status.exit {
        return Ok(Found::Ended(record));
    }
    let pidfd = fds.pop();
    Ok(Found::Alive(Box::new(Alive {
        helper,
        status,
        pidfd,
        events,
        reading,
    })))
}

fn foreign(id: ContainerId, version: Option<u32>, pid: Option<u32>) -> Found {
    tracing::warn!(%id, ?version, ours = PROTOCOL_VERSION, "a helper of another version");
    Found::Unclear(HelperCondition::Foreign, pid)
}

/// The helper's socket is there, and nobody listens.
fn dead(run_dir: &Path) -> io::Result<Found> {
    let record = read_exit_record(&run_dir.join(EXIT_RECORD))?;
    Ok(record.map_or(Found::Absent, Found::Ended))
}

/// There is no socket: the helper has ended, or was never there, or is being born. What is in its
/// directory tells, and an empty directory is taken away, so that a helper which comes yet finds no
/// place to listen, and gives up before it has made anything.
fn nobody_listens(run_dir: &Path) -> io::Result<Found> {
    if let Found::Ended(record) = dead(run_dir)? {
        return Ok(Found::Ended(record));
    }
    match std::fs::remove_file(run_dir.join(HELPER_SOCKET_UNREADY)) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match std::fs::remove_dir(run_dir) {
        Ok(()) => Ok(Found::Absent),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Found::Absent),
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {
            let born = run_dir.join(HELPER_SOCKET).symlink_metadata().is_ok();
            let born = born || run_dir.join(EXIT_RECORD).symlink_metadata().is_ok();
            // Records of execs: a helper has lived here, and does no more.
            if born { Err(e) } else { Ok(Found::Absent) }
        }
        Err(e) => Err(e),
    }
}

/// Keeps what a helper tells until there is somebody to be told: what it says beside its first
/// answer must not meet a half-known state.
#[derive(Default)]
pub(super) struct Held(Mutex<Holding>);

#[derive(Default)]
struct Holding {
    events: Vec<Event>,
    lost: bool,
    listener: Option<Box<dyn Listener>>,
}

impl Held {
    fn holding(&self) -> std::sync::MutexGuard<'_, Holding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_to(&self, listener: Box<dyn Listener>) {
        let mut holding = self.holding();
        for event in holding.events.drain(..) {
            listener.event(event);
        }
        if holding.lost {
            listener.lost();
        }
        holding.listener = Some(listener);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Listener for Arc<Held> {
    fn event(&self, event: Event) {
        let mut holding = self.holding();
        match &holding.listener {
            Some(listener) => listener.event(event),
            None => holding.events.push(event),
        }
    }

    fn lost(&self) {
        let mut holding = self.holding();
        match &holding.listener {
            Some(listener) => listener.lost(),
            None => holding.lost = true,
        }
    }
}

/// The task that reads a connection. Aborted when it is dropped: a connection that is given up
/// takes none of the few places that a helper has.
#[derive(Debug)]
struct Reading(Option<tokio::task::AbortHandle>);

impl Reading {
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
