//! `ps`.

use std::process::Command;

use littlebox_helper::cgroup::Cgroup;

use super::find;
use crate::cli::{ListFormat, Ps};
use crate::error::{Doing, Error, Result};
use crate::output;
use crate::store::Store;

/// Lists the processes of a container, by their PIDs on the host; of one that has stopped, what has
/// outlived its first process.
pub fn run(store: &Store, arguments: &Ps) -> Result<()> {
    let (_, record) = find(store, &arguments.id)?;
    let doing = || "read the processes of the cgroup".to_owned();
    let cgroup = Cgroup::open(&record.cgroup).doing(doing)?;
    let pids = cgroup.processes().doing(doing)?;
    match arguments.format {
        ListFormat::Json => output::line(&serde_json::to_string(&pids).expect("numbers are JSON")),
        ListFormat::Table => table(&pids, &arguments.options),
    }
}

/// The lines of ps(1) about these processes.
fn table(pids: &[u32], options: &[String]) -> Result<()> {
    let defaults = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &defaults
    } else {
        options
    };
    let ps = Command::new("ps")
        .args(options)
        .output()
        .doing(|| "run ps".to_owned())?;
    if !ps.status.success() {
        let said = String::from_utf8_lossy(&ps.stderr);
        return Err(Error::Usage(format!("ps {options:?}: {}", said.trim())));
    }
    let text = String::from_utf8_lossy(&ps.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        return Err(Error::Usage("ps prints no column PID".into()));
    };
    output::line(header)?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column);
        pid.and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: u32| pids.contains(&pid))
    };
    lines.filter(ours).try_for_each(output::line)
}
