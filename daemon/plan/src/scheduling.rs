//! How a process is scheduled (OCI config.md, "Linux Process": `scheduler`, `ioPriority`,
//! `execCPUAffinity`; config-linux.md: `personality`, `memoryPolicy`).

use littlebox_protocol::{ExecAffinity, IoPriority, MemoryPolicy, SchedulerPlan, SchedulingPlan};
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
    Scheduler, Spec,
};

use crate::PlanError;

/// `PER_LINUX32` of personality(2).
const PER_LINUX32: u32 = 0x8;
/// More CPUs than this no kernel is built for.
const CPU_LIMIT: u32 = 8192;

/// Plans what the process object says; `base` is its pointer.
pub(crate) fn plan(process: &Process, base: &str) -> Result<SchedulingPlan, PlanError> {
    let scheduler = process.scheduler().as_ref();
    let affinity = process.exec_cpu_affinity().as_ref();
    Ok(SchedulingPlan {
        io_priority: process
            .io_priority()
            .as_ref()
            .map(|io| io_priority(io, base))
            .transpose()?,
        scheduler: scheduler.map(|s| self::scheduler(s, base)).transpose()?,
        exec_affinity: affinity
            .map(|a| exec_affinity(a, base))
            .transpose()?
            .unwrap_or_default(),
        personality: None,
        memory_policy: None,
    })
}

/// What holds for every process of a container: its execution domain, its memory policy, and the CPUs
/// of its execs. An exec takes it by [`SchedulingPlan::in_container`].
///
/// # Errors
/// As [`launch_plan`](crate::launch_plan), for these.
pub fn of_container(spec: &Spec) -> Result<SchedulingPlan, PlanError> {
    let affinity = spec
        .process()
        .as_ref()
        .and_then(|p| p.exec_cpu_affinity().as_ref());
    Ok(SchedulingPlan {
        exec_affinity: affinity
            .map(|a| exec_affinity(a, "/process"))
            .transpose()?
            .unwrap_or_default(),
        personality: personality(spec.linux().as_ref())?,
        memory_policy: memory_policy(spec.linux().as_ref())?,
        ..SchedulingPlan::default()
    })
}

/// The execution domain of the whole container; `None` for the native one.
pub(crate) fn personality(linux: Option<&Linux>) -> Result<Option<u32>, PlanError> {
    let Some(personality) = linux.and_then(|l| l.personality().as_ref()) else {
        return Ok(None);
    };
    if personality.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(PlanError::new(
            "/linux/personality/flags",
            "the specification knows no flags of a personality; remove them",
        ));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => None,
        LinuxPersonalityDomain::PerLinux32 => Some(PER_LINUX32),
    })
}

/// Modes of a memory policy, and their numbers: `MPOL_*` of linux/mempolicy.h.
pub const MEMORY_MODES: [(MemoryPolicyModeType, u32); 7] = [
    (MemoryPolicyModeType::MpolDefault, 0),
    (MemoryPolicyModeType::MpolPreferred, 1),
    (MemoryPolicyModeType::MpolBind, 2),
    (MemoryPolicyModeType::MpolInterleave, 3),
    (MemoryPolicyModeType::MpolLocal, 4),
    (MemoryPolicyModeType::MpolPreferredMany, 5),
    (MemoryPolicyModeType::MpolWeightedInterleave, 6),
];

/// Flags beside a mode, and their bits: `MPOL_F_*`.
pub const MEMORY_FLAGS: [(MemoryPolicyFlagType, u32); 3] = [
    (MemoryPolicyFlagType::MpolFNumaBalancing, 1 << 13),
    (MemoryPolicyFlagType::MpolFRelativeNodes, 1 << 14),
    (MemoryPolicyFlagType::MpolFStaticNodes, 1 << 15),
];

/// The NUMA memory policy of the whole container.
pub(crate) fn memory_policy(linux: Option<&Linux>) -> Result<Option<MemoryPolicy>, PlanError> {
    let Some(policy) = linux.and_then(|l| l.memory_policy().as_ref()) else {
        return Ok(None);
    };
    let asked = policy.flags().as_deref().unwrap_or_default();
    let modes = MEMORY_MODES.iter().filter(|(m, _)| *m == policy.mode());
    let flags = MEMORY_FLAGS.iter().filter(|(flag, _)| asked.contains(flag));
    let bits = modes.map(|(_, bits)| bits);
    let nodes = numbers(policy.nodes().as_deref().unwrap_or("")).ok_or_else(|| {
        PlanError::new(
            "/linux/memoryPolicy/nodes",
            "a list of nodes is numbers and ranges, like 0-3,7",
        )
    })?;
    Ok(Some(MemoryPolicy {
        mode: bits.chain(flags.map(|(_, bit)| bit)).sum(),
        nodes,
    }))
}

