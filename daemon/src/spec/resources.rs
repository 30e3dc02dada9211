//! Limits.

use std::collections::HashMap;

use littlebox_plan::pointer;
use littlebox_types::{IoLimit, Resources};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
};

use super::ConfigError;
use super::check::{at_most, cpuset, error, error_with, shown};

/// The least memory that is taken. Measured on a cgroup of their own: a static program needs
/// 128 KiB for its stack and page tables, a dynamic `true` 384 KiB; below that the start itself
/// would be killed instead of refused with a reason.
const MEMORY_MIN: u64 = 512 * 1024;
/// One scheduling period, microseconds; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The bounds of a period and the least quota that the kernel takes, microseconds.
const CPU_PERIODS_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// The most CPUs: what the kernel can be built for (`NR_CPUS`).
const CPUS_MAX: f64 = 8192.0;
/// The kernel takes no quota below a millisecond per period.
const CPUS_MIN: f64 = 0.01;
/// Processes and threads when the request does not say: room for a build, not for a fork bomb.
const PIDS_DEFAULT: i64 = 2048;
/// The kernel's highest (`PID_MAX_LIMIT`).
const PIDS_MAX: i64 = 4_194_304;
/// Devices and files with limits.
const ENTRIES_MAX: usize = 256;
/// The least rates that are taken: below them nothing would ever be read again.
const BPS_MIN: u64 = 1024;

/// Checks the limits and puts them into the spec's form. A device of `io_limits` is its
/// `MAJOR:MINOR`: the engine has looked paths up before.
pub(super) fn for_spec(config: &Resources) -> Result<LinuxResources, ConfigError> {
    let mut resources = LinuxResources::default();
    resources.set_memory(memory(config)?);
    resources.set_cpu(cpu(config)?);
    let mut pids = LinuxPids::default();
    pids.set_limit(pids_limit(config.pids_limit)?);
    resources.set_pids(Some(pids));
    resources.set_block_io(block_io(&config.io_limits)?);
    resources.set_hugepage_limits(hugepages(config)?);
    resources.set_unified(unified(config)?);
    // Everything else that can be wrong the plan knows, by the spec's names: what is left are raw
    // files of the cgroup.
    littlebox_plan::cgroup::plan_resources(&resources).map_err(|e| {
        let pointer = e.pointer.strip_prefix("/linux").unwrap_or(&e.pointer);
        error(pointer, e.message)
    })?;
    Ok(resources)
}

/// What goes by the name of a v2 file, for want of a place in the spec: a weight would not survive
/// the way to shares and back.
fn unified(config: &Resources) -> Result<Option<HashMap<String, String>>, ConfigError> {
    at_most(
        config.unified.len(),
        ENTRIES_MAX,
        "/resources/unified",
        "cgroup files",
    )?;
    let named = [
        ("cpu_weight", "cpu.weight", config.cpu_weight),
        ("io_weight", "io.weight", config.io_weight),
    ];
    let mut files = HashMap::new();
    for (field, file, weight) in named {
        let Some(weight) = weight else { continue };
        if !(1..=10_000).contains(&weight) {
            return Err(error(
                format!("/resources/{field}"),
                format!("a weight is 1 to 10000, not {weight}"),
            ));
        }
        files.insert(file.to_owned(), weight.to_string());
    }
    if let Some(high) = config.memory_high {
        let high = bytes(high, "/resources/memory_high")?;
        files.insert("memory.high".to_owned(), high.to_string());
    }
    for (file, value) in &config.unified {
        let pointer = || pointer::below("/resources/unified", file);
        if let Some(field) = field_of(file) {
            return Err(error_with(
                pointer(),
                format!("{file} has a field of its own"),
                format!("set resources.{field}"),
            ));
        }
        if value.trim().is_empty() {
            return Err(error(pointer(), format!("there is no value for {file}")));
        }
        files.insert(file.clone(), value.clone());
    }
    Ok((!files.is_empty()).then_some(files))
}

/// The field that a v2 file belongs to.
fn field_of(file: &str) -> Option<&'static str> {
    match file {
        "cpu.weight" | "cpu.weight.nice" => Some("cpu_weight"),
        "cpu.max" => Some("cpus"),
        "io.weight" => Some("io_weight"),
        "io.max" => Some("io_limits"),
        "memory.max" => Some("memory"),
        "memory.high" => Some("memory_high"),
        "memory.low" => Some("memory_reservation"),
        "memory.swap.max" => Some("memory_swap"),
        "pids.max" => Some("pids_limit"),
        "cpuset.cpus" => Some("cpuset_cpus"),
        "cpuset.mems" => Some("cpuset_mems"),
        _ => None,
    }
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
        && config.memory_swappiness.is_none()
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
    if let Some(swappiness) = config.memory_swappiness
        && swappiness > 100
    {
        return Err(error(
            "/resources/memory_swappiness",
            format!("{swappiness} is not a swappiness from 0 to 100"),
        ));
    }
    memory.set_swappiness(config.memory_swappiness);
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
    let mut cpu = LinuxCpu::default();
    match (config.cpus, config.cpu_quota_us) {
        (Some(_), Some(_)) => {
            return Err(error_with(
                "/resources/cpu_quota_us",
                "cpus and cpu_quota_us are two words for one limit",
                "give one of them",
            ));
        }
        (Some(cpus), None) => {
            let period = period(config.cpu_period_us)?.unwrap_or(CPU_PERIOD_US);
            cpu.set_quota(Some(quota_of(cpus, period)?));
            cpu.set_period(Some(period));
        }
        (None, quota) => {
            cpu.set_quota(quota.map(checked_quota).transpose()?);
            cpu.set_period(period(config.cpu_period_us)?);
        }
    }
    if let Some(list) = &config.cpuset_cpus {
        cpuset(list, "/resources/cpuset_cpus")?;
        cpu.set_cpus(Some(list.clone()));
    }
    if let Some(list) = &config.cpuset_mems {
        cpuset(list, "/resources/cpuset_mems")?;
        cpu.set_mems(Some(list.clone()));
    }
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn period(period: Option<u64>) -> Result<Option<u64>, ConfigError> {
    match period {
        Some(us) if !CPU_PERIODS_US.contains(&us) => Err(error(
            "/resources/cpu_period_us",
            format!("{us} is not a period from 1000 to 1000000 microseconds"),
        )),
        period => Ok(period),
    }
}

