//! From the limits that are to those that are to be.

use std::collections::BTreeMap;

use littlebox_protocol::{IoDevicePlan, IoPlan, ResourcePlan};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{check, memory, plan_each};
use crate::PlanError;

/// The normal weight of v2.
const NORMAL_WEIGHT: u64 = 100;
/// The kernel's period when none is given, microseconds.
const NORMAL_PERIOD_US: u64 = 100_000;

/// Plans an update that names what is to change and nothing else. So "no limit", which needs no
/// writing in a new cgroup, is a value here that lifts the limit that there may be, and so are an
/// `idle` and a `burst` of 0.
///
/// # Errors
/// A [`PlanError`] names the first limit that is wrong or cannot be expressed.
pub fn plan_update(resources: &LinuxResources) -> Result<ResourcePlan, PlanError> {
    let mut plan = plan_each(resources)?;
    if let Some(memory) = resources.memory() {
        lift_memory(memory, &mut plan);
    }
    if let Some(cpu) = resources.cpu() {
        lift_cpu(cpu, &mut plan)?;
    }
    for (key, value) in resources.unified().iter().flatten() {
        let limit = match key.as_str() {
            "memory.max" => &mut plan.memory,
            "memory.high" => &mut plan.memory_high,
            _ => continue,
        };
        if value.trim() == "max" {
            *limit = Some(u64::MAX);
        }
    }
    // Without a limit of memory beside it, the one that is there counts: the kernel knows it.
    if plan.memory.is_some() {
        memory::check_pair(&plan)?;
    }
    Ok(plan)
}

fn lift_memory(memory: &LinuxMemory, plan: &mut ResourcePlan) {
    lift(&mut plan.memory, memory.limit());
    lift(&mut plan.memory_reservation, memory.reservation());
    lift(&mut plan.memory_kernel_tcp, memory.kernel_tcp());
}

fn lift_cpu(cpu: &LinuxCpu, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    lift(&mut plan.cpu_quota_us, cpu.quota());
    lift(&mut plan.cpu_rt_runtime_us, cpu.realtime_runtime());
    plan.cpu_burst_us = cpu.burst();
    check(
        cpu.idle().is_none_or(|n| n >= 0),
        "cpu/idle",
        "idle is 0 or 1",
    )?;
    if cpu.idle() == Some(0) {
        plan.cpu_idle = Some(0);
    }
    Ok(())
}

/// A negative value is no limit.
fn lift(limit: &mut Option<u64>, given: Option<i64>) {
    if given.is_some_and(|n| n < 0) {
        *limit = Some(u64::MAX);
    }
}

