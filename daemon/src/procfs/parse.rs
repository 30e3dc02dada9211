//! Parsers of `/proc` and cgroup files (proc(5), cgroups(7)). They never panic, whatever a
//! program put into its name; what cannot be read is `None` or left out.

use lbctl::types::NetworkStats;

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

/// `/proc/PID/stat`.
pub fn parse_stat(_text: &str) -> Option<ProcessStat> {
    unimplemented!()
}

/// `/proc/PID/status`.
pub fn parse_status(_text: &str) -> Option<ProcessStatus> {
    unimplemented!()
}

/// `/proc/PID/net/dev`.
pub fn parse_net_dev(_text: &str) -> Vec<NetDev> {
    unimplemented!()
}

/// The value of one key of a flat keyed file (`cpu.stat`, `memory.stat`).
pub fn parse_flat(_text: &str, _key: &str) -> Option<u64> {
    unimplemented!()
}

/// Bytes read and written, of all devices (cgroup v2 `io.stat`).
pub fn parse_io_stat(_text: &str) -> (u64, u64) {
    unimplemented!()
}
