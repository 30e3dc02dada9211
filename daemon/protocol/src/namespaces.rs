//! Namespaces: which are new, which are joined, and what maps and clocks the new ones get.

use serde::{Deserialize, Serialize};

/// The eight namespace types of Linux, by the names of `/proc/PID/ns` (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Mount points: mount_namespaces(7).
    Mnt,
    /// Host and NIS domain name: uts_namespaces(7).
    Uts,
    /// System V IPC and POSIX message queues: ipc_namespaces(7).
    Ipc,
    /// Network devices, stacks, ports: network_namespaces(7).
    Net,
    /// Process ids: pid_namespaces(7).
    Pid,
    /// User and group ids, capabilities: user_namespaces(7).
    User,
    /// The cgroup root directory: cgroup_namespaces(7).
    Cgroup,
    /// Monotonic and boot time clocks: time_namespaces(7).
    Time,
}

impl NamespaceKind {
    /// All eight, in the order in which people list them.
    pub const ALL: [NamespaceKind; 8] = [
        NamespaceKind::Mnt,
        NamespaceKind::Uts,
        NamespaceKind::Ipc,
        NamespaceKind::Net,
        NamespaceKind::Pid,
        NamespaceKind::User,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];

    /// The file name in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            NamespaceKind::Mnt => "mnt",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Net => "net",
            NamespaceKind::Pid => "pid",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}

/// Where one of the container's namespaces comes from. A kind that is not in the plan is the
/// helper's own, which is the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespacePlan {
    /// A fresh one (`clone3` flag, `unshare` for cgroup).
    New,
    /// An existing one: the descriptor at this index beside the launch message.
    Join(usize),
}

/// One line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside the container.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// How many ids.
    pub size: u32,
}

/// A clock that a time namespace has an offset of, by its name in `/proc/PID/timens_offsets`
/// (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeClock {
    /// `CLOCK_MONOTONIC` and its coarse and raw kin.
    Monotonic,
    /// `CLOCK_BOOTTIME` and its kin; what `/proc/uptime` shows.
    Boottime,
}

impl TimeClock {
    /// The name in `/proc/PID/timens_offsets`.
    pub fn name(self) -> &'static str {
        match self {
            TimeClock::Monotonic => "monotonic",
            TimeClock::Boottime => "boottime",
        }
    }
}

/// What a clock of a time namespace is ahead of the host's: `secs` (behind when negative) and
/// then `nanos`, under 1,000,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds beside them.
    #[serde(default)]
    pub nanos: u32,
}