/// What an update has to write to come from `old` to `new`: what differs, and for a limit that is
/// gone what stands for "none". Limits that are written together stay together: memory with swap,
/// a quota with its period.
pub fn difference(old: &ResourcePlan, new: &ResourcePlan) -> ResourcePlan {
    let memory = (old.memory, old.memory_and_swap) != (new.memory, new.memory_and_swap);
    let cpu = (old.cpu_quota_us, old.cpu_period_us) != (new.cpu_quota_us, new.cpu_period_us);
    let lifted = Some(u64::MAX);
    ResourcePlan {
        memory: pair(memory, old.memory, new.memory),
        memory_and_swap: pair(memory, old.memory_and_swap, new.memory_and_swap),
        memory_reservation: change(old.memory_reservation, new.memory_reservation, lifted),
        memory_high: change(old.memory_high, new.memory_high, lifted),
        memory_swappiness: change(old.memory_swappiness, new.memory_swappiness, lifted),
        memory_kernel_tcp: change(old.memory_kernel_tcp, new.memory_kernel_tcp, lifted),
        memory_disable_oom_killer: change(
            old.memory_disable_oom_killer,
            new.memory_disable_oom_killer,
            Some(false),
        ),
        memory_check_before_update: new.memory_check_before_update,
        cpu_quota_us: pair(cpu, old.cpu_quota_us, new.cpu_quota_us),
        cpu_period_us: match (cpu, old.cpu_period_us, new.cpu_period_us) {
            (true, Some(_), None) => Some(NORMAL_PERIOD_US),
            (true, _, new) => new,
            (false, ..) => None,
        },
        cpu_weight: change(old.cpu_weight, new.cpu_weight, Some(NORMAL_WEIGHT)),
        cpu_shares: change(old.cpu_shares, new.cpu_shares, None),
        cpu_burst_us: change(old.cpu_burst_us, new.cpu_burst_us, Some(0)),
        cpu_idle: change(old.cpu_idle, new.cpu_idle, Some(0)),
        cpu_rt_runtime_us: change(old.cpu_rt_runtime_us, new.cpu_rt_runtime_us, Some(0)),
        cpu_rt_period_us: change(old.cpu_rt_period_us, new.cpu_rt_period_us, None),
        cpuset_cpus: change_list(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: change_list(&old.cpuset_mems, &new.cpuset_mems),
        pids: change(old.pids, new.pids, lifted),
        io: io_difference(&old.io, &new.io),
        hugetlb: map_difference(&old.hugetlb, &new.hugetlb, u64::MAX),
        rdma: if old.rdma == new.rdma {
            BTreeMap::new()
        } else {
            new.rdma.clone()
        },
        net_cls_classid: change(old.net_cls_classid, new.net_cls_classid, Some(0)),
        net_prio: map_difference(&old.net_prio, &new.net_prio, 0),
        unified: new
            .unified
            .iter()
            .filter(|(key, value)| old.unified.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        devices: None,
    }
}

/// A value of two that are written together: again when either has changed.
fn pair(changed: bool, old: Option<u64>, new: Option<u64>) -> Option<u64> {
    match (changed, old, new) {
        (true, Some(_), None) => Some(u64::MAX),
        (true, _, new) => new,
        (false, ..) => None,
    }
}

fn change<T: PartialEq>(old: Option<T>, new: Option<T>, lifted: Option<T>) -> Option<T> {
    match (old, new) {
        (old, new) if old == new => None,
        (_, Some(new)) => Some(new),
        (_, None) => lifted,
    }
}

fn change_list(old: &Option<String>, new: &Option<String>) -> Option<String> {
    change(old.clone(), new.clone(), Some(String::new()))
}

fn map_difference<T: PartialEq + Copy>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    lifted: T,
) -> BTreeMap<String, T> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), lifted));
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value));
    gone.chain(changed.map(|(key, value)| (key.clone(), *value)))
        .collect()
}

fn io_difference(old: &IoPlan, new: &IoPlan) -> IoPlan {
    let find = |plan: &IoPlan, d: &IoDevicePlan| {
        let same = |other: &&IoDevicePlan| (other.major, other.minor) == (d.major, d.minor);
        plan.devices.iter().find(same).cloned().unwrap_or_else(|| {
            let (major, minor) = (d.major, d.minor);
            IoDevicePlan {
                major,
                minor,
                ..IoDevicePlan::default()
            }
        })
    };
    let mut devices: Vec<IoDevicePlan> = new
        .devices
        .iter()
        .map(|device| device_difference(&find(old, device), device))
        .collect();
    let gone = old.devices.iter().filter(|device| {
        new.devices
            .iter()
            .all(|d| (d.major, d.minor) != (device.major, device.minor))
    });
    devices.extend(gone.map(|device| device_difference(device, &find(new, device))));
    devices.retain(|device| {
        let nothing = IoDevicePlan {
            major: device.major,
            minor: device.minor,
            ..IoDevicePlan::default()
        };
        *device != nothing
    });
    IoPlan {
        weight: change(old.weight, new.weight, Some(NORMAL_WEIGHT)),
        blkio_weight: change(old.blkio_weight, new.blkio_weight, None),
        leaf_weight: change(old.leaf_weight, new.leaf_weight, None),
        devices,
    }
}

