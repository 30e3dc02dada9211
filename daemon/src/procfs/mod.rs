//! Processes and their use of the machine, from `/proc` and the cgroup filesystems.
//!
//! Synchronous and cheap (some tens of microseconds): called for every `stats` and `top`.

mod parse;
mod process;
mod stats;
mod top;

pub use parse::{
    NetDev, ProcessStat, ProcessStatus, parse_blkio, parse_flat, parse_io_stat, parse_limit,
    parse_net_dev, parse_stat, parse_status,
};
pub(crate) use process::{ProcDir, pids};
pub use process::{boot_id, start_time};
pub use stats::{cpu_percent, stats};
pub use top::top;

#[cfg(test)]
mod tests;
