//! Parts of a container's configuration that say how closed it is.

use serde::{Deserialize, Serialize};

/// What a container with `masked_paths` absent cannot read: what tells of the host's hardware, keys
/// and timing, and side channels (power, interrupts). On a machine whose CPUs tell of their thermal
/// throttling, those files as well.
pub const DEFAULT_MASKED_PATHS: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// What a container with `readonly_paths` absent cannot write: the kernel's own switches.
pub const DEFAULT_READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the clocks of a new time namespace are ahead of the host's (time_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeOffsets {
    /// `CLOCK_MONOTONIC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monotonic: Option<TimeOffset>,
    /// `CLOCK_BOOTTIME`, which `/proc/uptime` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boottime: Option<TimeOffset>,
}

/// `secs` seconds, behind when negative, and then `nanos` nanoseconds ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Under 1,000,000,000.
    #[serde(default)]
    pub nanos: u32,
}

/// A device of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// Absolute host path of a device node, or of a directory: then every node below it.
    pub path: String,
    /// Absolute container path below `/dev`; `path` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path: Option<String>,
    /// What the container may do: of `r` read, `w` write, `m` mknod; `rwm` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
}
