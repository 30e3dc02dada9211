//! Processes and their use of the machine, from `/proc` and the cgroup filesystems.
//!
//! Synchronous and cheap (some tens of microseconds): called for every `stats` and `top`.

mod parse;
mod process;
mod stats;
mod top;

pub use parse::{
    IoCounts, NetDev, ProcessStat, ProcessStatus, parse_blkio, parse_flat, parse_id_map,
    parse_io_stat, parse_limit, parse_net_dev, parse_pressure, parse_stat, parse_status,
};
pub(crate) use process::{ProcDir, pids};
pub use process::{ProcessId, boot_id, start_time};
pub use stats::{cpu_percent, stats};
pub use top::top;

/// `/proc/PID/uid_map` or `gid_map`: the ids of a user namespace as they are on the host.
pub fn id_map(path: &str) -> std::io::Result<Vec<littlebox_types::IdMap>> {
    Ok(parse_id_map(&std::fs::read_to_string(path)?))
}

#[cfg(test)]
mod tests;