fn checked_quota(quota: u64) -> Result<i64, ConfigError> {
    match i64::try_from(quota) {
        Ok(us) if quota >= CPU_QUOTA_MIN_US => Ok(us),
        _ => Err(error_with(
            "/resources/cpu_quota_us",
            format!("{quota} is not a quota that the kernel takes"),
            format!("give at least {CPU_QUOTA_MIN_US} microseconds"),
        )),
    }
}

/// Microseconds of CPU time per period.
fn quota_of(cpus: f64, period_us: u64) -> Result<i64, ConfigError> {
    if !(CPUS_MIN..=CPUS_MAX).contains(&cpus) {
        return Err(error(
            "/resources/cpus",
            format!("{cpus} is not a number of CPUs from {CPUS_MIN} to {CPUS_MAX}"),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "bounded above: at most 8192 times 1,000,000"
    )]
    let quota = (cpus * period_us as f64).round() as i64;
    if quota < 1_000 {
        return Err(error_with(
            "/resources/cpus",
            format!(
                "{cpus} CPUs are less than the kernel's millisecond in a period of {period_us} microseconds"
            ),
            "give more, or a longer cpu_period_us",
        ));
    }
    Ok(quota)
}

fn hugepages(config: &Resources) -> Result<Option<Vec<LinuxHugepageLimit>>, ConfigError> {
    let mut limits = Vec::new();
    for (size, bytes) in &config.hugetlb {
        let pointer = pointer::below("/resources/hugetlb", size);
        let bytes = i64::try_from(*bytes)
            .map_err(|_| error(&pointer, format!("{bytes} bytes are too many")))?;
        let mut limit = LinuxHugepageLimit::default();
        limit.set_page_size(size.clone());
        limit.set_limit(bytes);
        limits.push(limit);
        if !littlebox_plan::cgroup::is_page_size(size) {
            return Err(error_with(
                pointer,
                format!("{} is not a size of pages", shown(size)),
                "write it like the kernel: 64KB, 2MB, 1GB",
            ));
        }
    }
    Ok((!limits.is_empty()).then_some(limits))
}

fn block_io(limits: &[IoLimit]) -> Result<Option<LinuxBlockIo>, ConfigError> {
    if limits.is_empty() {
        return Ok(None);
    }
    at_most(
        limits.len(),
        ENTRIES_MAX,
        "/resources/io_limits",
        "block devices",
    )?;
    let mut lists: [Vec<LinuxThrottleDevice>; 4] = Default::default();
    for (i, limit) in limits.iter().enumerate() {
        let pointer = format!("/resources/io_limits/{i}");
        let (major, minor) = numbers(&limit.device, &format!("{pointer}/device"))?;
        let rates = [
            ("read_bps", limit.read_bps, BPS_MIN),
            ("write_bps", limit.write_bps, BPS_MIN),
            ("read_iops", limit.read_iops, 1),
            ("write_iops", limit.write_iops, 1),
        ];
        if rates.iter().all(|(_, rate, _)| rate.is_none()) {
            return Err(error_with(
                pointer,
                "no rate is given",
                "give read_bps, write_bps, read_iops or write_iops",
            ));
        }
        for ((name, rate, least), list) in rates.into_iter().zip(&mut lists) {
            let Some(rate) = rate else { continue };
            if rate < least || i64::try_from(rate).is_err() {
                return Err(error(
                    format!("{pointer}/{name}"),
                    format!("{rate} is not a rate from {least} on"),
                ));
            }
            let device = LinuxThrottleDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .rate(rate)
                .build();
            list.push(device.map_err(|e| error(&pointer, e.to_string()))?);
        }
    }
    let [read_bps, write_bps, read_iops, write_iops] =
        lists.map(|list| (!list.is_empty()).then_some(list));
    let mut io = LinuxBlockIo::default();
    io.set_throttle_read_bps_device(read_bps);
    io.set_throttle_write_bps_device(write_bps);
    io.set_throttle_read_iops_device(read_iops);
    io.set_throttle_write_iops_device(write_iops);
    Ok(Some(io))
}

/// `8:16`.
fn numbers(device: &str, pointer: &str) -> Result<(i64, i64), ConfigError> {
    let pair = device.split_once(':');
    let pair = pair.and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u32>().ok()?)));
    match pair {
        Some((major, minor)) => Ok((major.into(), minor.into())),
        None => Err(error_with(
            pointer,
            format!("{} is not a block device", shown(device)),
            "give its absolute path, or MAJOR:MINOR",
        )),
    }
}
