//! One measurement of a container.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use lbctl::types::{NetworkStats, Stats};

use super::parse::{
    ProcessStat, parse_blkio, parse_flat, parse_io_stat, parse_limit, parse_net_dev,
};
use super::process::{ProcDir, read_text};
use super::top::{members, page_size, tick_ns};
use crate::time;

/// Measures a container: from its cgroups (v2, then v1, by controller: absolute directories),
/// else from its processes. `cpu_percent` is left empty: see [`cpu_percent`].
///
/// # Errors
/// `ENOENT`/`ESRCH` when the container has ended.
pub fn stats(cgroups: &BTreeMap<String, String>, pid: u32) -> io::Result<Stats> {
    let init = ProcDir::open(pid)?;
    let cgroups = Cgroups(cgroups);
    let mut processes = Processes::new(cgroups.0, pid);
    let (memory, source) = match cgroups.memory() {
        Some(found) => found,
        None => (processes.memory()?, "proc"),
    };
    let io = cgroups.io();
    Ok(Stats {
        at: time::rfc3339(time::now_ns()),
        cpu_ns: match cgroups.cpu_ns() {
            Some(used) => used,
            None => processes.cpu_ns()?,
        },
        cpu_percent: None,
        memory,
        memory_limit: cgroups.memory_limit(),
        pids: match cgroups.pids() {
            Some(pids) => pids,
            None => processes.threads()?,
        },
        pids_limit: cgroups
            .read("pids", "pids.max")
            .and_then(|text| parse_limit(&text)),
        io_read: io.map(|(read, _)| read),
        io_write: io.map(|(_, written)| written),
        networks: networks(&init)?,
        source: source.to_owned(),
    })
}

/// CPU used between two measurements, percent of one CPU.
pub fn cpu_percent(earlier_cpu_ns: u64, later_cpu_ns: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    let used = Duration::from_nanos(later_cpu_ns.saturating_sub(earlier_cpu_ns));
    used.as_secs_f64() / elapsed.as_secs_f64() * 100.0
}

/// The container's cgroup directories, by controller; `unified` is the v2 one.
struct Cgroups<'a>(&'a BTreeMap<String, String>);

impl Cgroups<'_> {
    /// A file of the v2 directory.
    fn unified(&self, file: &str) -> Option<String> {
        read_text(Path::new(self.0.get("unified")?).join(file)).ok()
    }

    /// A file of a v1 controller's directory, which may be shared (`cpu,cpuacct`).
    fn v1(&self, controller: &str, file: &str) -> Option<String> {
        let named = |key: &String| key.split(',').any(|name| name == controller);
        let (_, directory) = self.0.iter().find(|(key, _)| named(key))?;
        read_text(Path::new(directory).join(file)).ok()
    }

    /// A file that v2 and v1 have alike.
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        self.unified(file).or_else(|| self.v1(controller, file))
    }

    fn cpu_ns(&self) -> Option<u64> {
        if let Some(stat) = self.unified("cpu.stat") {
            return Some(parse_flat(&stat, "usage_usec")?.saturating_mul(1000));
        }
        self.v1("cpuacct", "cpuacct.usage")?.trim().parse().ok()
    }

    /// What is used beyond the page cache that can be dropped at once, and who says so.
    fn memory(&self) -> Option<(u64, &'static str)> {
        if let Some(current) = self.unified("memory.current") {
            let cache = parse_flat(&self.unified("memory.stat")?, "inactive_file")?;
            let current: u64 = current.trim().parse().ok()?;
            return Some((current.saturating_sub(cache), "cgroup2"));
        }
        let current: u64 = self
            .v1("memory", "memory.usage_in_bytes")?
            .trim()
            .parse()
            .ok()?;
        let cache = parse_flat(&self.v1("memory", "memory.stat")?, "total_inactive_file")?;
        Some((current.saturating_sub(cache), "cgroup1"))
    }

    fn memory_limit(&self) -> Option<u64> {
        let limit = self.unified("memory.max");
        parse_limit(&limit.or_else(|| self.v1("memory", "memory.limit_in_bytes"))?)
    }

    fn pids(&self) -> Option<u64> {
        self.read("pids", "pids.current")?.trim().parse().ok()
    }

    /// Bytes read from and written to block devices.
    fn io(&self) -> Option<(u64, u64)> {
        if let Some(stat) = self.unified("io.stat") {
            return Some(parse_io_stat(&stat));
        }
        let files = [
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ];
        files
            .iter()
            .find_map(|file| Some(parse_blkio(&self.v1("blkio", file)?)))
    }
}

/// The container's processes, read when the first number is needed that no cgroup has.
struct Processes<'a> {
    cgroups: &'a BTreeMap<String, String>,
    pid: u32,
    stats: Option<Vec<ProcessStat>>,
}

impl<'a> Processes<'a> {
    fn new(cgroups: &'a BTreeMap<String, String>, pid: u32) -> Self {
        Self {
            cgroups,
            pid,
            stats: None,
        }
    }

    fn sum(&mut self, of: impl Fn(&ProcessStat) -> u64) -> io::Result<u64> {
        if self.stats.is_none() {
            let pids = members(self.cgroups, self.pid)?;
            let stat = |pid: u32| ProcDir::open(pid)?.stat();
            self.stats = Some(pids.into_iter().filter_map(|pid| stat(pid).ok()).collect());
        }
        let stats = self.stats.iter().flatten();
        Ok(stats.map(of).fold(0, u64::saturating_add))
    }

    fn memory(&mut self) -> io::Result<u64> {
        self.sum(|stat| stat.rss_pages.saturating_mul(page_size()))
    }

    fn cpu_ns(&mut self) -> io::Result<u64> {
        self.sum(|stat| {
            stat.utime
                .saturating_add(stat.stime)
                .saturating_mul(tick_ns())
        })
    }

    fn threads(&mut self) -> io::Result<u64> {
        self.sum(|stat| u64::from(stat.threads))
    }
}

/// The interfaces of the container's own network namespace; none when it has the host's, whose
/// traffic is not the container's.
fn networks(init: &ProcDir) -> io::Result<BTreeMap<String, NetworkStats>> {
    if init.namespace("net")? == ProcDir::own()?.namespace("net")? {
        return Ok(BTreeMap::new());
    }
    let devices = parse_net_dev(&init.read("net/dev")?);
    Ok(devices
        .into_iter()
        .map(|device| (device.name, device.stats))
        .collect())
}
