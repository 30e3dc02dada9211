//! Limits and what is measured against them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Limits. Absent: no limit, except `pids_limit`, which is 2048.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 for unlimited swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// Bytes, soft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
    /// Bytes above which the container is slowed down and its memory reclaimed (cgroup v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<u64>,
    /// 0 to 100 (cgroup v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// CPUs, e.g. 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Microseconds of CPU time per period; instead of `cpus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota_us: Option<u64>,
    /// Microseconds; 100,000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period_us: Option<u64>,
    /// 1 to 10,000; 100 is normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u64>,
    /// `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// `0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Share of block devices against others, 1 to 10,000; 100 is normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u64>,
    /// Rates of block devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_limits: Vec<IoLimit>,
    /// Bytes of huge pages by their size, `2MB` style.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hugetlb: BTreeMap<String, u64>,
    /// Files of the container's cgroup and what is written into them (cgroup v2), e.g.
    /// `memory.oom.group: "1"`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

/// Rates of one block device; absent values are unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoLimit {
    /// Absolute path of the device's node on the host, or `MAJOR:MINOR`. A whole disk: the kernel
    /// has no rates of partitions.
    pub device: String,
    /// Bytes read per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<u64>,
    /// Reads per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    /// Writes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
}

/// Changes to [`Resources`]: what is absent stays, `null` lifts a limit, lists and maps are replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesPatch {
    /// As [`Resources::memory`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub memory: LimitChange<u64>,
    /// As [`Resources::memory_swap`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub memory_swap: LimitChange<i64>,
    /// As [`Resources::memory_reservation`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub memory_reservation: LimitChange<u64>,
    /// As [`Resources::memory_high`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub memory_high: LimitChange<u64>,
    /// As [`Resources::memory_swappiness`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub memory_swappiness: LimitChange<u64>,
    /// As [`Resources::cpus`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpus: LimitChange<f64>,
    /// As [`Resources::cpu_quota_us`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpu_quota_us: LimitChange<u64>,
    /// As [`Resources::cpu_period_us`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpu_period_us: LimitChange<u64>,
    /// As [`Resources::cpu_weight`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpu_weight: LimitChange<u64>,
    /// As [`Resources::cpuset_cpus`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpuset_cpus: LimitChange<String>,
    /// As [`Resources::cpuset_mems`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub cpuset_mems: LimitChange<String>,
    /// As [`Resources::pids_limit`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub pids_limit: LimitChange<i64>,
    /// As [`Resources::io_weight`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub io_weight: LimitChange<u64>,
    /// As [`Resources::io_limits`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub io_limits: LimitChange<Vec<IoLimit>>,
    /// As [`Resources::hugetlb`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub hugetlb: LimitChange<BTreeMap<String, u64>>,
    /// As [`Resources::unified`].
    #[serde(skip_serializing_if = "LimitChange::is_keep")]
    pub unified: LimitChange<BTreeMap<String, String>>,
}

impl ResourcesPatch {
    /// The limits that come of changing `old`.
    pub fn apply(&self, old: &Resources) -> Resources {
        let old = old.clone();
        Resources {
            memory: self.memory.of(old.memory),
            memory_swap: self.memory_swap.of(old.memory_swap),
            memory_reservation: self.memory_reservation.of(old.memory_reservation),
            memory_high: self.memory_high.of(old.memory_high),
            memory_swappiness: self.memory_swappiness.of(old.memory_swappiness),
            cpus: self.cpus.of(old.cpus),
            cpu_quota_us: self.cpu_quota_us.of(old.cpu_quota_us),
            cpu_period_us: self.cpu_period_us.of(old.cpu_period_us),
            cpu_weight: self.cpu_weight.of(old.cpu_weight),
            cpuset_cpus: self.cpuset_cpus.of(old.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.of(old.cpuset_mems),
            pids_limit: self.pids_limit.of(old.pids_limit),
            io_weight: self.io_weight.of(old.io_weight),
            io_limits: self.io_limits.of(Some(old.io_limits)).unwrap_or_default(),
            hugetlb: self.hugetlb.of(Some(old.hugetlb)).unwrap_or_default(),
            unified: self.unified.of(Some(old.unified)).unwrap_or_default(),
        }
    }
}

/// One value of a patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LimitChange<T> {
    /// Absent: as it is.
    #[default]
    Keep,
    /// `null`: back to the default.
    Lift,
    /// A new value.
    Set(T),
}