fn device_difference(old: &IoDevicePlan, new: &IoDevicePlan) -> IoDevicePlan {
    let rate = |old, new| change(old, new, Some(u64::MAX));
    IoDevicePlan {
        major: new.major,
        minor: new.minor,
        blkio_weight: change(old.blkio_weight, new.blkio_weight, Some(0)),
        leaf_weight: change(old.leaf_weight, new.leaf_weight, None),
        read_bps: rate(old.read_bps, new.read_bps),
        write_bps: rate(old.write_bps, new.write_bps),
        read_iops: rate(old.read_iops, new.read_iops),
        write_iops: rate(old.write_iops, new.write_iops),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn update(resources: Value) -> Result<ResourcePlan, PlanError> {
        plan_update(&serde_json::from_value(resources).expect("resources"))
    }

    #[test]
    fn an_update_lifts_what_it_says_has_no_limit() {
        let plan = update(json!({
            "memory": {"limit": -1, "reservation": -1, "swap": -1, "kernelTCP": -1},
            "cpu": {"quota": -1, "realtimeRuntime": -1, "idle": 0, "burst": 0, "shares": 100},
            "pids": {"limit": -1},
            "unified": {"memory.high": "max"},
        }))
        .expect("a plan");
        let lifted = Some(u64::MAX);
        let all = [
            plan.memory,
            plan.memory_reservation,
            plan.memory_and_swap,
            plan.memory_kernel_tcp,
            plan.memory_high,
            plan.cpu_quota_us,
            plan.cpu_rt_runtime_us,
            plan.pids,
        ];
        assert_eq!(all, [lifted; 8]);
        assert_eq!((plan.cpu_idle, plan.cpu_burst_us), (Some(0), Some(0)));
        assert_eq!(plan.cpu_shares, Some(100));
    }

    #[test]
    fn an_update_may_limit_swap_alone_but_not_below_the_memory_beside_it() {
        let plan = update(json!({"memory": {"swap": 100}})).expect("a plan");
        assert_eq!((plan.memory, plan.memory_and_swap), (None, Some(100)));
        let refused = update(json!({"memory": {"limit": 200, "swap": 100}})).expect_err("refused");
        assert_eq!(refused.pointer, "/linux/resources/memory/swap");
        assert!(update(json!({"memory": {"limit": -1, "swap": 100}})).is_err());
        assert!(update(json!({"cpu": {"idle": -1}})).is_err());
    }

    #[test]
    fn nothing_is_written_for_what_stays() {
        let plan = ResourcePlan {
            memory: Some(1 << 20),
            cpu_quota_us: Some(1000),
            pids: Some(5),
            cpuset_cpus: Some("0".into()),
            ..ResourcePlan::default()
        };
        assert!(difference(&plan, &plan).is_empty());
    }

    #[test]
    fn a_limit_that_is_gone_is_lifted() {
        let old = ResourcePlan {
            memory: Some(1 << 20),
            memory_and_swap: Some(2 << 20),
            cpu_quota_us: Some(1000),
            cpu_period_us: Some(2000),
            cpu_weight: Some(5),
            cpuset_cpus: Some("0".into()),
            hugetlb: [("2MB".to_owned(), 0)].into(),
            ..ResourcePlan::default()
        };
        let written = difference(&old, &ResourcePlan::default());
        assert_eq!(written.memory, Some(u64::MAX));
        assert_eq!(written.memory_and_swap, Some(u64::MAX));
        assert_eq!(written.cpu_quota_us, Some(u64::MAX));
        assert_eq!(written.cpu_period_us, Some(100_000));
        assert_eq!(written.cpu_weight, Some(100));
        assert_eq!(written.cpuset_cpus.as_deref(), Some(""));
        assert_eq!(written.hugetlb["2MB"], u64::MAX);
    }

    #[test]
    fn swap_is_written_with_the_memory_it_is_counted_with() {
        let old = ResourcePlan {
            memory: Some(1 << 20),
            memory_and_swap: Some(4 << 20),
            ..ResourcePlan::default()
        };
        let new = ResourcePlan {
            memory: Some(2 << 20),
            ..old.clone()
        };
        let written = difference(&old, &new);
        assert_eq!(
            (written.memory, written.memory_and_swap),
            (Some(2 << 20), Some(4 << 20))
        );
    }

    #[test]
    fn rates_of_a_device_that_is_no_longer_named_are_lifted() {
        let device = IoDevicePlan {
            major: 8,
            read_bps: Some(1),
            ..IoDevicePlan::default()
        };
        let old = ResourcePlan {
            io: IoPlan {
                devices: vec![device],
                ..IoPlan::default()
            },
            ..ResourcePlan::default()
        };
        let written = difference(&old, &ResourcePlan::default());
        assert_eq!(written.io.devices[0].read_bps, Some(u64::MAX));
        assert_eq!(written.io.devices[0].write_bps, None);
        assert!(difference(&old, &old).is_empty());
    }
}
