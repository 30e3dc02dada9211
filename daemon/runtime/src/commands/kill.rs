//! `kill`.

use littlebox_helper::cgroup::Cgroup;
use rustix::io::Errno;

use super::find;
use crate::cli::Kill;
use crate::error::{Doing, Error, Result};
use crate::signal;
use crate::signal::SIGKILL;
use crate::store::{Entry, Record, Status, Store};

/// Sends a signal to a container's process, or to all of them.
pub fn run(store: &Store, arguments: &Kill) -> Result<()> {
    let signal = signal::parse(&arguments.signal)?;
    let (entry, record) = find(store, &arguments.id)?;
    let status = entry.status(&record)?;
    if arguments.all {
        return to_all(&record, signal);
    }
    if signal == SIGKILL && record.process.is_some() {
        return end(&entry, &record, status);
    }
    if status == Status::Stopped || status == Status::Creating {
        return Err(Error::NotRunning(entry.id().clone()));
    }
    to_process(&entry, &record, signal)
}

/// Ends a container as a whole, whether its PID namespace ends with its process or it has none of its
/// own. There, processes that outlive the first one are still to be ended; where none is left, there is
/// nothing to kill.
fn end(entry: &Entry, record: &Record, status: Status) -> Result<()> {
    let doing = || "end the processes of the cgroup".to_owned();
    let cgroup = Cgroup::open(&record.cgroup).doing(doing)?;
    if status == Status::Stopped {
        return match cgroup.processes().doing(doing)?.is_empty() {
            true => Err(Error::NotRunning(entry.id().clone())),
            false => cgroup.kill_all().doing(doing),
        };
    }
    to_process(entry, record, SIGKILL)?;
    cgroup.kill_all().doing(doing)?;
    if status == Status::Paused {
        // On v1 a frozen process dies only when it is thawed.
        cgroup.thaw().doing(|| "thaw the cgroup".to_owned())?;
    }
    Ok(())
}

fn to_process(entry: &Entry, record: &Record, signal: i32) -> Result<()> {
    let Some(process) = &record.process else {
        return Err(Error::NotRunning(entry.id().clone()));
    };
    match process.signal(signal) {
        Err(Errno::SRCH) => Err(Error::NotRunning(entry.id().clone())),
        other => other.doing(|| format!("signal process {}", process.pid)),
    }
}

/// What is left of a container without a PID namespace of its own outlives its process: there is no
/// state in which this is an error.
fn to_all(record: &Record, signal: i32) -> Result<()> {
    let doing = || "signal the processes of the cgroup".to_owned();
    let cgroup = Cgroup::open(&record.cgroup).doing(doing)?;
    if signal == SIGKILL {
        return cgroup.kill_all().doing(doing);
    }
    cgroup.signal_all(signal).doing(doing)
}