impl<T: Clone> LimitChange<T> {
    /// The value after the change.
    fn of(&self, old: Option<T>) -> Option<T> {
        match self {
            LimitChange::Keep => old,
            LimitChange::Lift => None,
            LimitChange::Set(value) => Some(value.clone()),
        }
    }
}

impl<T> LimitChange<T> {
    /// Whether nothing is to change.
    pub fn is_keep(&self) -> bool {
        matches!(self, LimitChange::Keep)
    }
}

impl<T> From<Option<T>> for LimitChange<T> {
    /// No value is no change.
    fn from(value: Option<T>) -> Self {
        value.map_or(LimitChange::Keep, LimitChange::Set)
    }
}

impl<T: Serialize> Serialize for LimitChange<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LimitChange::Keep | LimitChange::Lift => serializer.serialize_none(),
            LimitChange::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LimitChange<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<T>::deserialize(deserializer)?;
        Ok(value.map_or(LimitChange::Lift, LimitChange::Set))
    }
}

/// One measurement of `GET .../stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// When, RFC 3339.
    pub at: String,
    /// CPU time used since the start, nanoseconds.
    pub cpu_ns: u64,
    /// The part of it in programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_ns: Option<u64>,
    /// The part of it in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_ns: Option<u64>,
    /// CPU used since the last measurement of this stream, percent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Scheduling periods with a limit of CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_periods: Option<u64>,
    /// Those of them in which the limit was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_periods: Option<u64>,
    /// How long processes had to wait for it, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_ns: Option<u64>,
    /// Memory without reclaimable cache, bytes.
    pub memory: u64,
    /// Cache of files, bytes, reclaimable or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cache: Option<u64>,
    /// Swap in use, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<u64>,
    /// The most memory that was in use at once, cache included, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// The limit, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// The limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Bytes written to block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write: Option<u64>,
    /// Reads of block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_ops: Option<u64>,
    /// Writes to block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_ops: Option<u64>,
    /// Processes that the kernel's OOM killer has ended.
    #[serde(default)]
    pub oom_kills: u64,
    /// How much time was lost waiting for a resource; `null` where the kernel does not tell (no
    /// cgroup v2 tree, PSI switched off).
    #[serde(default)]
    pub pressure: Option<Pressure>,
    /// Per network interface.
    #[serde(default)]
    pub networks: BTreeMap<String, NetworkStats>,
    /// Where the numbers come from: `cgroup2`, `cgroup1`, `proc`.
    pub source: String,
}

/// Pressure stall information (cgroup v2, `cpu.pressure` and its like).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// For a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    /// For memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    /// For block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
}

/// Waiting for one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// At least one task waited.
    pub some: StallTimes,
    /// All of them did; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<StallTimes>,
}

/// Shares of time, and time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StallTimes {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds since the start.
    pub total_us: u64,
}

/// Counters of one interface (`/proc/PID/net/dev`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets received with an error.
    #[serde(default)]
    pub rx_errors: u64,
    /// Packets that could not be sent.
    #[serde(default)]
    pub tx_errors: u64,
    /// Received packets that were dropped.
    #[serde(default)]
    pub rx_dropped: u64,
    /// Packets that were dropped instead of sent.
    #[serde(default)]
    pub tx_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::{LimitChange, Resources, ResourcesPatch};

    #[test]
    fn absent_keeps_and_null_lifts() {
        let old = Resources {
            memory: Some(5),
            cpus: Some(1.5),
            hugetlb: [("2MB".to_owned(), 4)].into(),
            ..Resources::default()
        };
        let patch: ResourcesPatch =
            serde_json::from_str(r#"{"memory": null, "pids_limit": 7, "hugetlb": {"1GB": 0}}"#)
                .unwrap();
        let expected = Resources {
            memory: None,
            cpus: Some(1.5),
            pids_limit: Some(7),
            hugetlb: [("1GB".to_owned(), 0)].into(),
            ..Resources::default()
        };
        assert_eq!(patch.apply(&old), expected);
        assert_eq!(ResourcesPatch::default().apply(&old), old);
    }

    #[test]
    fn a_patch_is_written_as_it_is_read() {
        let patch = ResourcesPatch {
            memory: LimitChange::Lift,
            cpus: LimitChange::Set(2.0),
            ..ResourcesPatch::default()
        };
        let text = serde_json::to_string(&patch).unwrap();
        assert_eq!(text, r#"{"memory":null,"cpus":2.0}"#);
        assert_eq!(
            serde_json::from_str::<ResourcesPatch>(&text).unwrap(),
            patch
        );
    }
}
