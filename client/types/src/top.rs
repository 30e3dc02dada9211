//! The processes of a container.

use serde::{Deserialize, Serialize};

/// One process of `GET .../top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopProcess {
    /// PID on the host.
    pub pid: u32,
    /// PID inside the container.
    pub container_pid: u32,
    /// Parent's PID on the host.
    pub ppid: u32,
    /// User id on the host.
    pub uid: u32,
    /// User id inside the container.
    pub container_uid: u32,
    /// `R`, `S`, `D`, ...
    pub state: String,
    /// Threads.
    pub threads: u32,
    /// CPU time used, milliseconds.
    pub cpu_ms: u64,
    /// Resident set, bytes.
    pub rss: u64,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// argv joined by spaces (or the kernel's short name in brackets).
    pub command: String,
}

/// `GET .../top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// The processes, by PID.
    pub processes: Vec<TopProcess>,
}
