//! `events`.

use std::time::Duration;

use littlebox_helper::cgroup::Cgroup;
use rustix::io::Errno;
use serde::Serialize;
use serde_json::Value;

use super::find;
use crate::cli::Events;
use crate::error::{Doing, Error, Result};
use crate::process::wait_for_end;
use crate::store::{Status, Store};
use crate::{output, stats};

/// One event, its members in runc's order: some readers look at the text.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl Event<'_> {
    fn print(&self) -> Result<()> {
        output::line(&serde_json::to_string(self).expect("strings and numbers are JSON"))
    }
}

/// Prints statistics as runc does: once with `--stats`, else every `--interval` until the container
/// has ended, and an `oom` event whenever the OOM killer was there.
pub fn run(store: &Store, arguments: &Events) -> Result<()> {
    let interval = interval(&arguments.interval)?;
    let (entry, record) = find(store, &arguments.id)?;
    if entry.status(&record)? == Status::Stopped {
        return Err(Error::NotRunning(entry.id().clone()));
    }
    let cgroup = Cgroup::open(&record.cgroup).doing(|| "find the cgroup".to_owned())?;
    let id = entry.id().as_str();
    let print = || {
        let event = Event {
            kind: "stats",
            id,
            data: Some(stats::read(&cgroup)),
        };
        event.print()
    };
    if arguments.stats {
        return print();
    }
    let ended = || Error::NotRunning(entry.id().clone());
    let process = record.process.ok_or_else(ended)?;
    let pidfd = match process.open() {
        Err(Errno::SRCH) => return Err(ended()),
        other => other.doing(|| format!("open process {}", process.pid))?,
    };
    let mut oom_kills = cgroup.oom_kills();
    loop {
        let ended = wait_for_end(&pidfd, interval).doing(|| "wait for the end".to_owned())?;
        if cgroup.oom_kills() > oom_kills {
            oom_kills = cgroup.oom_kills();
            let event = Event {
                kind: "oom",
                id,
                data: None,
            };
            event.print()?;
        }
        if ended {
            return Ok(());
        }
        print()?;
    }
}

/// `5s`, `500ms`, `1m`, as Go writes durations.
fn interval(text: &str) -> Result<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*ms)
    });
    match parsed {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(Error::Usage(format!(
            "--interval {text:?}: a time above zero, as 5s or 500ms"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos_durations() {
        assert_eq!(interval("5s").expect("good"), Duration::from_secs(5));
        assert_eq!(interval("250ms").expect("good"), Duration::from_millis(250));
        for bad in ["", "5", "0s", "-1s", "s", "99999999999999999999s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
