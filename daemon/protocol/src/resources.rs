//! The cgroup of a container and its limits, as the plan has them and as an update changes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The container's cgroup, the same path in every hierarchy that is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Path below the hierarchy's root, `/littlebox/INSTANCE/ID`. `None`: no cgroup at all.
    pub path: Option<PathBuf>,
    /// Limits. What the host cannot enforce (no controller) is a failure, not a silence.
    #[serde(default)]
    pub resources: ResourcePlan,
    /// What becomes of a cgroup that is there already.
    #[serde(default, skip_serializing_if = "ExistingCgroup::is_default")]
    pub existing: ExistingCgroup,
    /// Nothing here was asked for by the user, all are defaults: on a host whose cgroup tree cannot
    /// be written the container starts without them, with a warning.
    #[serde(default)]
    pub best_effort: bool,
    /// On v1 the container has a cgroup in every hierarchy, not in those alone that its limits and
    /// its supervision need: it finds its own below `/sys/fs/cgroup`, and so do tools of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_hierarchy: bool,
}

/// What becomes of a cgroup at the container's path that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExistingCgroup {
    /// It was left by an earlier life of the container: ended, removed and made again.
    #[default]
    Replace,
    /// Somebody else has made it for the container: used when no process is in it, else refused.
    UseEmpty,
    /// systemd has made it, with a process that holds it: used as it is.
    Use,
}

impl ExistingCgroup {
    /// Whether it is [`ExistingCgroup::Replace`].
    pub fn is_default(&self) -> bool {
        *self == ExistingCgroup::Replace
    }
}

/// Limits in littlebox's own units; the helper's cgroup module translates to v1 or v2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcePlan {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory plus swap together (as in the OCI spec), `u64::MAX` for unlimited.
    pub memory_and_swap: Option<u64>,
    /// Bytes: soft limit (v1 soft_limit, v2 memory.low).
    pub memory_reservation: Option<u64>,
    /// Bytes: v2 memory.high.
    pub memory_high: Option<u64>,
    /// Microseconds of CPU per period.
    pub cpu_quota_us: Option<u64>,
    /// Microseconds.
    pub cpu_period_us: Option<u64>,
    /// v2 weight, 1 to 10,000 (v1 shares are derived from it, unless they are given).
    pub cpu_weight: Option<u64>,
    /// v1 shares as they were asked for; `cpu_weight` is then derived from them.
    pub cpu_shares: Option<u64>,
    /// Microseconds that may be used beyond the quota after a quiet period.
    pub cpu_burst_us: Option<u64>,
    /// SCHED_IDLE for the whole cgroup: 0 or 1.
    pub cpu_idle: Option<u64>,
    /// v1, kernels with realtime group scheduling: microseconds per realtime period.
    pub cpu_rt_runtime_us: Option<u64>,
    /// v1, as above: microseconds.
    pub cpu_rt_period_us: Option<u64>,
    /// `0-3,7`; empty: what the parent has.
    pub cpuset_cpus: Option<String>,
    /// `0`; empty: what the parent has.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; `u64::MAX` for no limit.
    pub pids: Option<u64>,
    /// v1: 0 to 100; `u64::MAX`: what the parent has.
    pub memory_swappiness: Option<u64>,
    /// v1: bytes of TCP buffers.
    pub memory_kernel_tcp: Option<u64>,
    /// v1: processes that need more memory wait instead of being killed.
    pub memory_disable_oom_killer: Option<bool>,
    /// An update that limits memory below what is in use is refused (OCI `checkBeforeUpdate`).
    pub memory_check_before_update: bool,
    /// Block devices.
    pub io: IoPlan,
    /// Bytes by page size as the kernel names it (`2MB`); `u64::MAX` for no limit.
    pub hugetlb: BTreeMap<String, u64>,
    /// By device (`mlx5_1`).
    pub rdma: BTreeMap<String, RdmaPlan>,
    /// v1: class of the packets (`net_cls.classid`).
    pub net_cls_classid: Option<u32>,
    /// v1: priority by interface (`net_prio.ifpriomap`).
    pub net_prio: BTreeMap<String, u32>,
    /// v2: files of the cgroup and what is written into them, after everything else.
    pub unified: BTreeMap<String, String>,
    /// Which devices may be used: the rules in order, the last one that matches decides, and what
    /// none matches is denied. `None`: no filter.
    pub devices: Option<Vec<DeviceRule>>,
}

impl ResourcePlan {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPlan {
    /// v2 `io.weight`, 1 to 10,000, 100 is normal.
    pub weight: Option<u64>,
    /// OCI `blockIO.weight`, 10 to 1000; v2's is derived from it.
    pub blkio_weight: Option<u64>,
    /// v1 CFQ (kernels before 5.0): weight against the cgroup's own children.
    pub leaf_weight: Option<u64>,
    /// By device.
    pub devices: Vec<IoDevicePlan>,
}

/// Limits of one block device; `u64::MAX` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoDevicePlan {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// OCI weight, 10 to 1000; 0: back to the cgroup's own.
    pub blkio_weight: Option<u64>,
    /// As [`IoPlan::leaf_weight`].
    pub leaf_weight: Option<u64>,
    /// Bytes per second.
    pub read_bps: Option<u64>,
    /// Bytes per second.
    pub write_bps: Option<u64>,
    /// Operations per second.
    pub read_iops: Option<u64>,
    /// Operations per second.
    pub write_iops: Option<u64>,
}

/// Limits of one RDMA device; absent is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RdmaPlan {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}

/// One rule of the device filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number; `None` is any.
    #[serde(default)]
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    #[serde(default)]
    pub minor: Option<u32>,
    /// Which of the three this rule is about.
    pub access: DeviceAccess,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Every device.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What is done with a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceAccess {
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
    /// Made (mknod(2)).
    pub mknod: bool,
}

impl DeviceAccess {
    /// All three.
    pub const ALL: DeviceAccess = DeviceAccess {
        read: true,
        write: true,
        mknod: true,
    };
    /// `m` alone.
    pub const MKNOD: DeviceAccess = DeviceAccess {
        read: false,
        write: false,
        mknod: true,
    };

    /// Reads `rwm`, any of them once or more; `None` for other letters or none.
    pub fn parse(text: &str) -> Option<DeviceAccess> {
        let mut access = DeviceAccess::default();
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        (access != DeviceAccess::default()).then_some(access)
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        letters
            .iter()
            .filter(|(on, _)| *on)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl std::fmt::Display for DeviceRule {
    /// `c 1:3 rwm`, as the v1 devices controller writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}
