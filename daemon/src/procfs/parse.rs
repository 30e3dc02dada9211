//! Parsers of `/proc` and cgroup files (proc(5), cgroups(7)). They never panic, whatever a
//! program put into its name; what cannot be read is `None` or left out.

use littlebox_types::{IdMap, NetworkStats, Stall, StallTimes};

/// Fields of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStat {
    /// The kernel's short name.
    pub comm: String,
    /// `R`, `S`, ...
    pub state: char,
    /// Parent.
    pub ppid: u32,
    /// User time, clock ticks.
    pub utime: u64,
    /// System time, clock ticks.
    pub stime: u64,
    /// Threads.
    pub threads: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// Resident pages.
    pub rss_pages: u64,
}

/// Fields of `/proc/PID/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Real user id.
    pub uid: u32,
    /// PIDs from the reader's PID namespace inwards.
    pub ns_pids: Vec<u32>,
}

/// One line of `/proc/PID/net/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDev {
    /// The interface's name.
    pub name: String,
    /// Its counters.
    pub stats: NetworkStats,
}

/// `/proc/PID/stat`. The name in parentheses may itself hold spaces, parentheses and digits: only
/// the last closing one counts.
pub fn parse_stat(text: &str) -> Option<ProcessStat> {
    let (before, rest) = text.rsplit_once(')')?;
    let (_, comm) = before.split_once('(')?;
    // Field 3 of proc_pid_stat(5) is the first one here.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ProcessStat {
        comm: comm.to_owned(),
        state: fields.first()?.chars().next()?,
        ppid: u32::try_from(number(4)?).ok()?,
        utime: number(14)?,
        stime: number(15)?,
        threads: u32::try_from(number(20)?).ok()?,
        start_time: number(22)?,
        rss_pages: number(24)?,
    })
}

/// `/proc/PID/status`. Its `Name:` is escaped by the kernel, so no program can forge a line.
pub fn parse_status(text: &str) -> Option<ProcessStatus> {
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .map(str::trim)
    };
    let uid = field("Uid")?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()?;
    let ns_pids = field("NSpid")
        .map(|pids| {
            pids.split_ascii_whitespace()
                .map_while(|pid| pid.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    Some(ProcessStatus { uid, ns_pids })
}

/// `/proc/PID/net/dev`: two lines of headings, then `name: 8 numbers received, 8 sent`.
pub fn parse_net_dev(text: &str) -> Vec<NetDev> {
    text.lines().filter_map(net_dev_line).collect()
}

fn net_dev_line(line: &str) -> Option<NetDev> {
    let (name, counters) = line.rsplit_once(':')?;
    let counters: Vec<u64> = counters
        .split_ascii_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = *counters
    else {
        return None;
    };
    let stats = NetworkStats {
        rx_bytes,
        tx_bytes,
        rx_packets,
        tx_packets,
        rx_errors,
        tx_errors,
        rx_dropped,
        tx_dropped,
    };
    Some(NetDev {
        name: name.trim().to_owned(),
        stats,
    })
}

/// The value of one key of a flat keyed file (`cpu.stat`, `memory.stat`).
pub fn parse_flat(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// A limit of a cgroup: `None` for `max` (v2) and for the largest value there is (v1 rounds it
/// down to a page).
pub fn parse_limit(text: &str) -> Option<u64> {
    const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;
    text.trim()
        .parse()
        .ok()
        .filter(|limit| *limit < V1_UNLIMITED)
}

/// What all devices did together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// cgroup v2 `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
pub fn parse_io_stat(text: &str) -> IoCounts {
    let sum = |key: &str| {
        let values = text
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key));
        values
            .filter_map(|value| value.parse().ok())
            .fold(0u64, u64::saturating_add)
    };
    IoCounts {
        read: sum("rbytes="),
        written: sum("wbytes="),
        reads: sum("rios="),
        writes: sum("wios="),
    }
}

/// Reads and writes, of all devices (cgroup v1 `blkio.throttle.io_service_bytes` and
/// `io_serviced`: `8:0 Read 1`).
pub fn parse_blkio(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace().skip(1);
                (words.next()? == kind).then(|| words.next()?.parse().ok())?
            })
            .fold(0u64, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

/// `uid_map` and `gid_map` of a process (user_namespaces(7)): inside, outside, how many.
pub fn parse_id_map(text: &str) -> Vec<IdMap> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdMap {
            container_id: next()?,
            host_id: next()?,
            size: next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// A pressure file: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line `full` (of `cpu`
/// since Linux 5.13).
pub fn parse_pressure(text: &str) -> Option<Stall> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = |key: &str| {
            rest.split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(key))
        };
        Some(StallTimes {
            avg10: value("avg10=")?.parse().ok()?,
            avg60: value("avg60=")?.parse().ok()?,
            avg300: value("avg300=")?.parse().ok()?,
            total_us: value("total=")?.parse().ok()?,
        })
    };
    Some(Stall {
        some: line("some ")?,
        full: line("full "),
    })
}
