//! One measurement of a container.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use littlebox_types::{NetworkStats, Pressure, Stats};

use super::parse::{
    IoCounts, ProcessStat, parse_blkio, parse_flat, parse_io_stat, parse_limit, parse_net_dev,
    parse_pressure,
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
    let throttled = cgroups.throttled();
    Ok(Stats {
        at: time::rfc3339(time::now_ns()),
        cpu_ns: match cgroups.cpu_ns() {
            Some(used) => used,
            None => processes.cpu_ns()?,
        },
        cpu_user_ns: cgroups.cpu_part("user"),
        cpu_system_ns: cgroups.cpu_part("system"),
        cpu_percent: None,
        cpu_periods: throttled.map(|t| t.periods),
        cpu_throttled_periods: throttled.map(|t| t.throttled),
        cpu_throttled_ns: throttled.map(|t| t.time_ns),
        memory,
        memory_cache: cgroups.memory_stat("file", "total_cache"),
        memory_swap: cgroups.memory_swap(),
        memory_peak: cgroups.memory_file("memory.peak", "memory.max_usage_in_bytes"),
        memory_limit: cgroups.memory_limit(),
        oom_kills: cgroups.oom_kills(),
        pids: match cgroups.pids() {
            Some(pids) => pids,
            None => processes.threads()?,
        },
        pids_limit: cgroups
            .read("pids", "pids.max")
            .and_then(|text| parse_limit(&text)),
        io_read: io.map(|io| io.read),
        io_write: io.map(|io| io.written),
        io_read_ops: io.map(|io| io.reads),
        io_write_ops: io.map(|io| io.writes),
        pressure: cgroups.pressure(),
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

    /// `user` or `system`: nanoseconds.
    fn cpu_part(&self, part: &str) -> Option<u64> {
        if let Some(stat) = self.unified("cpu.stat") {
            return Some(parse_flat(&stat, &format!("{part}_usec"))?.saturating_mul(1000));
        }
        let file = match part {
            "user" => "cpuacct.usage_user",
            _ => "cpuacct.usage_sys",
        };
        self.v1("cpuacct", file)?.trim().parse().ok()
    }

    /// Where the host has no `cpu` controller for it: `None`.
    fn throttled(&self) -> Option<Throttled> {
        // A v2 tree beside v1 controllers has the file, but not these lines.
        let v2 = self
            .unified("cpu.stat")
            .filter(|stat| parse_flat(stat, "nr_periods").is_some());
        let (stat, time, unit) = match v2 {
            Some(stat) => (stat, "throttled_usec", 1000),
            None => (self.v1("cpu", "cpu.stat")?, "throttled_time", 1),
        };
        Some(Throttled {
            periods: parse_flat(&stat, "nr_periods")?,
            throttled: parse_flat(&stat, "nr_throttled")?,
            time_ns: parse_flat(&stat, time)?.saturating_mul(unit),
        })
    }

    fn memory_stat(&self, v2: &str, v1: &str) -> Option<u64> {
        if let Some(stat) = self.unified("memory.stat") {
            return parse_flat(&stat, v2);
        }
        parse_flat(&self.v1("memory", "memory.stat")?, v1)
    }

    fn memory_file(&self, v2: &str, v1: &str) -> Option<u64> {
        let text = self.unified(v2).or_else(|| self.v1("memory", v1))?;
        text.trim().parse().ok()
    }

    /// `None` on a host without swap accounting.
    fn memory_swap(&self) -> Option<u64> {
        if let Some(text) = self.unified("memory.swap.current") {
            return text.trim().parse().ok();
        }
        parse_flat(&self.v1("memory", "memory.stat")?, "total_swap")
    }

    fn oom_kills(&self) -> u64 {
        let events = self
            .unified("memory.events")
            .or_else(|| self.v1("memory", "memory.oom_control"));
        events
            .and_then(|text| parse_flat(&text, "oom_kill"))
            .unwrap_or(0)
    }

    fn pressure(&self) -> Option<Pressure> {
        let of = |file: &str| parse_pressure(&self.unified(file)?);
        let pressure = Pressure {
            cpu: of("cpu.pressure"),
            memory: of("memory.pressure"),
            io: of("io.pressure"),
        };
        (pressure != Pressure::default()).then_some(pressure)
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

    /// What was read from and written to block devices.
    fn io(&self) -> Option<IoCounts> {
        if let Some(stat) = self.unified("io.stat") {
            return Some(parse_io_stat(&stat));
        }
        let of = |name: &str| {
            let recursive = format!("blkio.throttle.{name}_recursive");
            let own = format!("blkio.throttle.{name}");
            let text = self
                .v1("blkio", &recursive)
                .or_else(|| self.v1("blkio", &own))?;
            Some(parse_blkio(&text))
        };
        let (read, written) = of("io_service_bytes")?;
        let (reads, writes) = of("io_serviced").unwrap_or_default();
        Some(IoCounts {
            read,
            written,
            reads,
            writes,
        })
    }
}

/// What a limit of CPU time did.
#[derive(Debug, Clone, Copy)]
struct Throttled {
    periods: u64,
    throttled: u64,
    time_ns: u64,
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
