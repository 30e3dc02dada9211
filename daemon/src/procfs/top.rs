//! The processes of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use littlebox_types::TopProcess;
use rustix::time::ClockId;

use super::parse::parse_status;
use super::process::{ProcDir, ProcessId, pids, read_text};
use crate::time;

/// The processes of the container whose PID 1 is `pid`, by PID: those in its cgroup (and below),
/// without one those in its PID namespace, and where that is the host's, PID 1's descendants. Each with
/// the kernel's short name in brackets instead of its command line.
///
/// # Errors
/// `ENOENT`/`ESRCH` when the container has ended.
pub fn top(
    cgroups: &BTreeMap<String, String>,
    pid: u32,
) -> io::Result<Vec<(TopProcess, ProcessId)>> {
    let init = parse_status(&ProcDir::open(pid)?.read("status")?);
    // How many PID namespaces lie between ours and the container's.
    let level = init.map_or(0, |init| init.ns_pids.len().saturating_sub(1));
    let boot_ns = boot_time_ns();
    let processes = members(cgroups, pid)?;
    // A process that ends meanwhile is left out.
    Ok(processes
        .into_iter()
        .filter_map(|pid| describe(pid, level, boot_ns).ok())
        .collect())
}

fn describe(pid: u32, level: usize, boot_ns: i64) -> io::Result<(TopProcess, ProcessId)> {
    let process = ProcDir::open(pid)?;
    let stat = process.stat()?;
    let status = parse_status(&process.read("status")?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let started = i64::try_from(stat.start_time.saturating_mul(tick_ns())).unwrap_or(i64::MAX);
    let process = TopProcess {
        pid,
        // A process outside the container's PID namespace has no PID there.
        container_pid: status.ns_pids.get(level).copied().unwrap_or(0),
        ppid: stat.ppid,
        uid: status.uid,
        container_uid: status.uid,
        state: stat.state.to_string(),
        threads: stat.threads,
        cpu_ms: (stat.utime.saturating_add(stat.stime)).saturating_mul(tick_ns()) / 1_000_000,
        rss: stat.rss_pages.saturating_mul(page_size()),
        started_at: time::rfc3339(boot_ns.saturating_add(started)),
        command: format!("[{}]", stat.comm),
    };
    let start_time = stat.start_time;
    Ok((process, ProcessId { pid, start_time }))
}

/// Nanoseconds of one clock tick.
pub(super) fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

pub(super) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// When the machine was booted, nanoseconds since the epoch.
fn boot_time_ns() -> i64 {
    let up = rustix::time::clock_gettime(ClockId::Boottime);
    time::now_ns() - up.tv_sec * 1_000_000_000 - up.tv_nsec
}

/// The PIDs of the container's processes.
pub(super) fn members(cgroups: &BTreeMap<String, String>, pid: u32) -> io::Result<BTreeSet<u32>> {
    // The ones that every process of the container is in; each alone is complete.
    let preferred = ["unified", "pids", "freezer"];
    let known = preferred.iter().filter_map(|name| cgroups.get(*name));
    for directory in known.chain(cgroups.values()) {
        let mut members = BTreeSet::new();
        if collect(Path::new(directory), &mut members).is_ok() && members.contains(&pid) {
            return Ok(members);
        }
    }
    in_namespace(pid)
}

/// The processes of a cgroup and of all below it.
fn collect(directory: &Path, members: &mut BTreeSet<u32>) -> io::Result<()> {
    let mut left: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let processes = read_text(directory.join("cgroup.procs"))?;
        members.extend(processes.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    // Processes outside our PID namespace read as 0.
    members.remove(&0);
    Ok(())
}

fn in_namespace(pid: u32) -> io::Result<BTreeSet<u32>> {
    let init = ProcDir::open(pid)?.namespace("pid")?;
    if init == ProcDir::own()?.namespace("pid")? {
        return descendants(pid);
    }
    let inside = |pid: &u32| {
        ProcDir::open(*pid)
            .and_then(|process| process.namespace("pid"))
            .is_ok_and(|ns| ns == init)
    };
    Ok(pids()?.into_iter().filter(inside).collect())
}

fn descendants(pid: u32) -> io::Result<BTreeSet<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for child in pids()? {
        if let Ok(stat) = ProcDir::open(child).and_then(|process| process.stat()) {
            children.entry(stat.ppid).or_default().push(child);
        }
    }
    let mut found = BTreeSet::new();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        if found.insert(pid) {
            left.extend(children.remove(&pid).unwrap_or_default());
        }
    }
    Ok(found)
}
