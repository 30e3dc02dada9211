//! One measurement of a container.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use lbctl::types::Stats;

/// Measures a container: from its cgroups (v2, then v1, by controller: absolute directories),
/// else from its processes. `cpu_percent` is left empty: see [`cpu_percent`].
///
/// # Errors
/// `ENOENT`/`ESRCH` when the container has ended.
pub fn stats(_cgroups: &BTreeMap<String, String>, _pid: u32) -> io::Result<Stats> {
    unimplemented!()
}

/// CPU used between two measurements, percent of one CPU.
pub fn cpu_percent(earlier_cpu_ns: u64, later_cpu_ns: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    let used = Duration::from_nanos(later_cpu_ns.saturating_sub(earlier_cpu_ns));
    used.as_secs_f64() / elapsed.as_secs_f64() * 100.0
}