fn io_priority(io: &LinuxIOPriority, base: &str) -> Result<IoPriority, PlanError> {
    let class = match io.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(io.priority()) {
        Ok(level) if level <= 7 => Ok(IoPriority { class, level }),
        _ => Err(PlanError::new(
            format!("{base}/ioPriority/priority"),
            format!("an I/O priority is 0 to 7, not {}", io.priority()),
        )),
    }
}

fn scheduler(scheduler: &Scheduler, base: &str) -> Result<SchedulerPlan, PlanError> {
    use LinuxSchedulerPolicy as Policy;
    let refused = |field: &str, why: &str| {
        let pointer = format!("{base}/scheduler/{field}");
        Err(PlanError::new(pointer, why))
    };
    let policy = *scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    let priority = scheduler.priority().unwrap_or(0);
    let times = [
        ("runtime", scheduler.runtime().unwrap_or(0)),
        ("deadline", scheduler.deadline().unwrap_or(0)),
        ("period", scheduler.period().unwrap_or(0)),
    ];
    let real_time = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if !(-20..=19).contains(&nice) {
        return refused("nice", "a nice value is -20 to 19");
    }
    if real_time && !(1..=99).contains(&priority) {
        return refused("priority", "a real-time priority is 1 to 99");
    }
    if !real_time && priority != 0 {
        return refused(
            "priority",
            "only SCHED_FIFO and SCHED_RR have a priority; others have nice",
        );
    }
    if policy != Policy::SchedDeadline
        && let Some((field, _)) = times.iter().find(|(_, ns)| *ns != 0)
    {
        return refused(field, "only SCHED_DEADLINE has one");
    }
    Ok(SchedulerPlan {
        policy: match policy {
            Policy::SchedOther => 0,
            Policy::SchedFifo => 1,
            Policy::SchedRr => 2,
            Policy::SchedBatch => 3,
            Policy::SchedIdle => 5,
            Policy::SchedDeadline => 6,
            Policy::SchedIso => return refused("policy", "Linux has no SCHED_ISO"),
        },
        flags: flags(scheduler, base)?,
        nice,
        priority: u32::try_from(priority).unwrap_or(0),
        runtime_ns: times[0].1,
        deadline_ns: times[1].1,
        period_ns: times[2].1,
    })
}

fn flags(scheduler: &Scheduler, base: &str) -> Result<u64, PlanError> {
    use LinuxSchedulerFlag as Flag;
    let mut flags = 0;
    for (i, flag) in scheduler.flags().iter().flatten().enumerate() {
        flags |= match flag {
            Flag::SchedResetOnFork => 0x01,
            Flag::SchedFlagReclaim => 0x02,
            Flag::SchedFlagDLOverrun => 0x04,
            Flag::SchedFlagKeepPolicy => 0x08,
            Flag::SchedFlagKeepParams => 0x10,
            Flag::SchedFlagUtilClampMin | Flag::SchedFlagUtilClampMax => {
                return Err(PlanError::new(
                    format!("{base}/scheduler/flags/{i}"),
                    "the specification has no value for a clamp of utilisation; remove the flag",
                ));
            }
        };
    }
    Ok(flags)
}

fn exec_affinity(affinity: &ExecCPUAffinity, base: &str) -> Result<ExecAffinity, PlanError> {
    let list = |text: &Option<String>, field: &str| {
        numbers(text.as_deref().unwrap_or("")).ok_or_else(|| {
            PlanError::new(
                format!("{base}/execCPUAffinity/{field}"),
                "a list of CPUs is numbers and ranges, like 0-3,7",
            )
        })
    };
    Ok(ExecAffinity {
        initial: list(affinity.initial(), "initial")?,
        finally: list(affinity.cpu_affinity_final(), "final")?,
    })
}

/// The CPUs or nodes of a list like `0-3,7`; none of an empty one.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for range in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPU_LIMIT {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(numbers(""), Some(vec![]));
        for bad in ["x", "2-1", "0-", "-1", "8192", "0-4294967295"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }
}
