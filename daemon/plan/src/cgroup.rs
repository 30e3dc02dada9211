//! Limits of a spec (OCI config-linux.md, "Control groups").

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use littlebox_helper::protocol::{CgroupPlan, ExistingCgroup, ResourcePlan};
use oci_spec::runtime::{Linux, LinuxCpu, LinuxMemory, LinuxResources};

use crate::PlanError;

/// Plans the cgroup. `path` is the caller's; without it the spec's own is taken.
pub(crate) fn plan(
    linux: Option<&Linux>,
    path: Option<PathBuf>,
    existing: ExistingCgroup,
) -> Result<CgroupPlan, PlanError> {
    let spec_path = linux.and_then(|l| l.cgroups_path().clone());
    let path = match (path, spec_path) {
        (Some(path), _) => Some(path),
        (None, Some(path)) => Some(checked_path(&path)?),
        (None, None) => None,
    };
    let resources = match linux.and_then(|l| l.resources().as_ref()) {
        Some(resources) => plan_resources(resources)?,
        None => ResourcePlan::default(),
    };
    if path.is_none() && resources != ResourcePlan::default() {
        return Err(PlanError::new(
            "/linux/resources",
            "limits need a cgroup; set linux.cgroupsPath",
        ));
    }
    Ok(CgroupPlan {
        path,
        resources,
        existing,
    })
}

fn checked_path(path: &Path) -> Result<PathBuf, PlanError> {
    let plain = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
    let text = path
        .to_str()
        .filter(|t| !t.is_empty() && !t.contains(['\0', '\n', ':']));
    match text {
        Some(_) if plain => Ok(Path::new("/").join(path)),
        _ => Err(PlanError::new(
            "/linux/cgroupsPath",
            "a cgroup path is plain directory names; '..' and systemd's slice:prefix:name are not supported",
        )),
    }
}

/// Plans the limits alone, as an update of a running container needs them.
///
/// # Errors
/// A [`PlanError`] names the first limit that is wrong or cannot be expressed.
pub fn plan_resources(resources: &LinuxResources) -> Result<ResourcePlan, PlanError> {
    refuse_unsupported(resources)?;
    let mut plan = ResourcePlan::default();
    if let Some(memory) = resources.memory() {
        plan_memory(memory, &mut plan)?;
    }
    if let Some(cpu) = resources.cpu() {
        plan_cpu(cpu, &mut plan)?;
    }
    if let Some(pids) = resources.pids() {
        plan.pids = match pids.limit() {
            // An absent limit reads as 0 in the specification's older schema.
            0 => None,
            limit => Some(u64::try_from(limit).unwrap_or(u64::MAX)),
        };
    }
    if let Some(unified) = resources.unified() {
        plan_unified(unified, &mut plan)?;
    }
    Ok(plan)
}

/// Device rules: the container's `/dev` holds only the plan's nodes and mknod(2) needs CAP_MKNOD,
/// so `allow` rules change nothing; a `deny` rule asks for a device filter, which is not there yet.
fn refuse_unsupported(resources: &LinuxResources) -> Result<(), PlanError> {
    let devices = resources.devices().as_deref().unwrap_or_default();
    if let Some(i) = devices.iter().position(|rule| !rule.allow()) {
        return Err(PlanError::new(
            format!("/linux/resources/devices/{i}"),
            "device filters are not supported yet; remove the rule",
        ));
    }
    let refused = [
        ("blockIO", resources.block_io().is_some()),
        (
            "hugepageLimits",
            resources
                .hugepage_limits()
                .as_ref()
                .is_some_and(|l| !l.is_empty()),
        ),
        ("network", resources.network().is_some()),
        (
            "rdma",
            resources.rdma().as_ref().is_some_and(|m| !m.is_empty()),
        ),
    ];
    match refused.iter().find(|(_, present)| *present) {
        Some((name, _)) => Err(PlanError::new(
            format!("/linux/resources/{name}"),
            "this limit is not supported yet; remove it",
        )),
        None => Ok(()),
    }
}

