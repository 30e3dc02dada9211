//! What a configuration asks of this machine, checked before anything is made.

use std::path::PathBuf;
use std::sync::OnceLock;

use lbctl::types::{ContainerConfig, TimeOffset};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::EngineError;
use crate::spec::ConfigError;

/// Checks what only the machine can tell.
pub(super) fn check(config: &ContainerConfig) -> Result<(), EngineError> {
    check_clocks(config)
}

/// A clock of a container may not be before its zero.
fn check_clocks(config: &ContainerConfig) -> Result<(), EngineError> {
    let Some(offsets) = config.time_offsets else {
        return Ok(());
    };
    let clocks = [
        ("monotonic", offsets.monotonic, ClockId::Monotonic),
        ("boottime", offsets.boottime, ClockId::Boottime),
    ];
    for (name, offset, clock) in clocks {
        let now = clock_gettime(clock);
        if let Some(offset) = offset
            && is_before_zero(now, offset)
        {
            return Err(refusal(
                format!("/time_offsets/{name}"),
                format!(
                    "the clock {name} of this machine stands at {} seconds and cannot be set back by more",
                    now.tv_sec
                ),
                "a clock of a container cannot be before its zero",
            ));
        }
    }
    Ok(())
}

fn is_before_zero(now: Timespec, offset: TimeOffset) -> bool {
    let nanos = now.tv_nsec + i64::from(offset.nanos);
    let secs = now.tv_sec + nanos / 1_000_000_000;
    secs.saturating_add(offset.secs) < 0
}

fn refusal(pointer: String, detail: String, hint: &str) -> EngineError {
    EngineError::Config(ConfigError {
        pointer,
        detail,
        hint: Some(hint.into()),
    })
}

/// Files that tell of the throttling of this machine's CPUs, a side channel: masked where the
/// default paths are. Looked for once.
pub(super) fn thermal_files() -> &'static [PathBuf] {
    static FILES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FILES.get_or_init(|| {
        let Ok(cpus) = std::fs::read_dir("/sys/devices/system/cpu") else {
            return Vec::new();
        };
        let files = cpus.filter_map(|cpu| Some(cpu.ok()?.path().join("thermal_throttle")));
        files.filter(|file| file.is_dir()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_can_be_set_back_to_its_zero_and_no_further() {
        let now = Timespec {
            tv_sec: 10,
            tv_nsec: 600_000_000,
        };
        let set = |secs, nanos| is_before_zero(now, TimeOffset { secs, nanos });
        assert!(!set(-10, 0) && set(-11, 0));
        // The nanoseconds count forwards: 10.6 s - 11 s + 0.5 s.
        assert!(!set(-11, 500_000_000) && set(-12, 500_000_000));
        assert!(set(i64::MIN, 0) && !set(i64::MAX, 0));
    }
}
