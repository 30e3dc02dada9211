//! How a program is scheduled.

use serde::{Deserialize, Serialize};

/// Scheduler, I/O priority, CPUs and execution domain of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulingPlan {
    /// ioprio_set(2); `None`: as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// sched_setattr(2); `None`: as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerPlan>,
    /// CPUs of execs. The container's own program does not heed them.
    #[serde(skip_serializing_if = "ExecAffinity::is_empty")]
    pub exec_affinity: ExecAffinity,
    /// personality(2); `None`: the native one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<u32>,
    /// set_mempolicy(2); `None`: as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
}

impl SchedulingPlan {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What holds for an exec in a container: its own, and what is the whole container's.
    #[must_use]
    pub fn in_container(&self, container: &Self) -> Self {
        let mut plan = self.clone();
        plan.personality = plan.personality.or(container.personality);
        if plan.memory_policy.is_none() {
            plan.memory_policy = container.memory_policy.clone();
        }
        if plan.exec_affinity.is_empty() {
            plan.exec_affinity = container.exec_affinity.clone();
        }
        plan
    }
}

/// Which CPUs an exec may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecAffinity {
    /// Until it is in the container's cgroup; empty: as they come. With cgroup v2 it is born there.
    pub initial: Vec<u32>,
    /// From then on; empty: as they come.
    pub finally: Vec<u32>,
}

impl ExecAffinity {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.initial.is_empty() && self.finally.is_empty()
    }
}

/// A NUMA memory policy (set_mempolicy(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*`.
    pub mode: u32,
    /// Numbers of the nodes.
    pub nodes: Vec<u32>,
}

/// An I/O priority (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// 1 real time, 2 best effort, 3 idle.
    pub class: u8,
    /// 0 (first) to 7.
    pub level: u8,
}

/// A scheduling policy and its parameters (sched_setattr(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerPlan {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for real-time policies, else 0.
    pub priority: u32,
    /// For `SCHED_DEADLINE`.
    pub runtime_ns: u64,
    /// For `SCHED_DEADLINE`.
    pub deadline_ns: u64,
    /// For `SCHED_DEADLINE`.
    pub period_ns: u64,
}
