//! Limits of a spec (OCI config-linux.md, "Control groups").

mod cpu;
mod devices;
mod io;
mod memory;
mod other;
mod unified;
mod update;

use std::path::{Component, Path, PathBuf};

use littlebox_protocol::{CgroupPlan, ExistingCgroup, ResourcePlan};
use oci_spec::runtime::{Linux, LinuxResources};

use crate::PlanError;

pub use cpu::weight_from_shares;
pub use devices::device_rules;
pub use other::is_page_size;
pub use update::{difference, plan_update};

/// Plans the cgroup. `path` is the caller's; without it the spec's own is taken.
pub(crate) fn plan(
    linux: Option<&Linux>,
    path: Option<PathBuf>,
    existing: ExistingCgroup,
    best_effort: bool,
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
    if path.is_none() && !resources.is_empty() {
        return Err(PlanError::new(
            "/linux/resources",
            "limits need a cgroup; set linux.cgroupsPath",
        ));
    }
    let rules = linux.and_then(|l| l.resources().as_ref());
    let rules = rules
        .and_then(|r| r.devices().as_deref())
        .unwrap_or_default();
    let devices = path.as_ref().map(|_| devices::filter(rules)).transpose()?;
    Ok(CgroupPlan {
        path,
        resources: ResourcePlan {
            devices,
            ..resources
        },
        existing,
        best_effort,
        every_hierarchy: false,
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

/// Plans the limits alone, as they are to be in the end: what is not named is not limited. The
/// device filter is not one of them.
///
/// # Errors
/// A [`PlanError`] names the first limit that is wrong or cannot be expressed.
pub fn plan_resources(resources: &LinuxResources) -> Result<ResourcePlan, PlanError> {
    let plan = plan_each(resources)?;
    memory::check_pair(&plan)?;
    Ok(plan)
}

/// The limits, each by itself.
fn plan_each(resources: &LinuxResources) -> Result<ResourcePlan, PlanError> {
    let mut plan = ResourcePlan::default();
    if let Some(memory) = resources.memory() {
        memory::plan(memory, &mut plan)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::plan(cpu, &mut plan)?;
    }
    if let Some(pids) = resources.pids() {
        plan.pids = match pids.limit() {
            // An absent limit reads as 0 in the specification's older schema.
            0 => None,
            limit => Some(unlimited(limit)),
        };
    }
    if let Some(block_io) = resources.block_io() {
        io::plan(block_io, &mut plan.io)?;
    }
    other::plan(resources, &mut plan)?;
    if let Some(keys) = resources.unified() {
        unified::plan(keys, &mut plan)?;
    }
    Ok(plan)
}

/// A limit; negative is "unlimited", which is what no limit means.
fn finite(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|n| u64::try_from(n).ok())
}

/// A limit; negative is "unlimited".
fn unlimited(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn refuse<T>(field: &str, why: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::new(format!("/linux/resources/{field}"), why))
}

fn check(good: bool, field: &str, why: impl Into<String>) -> Result<(), PlanError> {
    if good { Ok(()) } else { refuse(field, why) }
}