/// `kernel` and `useHierarchy` are obsolete and may be ignored (config-linux.md); `checkBeforeUpdate`
/// concerns updates alone.
fn plan_memory(memory: &LinuxMemory, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    let refused = [
        ("kernelTCP", memory.kernel_tcp().is_some()),
        ("swappiness", memory.swappiness().is_some()),
        (
            "disableOOMKiller",
            memory.disable_oom_killer() == Some(true),
        ),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, present)| *present) {
        return Err(PlanError::new(
            format!("/linux/resources/memory/{name}"),
            "this limit is not supported; remove it",
        ));
    }
    plan.memory = finite(memory.limit());
    plan.memory_and_swap = memory.swap().map(|n| u64::try_from(n).unwrap_or(u64::MAX));
    plan.memory_reservation = finite(memory.reservation());
    match (plan.memory, plan.memory_and_swap) {
        (None, Some(swap)) if swap != u64::MAX => Err(PlanError::new(
            "/linux/resources/memory/swap",
            "a limit of memory and swap together needs a limit of memory",
        )),
        (Some(limit), Some(swap)) if swap < limit => Err(PlanError::new(
            "/linux/resources/memory/swap",
            "memory and swap together cannot be less than the memory",
        )),
        _ => Ok(()),
    }
}

/// A limit; negative is "unlimited", which is what no limit means.
fn finite(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|n| u64::try_from(n).ok())
}

fn plan_cpu(cpu: &LinuxCpu, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    let refused = [
        (
            "realtimeRuntime",
            cpu.realtime_runtime().is_some_and(|n| n != 0),
        ),
        (
            "realtimePeriod",
            cpu.realtime_period().is_some_and(|n| n != 0),
        ),
        ("burst", cpu.burst().is_some_and(|n| n != 0)),
        ("idle", cpu.idle().is_some_and(|n| n != 0)),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, present)| *present) {
        return Err(PlanError::new(
            format!("/linux/resources/cpu/{name}"),
            "this limit is not supported yet; remove it",
        ));
    }
    plan.cpu_quota_us = finite(cpu.quota()).filter(|n| *n != 0);
    plan.cpu_period_us = cpu.period().filter(|n| *n != 0);
    plan.cpu_weight = cpu.shares().filter(|n| *n != 0).map(weight_from_shares);
    plan.cpuset_cpus = cpu.cpus().clone().filter(|s| !s.is_empty());
    plan.cpuset_mems = cpu.mems().clone().filter(|s| !s.is_empty());
    Ok(())
}

/// v1 shares (2 to 262,144, 1024 is normal) as a v2 weight (1 to 10,000, 100 is normal): equal
/// proportions to the normal, `weight = shares * 100 / 1024`, which keeps "twice as much" true.
pub fn weight_from_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    ((shares * 100 + 512) / 1024).clamp(1, 10_000)
}

/// The keys of the unified hierarchy that the plan has a place for.
fn plan_unified(keys: &HashMap<String, String>, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    for (key, value) in keys {
        let at = || {
            format!(
                "/linux/resources/unified/{}",
                key.replace('~', "~0").replace('/', "~1")
            )
        };
        let number = || match value.trim() {
            "max" => Ok(None),
            text => text.parse::<u64>().map(Some).map_err(|_| {
                PlanError::new(at(), format!("'{value}' is neither a number nor max"))
            }),
        };
        match key.as_str() {
            "cpu.weight" => plan.cpu_weight = number()?,
            "memory.max" => plan.memory = number()?,
            "memory.high" => plan.memory_high = number()?,
            "memory.low" => plan.memory_reservation = number()?,
            "pids.max" => plan.pids = Some(number()?.unwrap_or(u64::MAX)),
            "cpuset.cpus" => plan.cpuset_cpus = Some(value.clone()),
            "cpuset.mems" => plan.cpuset_mems = Some(value.clone()),
            _ => {
                return Err(PlanError::new(
                    at(),
                    format!("the cgroup key '{key}' is not supported yet"),
                ));
            }
        }
    }
    match plan.cpu_weight {
        Some(weight) if !(1..=10_000).contains(&weight) => Err(PlanError::new(
            "/linux/resources/unified/cpu.weight",
            format!("a CPU weight is 1 to 10000, not {weight}"),
        )),
        _ => Ok(()),
    }
}
