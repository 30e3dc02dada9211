//! Limits.

use std::collections::HashMap;

use lbctl::types::Resources;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::ConfigError;
use super::check::{cpuset, error, error_with};

/// The least memory that is taken. Measured on a cgroup of their own: a static program needs
/// 128 KiB for its stack and page tables, a dynamic `true` 384 KiB; below that the start itself
/// would be killed instead of refused with a reason.
const MEMORY_MIN: u64 = 512 * 1024;
/// One scheduling period, microseconds; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The most CPUs: what the kernel can be built for (`NR_CPUS`).
const CPUS_MAX: f64 = 8192.0;
/// The kernel takes no quota below a millisecond per period.
const CPUS_MIN: f64 = 0.01;
/// Processes and threads when the request does not say: room for a build, not for a fork bomb.
const PIDS_DEFAULT: i64 = 2048;
/// The kernel's highest (`PID_MAX_LIMIT`).
const PIDS_MAX: i64 = 4_194_304;

/// Checks the limits and puts them into the spec's form.
pub(super) fn for_spec(config: &Resources) -> Result<LinuxResources, ConfigError> {
    let mut resources = LinuxResources::default();
    resources.set_memory(memory(config)?);
    resources.set_cpu(cpu(config)?);
    let mut pids = LinuxPids::default();
    pids.set_limit(pids_limit(config.pids_limit)?);
    resources.set_pids(Some(pids));
    if let Some(weight) = config.cpu_weight {
        // Not as shares: a weight would not survive the way there and back.
        if !(1..=10_000).contains(&weight) {
            return Err(error(
                "/resources/cpu_weight",
                format!("a CPU weight is 1 to 10000, not {weight}"),
            ));
        }
        resources.set_unified(Some(HashMap::from([(
            "cpu.weight".to_owned(),
            weight.to_string(),
        )])));
    }
    Ok(resources)
}

fn pids_limit(limit: Option<i64>) -> Result<i64, ConfigError> {
    match limit.unwrap_or(PIDS_DEFAULT) {
        limit if limit == -1 || (1..=PIDS_MAX).contains(&limit) => Ok(limit),
        limit => Err(error_with(
            "/resources/pids_limit",
            format!("{limit} is not a number of processes from 1 to {PIDS_MAX}"),
            "use -1 for no limit",
        )),
    }
}

fn memory(config: &Resources) -> Result<Option<LinuxMemory>, ConfigError> {
    if config.memory.is_none()
        && config.memory_swap.is_none()
        && config.memory_reservation.is_none()
    {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(
        config
            .memory
            .map(|n| bytes(n, "/resources/memory"))
            .transpose()?,
    );
    memory.set_swap(swap(config)?);
    let reservation = config
        .memory_reservation
        .map(|n| bytes(n, "/resources/memory_reservation"))
        .transpose()?;
    if let (Some(soft), Some(hard)) = (reservation, memory.limit())
        && soft > hard
    {
        return Err(error(
            "/resources/memory_reservation",
            format!("a reservation of {soft} bytes is above the limit of {hard} bytes"),
        ));
    }
    memory.set_reservation(reservation);
    Ok(Some(memory))
}

fn bytes(n: u64, pointer: &str) -> Result<i64, ConfigError> {
    match i64::try_from(n) {
        Ok(bytes) if n >= MEMORY_MIN => Ok(bytes),
        _ => Err(error_with(
            pointer,
            format!("{n} bytes are not an amount of memory that a container can be given"),
            format!("give at least {MEMORY_MIN} bytes; below it no program starts"),
        )),
    }
}

fn swap(config: &Resources) -> Result<Option<i64>, ConfigError> {
    let pointer = "/resources/memory_swap";
    match (config.memory_swap, config.memory) {
        (None, _) => Ok(None),
        (Some(-1), _) => Ok(Some(-1)),
        (Some(_), None) => Err(error_with(
            pointer,
            "a limit of memory and swap together needs a limit of memory",
            "set resources.memory too",
        )),
        (Some(total), Some(memory)) if i128::from(total) < i128::from(memory) => Err(error_with(
            pointer,
            format!(
                "{total} bytes of memory and swap together are less than the {memory} bytes of memory"
            ),
            "add the swap to the memory, or use -1 for unlimited swap",
        )),
        (Some(total), Some(_)) => Ok(Some(total)),
    }
}

fn cpu(config: &Resources) -> Result<Option<LinuxCpu>, ConfigError> {
    if config.cpus.is_none() && config.cpuset_cpus.is_none() && config.cpuset_mems.is_none() {
        return Ok(None);
    }
    let mut cpu = LinuxCpu::default();
    if let Some(cpus) = config.cpus {
        cpu.set_quota(Some(quota(cpus)?));
        cpu.set_period(Some(CPU_PERIOD_US));
    }
    if let Some(list) = &config.cpuset_cpus {
        cpuset(list, "/resources/cpuset_cpus")?;
        cpu.set_cpus(Some(list.clone()));
    }
    if let Some(list) = &config.cpuset_mems {
        cpuset(list, "/resources/cpuset_mems")?;
        cpu.set_mems(Some(list.clone()));
    }
    Ok(Some(cpu))
}

/// Microseconds of CPU time per period.
fn quota(cpus: f64) -> Result<i64, ConfigError> {
    if !(CPUS_MIN..=CPUS_MAX).contains(&cpus) {
        return Err(error(
            "/resources/cpus",
            format!("{cpus} is not a number of CPUs from {CPUS_MIN} to {CPUS_MAX}"),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded above: at most 819,200,000"
    )]
    let quota = (cpus * 100_000.0).round() as i64; // CPU_PERIOD_US
    Ok(quota)
}
