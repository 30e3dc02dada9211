//! Limits, as files of a v2 cgroup.

use littlebox_helper::protocol::{DeviceRule, IoDevicePlan, ResourcePlan};

/// The files and what is written into them.
pub(super) fn files(limits: &ResourcePlan) -> Vec<(String, String)> {
    let swap = match (limits.memory_and_swap, limits.memory) {
        (Some(u64::MAX), _) => Some("max".to_owned()),
        (Some(both), Some(memory)) => Some(both.saturating_sub(memory).to_string()),
        _ => None,
    };
    let cpu = limits
        .cpu_quota_us
        .map(|quota| format!("{quota} {}", limits.cpu_period_us.unwrap_or(100_000)));
    let plain = |n: Option<u64>| n.map(|n| n.to_string());
    let named = [
        ("memory.max", limits.memory.map(number)),
        ("memory.swap.max", swap),
        ("memory.low", limits.memory_reservation.map(number)),
        ("memory.high", limits.memory_high.map(number)),
        ("cpu.max", cpu),
        ("cpu.max.burst", plain(limits.cpu_burst_us)),
        ("cpu.weight", plain(limits.cpu_weight)),
        ("cpuset.cpus", limits.cpuset_cpus.clone()),
        ("cpuset.mems", limits.cpuset_mems.clone()),
        ("pids.max", limits.pids.map(number)),
        ("io.weight", plain(limits.io.weight)),
    ];
    let named = named
        .into_iter()
        .filter_map(|(file, value)| Some((file.to_owned(), value?)));
    let devices = limits
        .io
        .devices
        .iter()
        .map(|d| ("io.max".to_owned(), rates(d)));
    let pages = limits
        .hugetlb
        .iter()
        .map(|(size, limit)| (format!("hugetlb.{size}.max"), number(*limit)));
    let raw = limits.unified.iter().map(|(f, v)| (f.clone(), v.clone()));
    named.chain(devices).chain(pages).chain(raw).collect()
}

fn number(n: u64) -> String {
    if n == u64::MAX {
        "max".to_owned()
    } else {
        n.to_string()
    }
}

fn rates(device: &IoDevicePlan) -> String {
    let rates = [
        ("rbps", device.read_bps),
        ("wbps", device.write_bps),
        ("riops", device.read_iops),
        ("wiops", device.write_iops),
    ];
    let set = rates
        .iter()
        .filter_map(|(name, rate)| Some(format!(" {name}={}", number((*rate)?))));
    std::iter::once(format!("{}:{}", device.major, device.minor))
        .chain(set)
        .collect()
}

/// The device filter in words.
pub(super) fn devices(rules: &[DeviceRule]) -> String {
    let line = |rule: &DeviceRule| format!("{} {rule}", if rule.allow { "allow" } else { "deny" });
    let rules: Vec<String> = rules.iter().map(line).collect();
    format!(
        " Devices are filtered, by a BPF program or the v1 devices controller; the last rule that matches decides: {}.",
        rules.join(", ")
    )
}
