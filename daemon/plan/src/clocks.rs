//! Offsets of a time namespace's clocks (OCI config-linux.md, "Offset for Time Namespace").

use std::collections::{BTreeMap, HashMap};

use littlebox_protocol::{NamespaceKind, TimeClock, TimeOffset};
use oci_spec::runtime::{Linux, LinuxTimeOffset};

use crate::{PlanError, pointer};

/// The farthest a clock may be set: half of the kernel's `KTIME_SEC_MAX` (146 years), past which it
/// refuses any offset.
const FARTHEST_SECS: u64 = 9_223_372_036 / 2;

/// Checks one offset, as far as it can be without knowing the clock.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check_offset(secs: i64, nanos: u32) -> Result<(), String> {
    if nanos >= 1_000_000_000 {
        return Err(format!(
            "{nanos} nanoseconds are a second or more; put it into the seconds"
        ));
    }
    if secs.unsigned_abs() > FARTHEST_SECS {
        return Err(format!(
            "a clock is set by at most {FARTHEST_SECS} seconds (146 years), not by {secs}"
        ));
    }
    Ok(())
}

pub(crate) fn plan(
    linux: Option<&Linux>,
    is_new: impl Fn(NamespaceKind) -> bool,
) -> Result<BTreeMap<TimeClock, TimeOffset>, PlanError> {
    let empty = HashMap::new();
    let offsets = linux
        .and_then(|l| l.time_offsets().as_ref())
        .unwrap_or(&empty);
    if !offsets.is_empty() && !is_new(NamespaceKind::Time) {
        return Err(PlanError::new(
            "/linux/timeOffsets",
            "offsets of the clocks need a new time namespace; they would change another's",
        ));
    }
    offsets
        .iter()
        .map(|(name, offset)| one(name, offset))
        .collect()
}

fn one(name: &str, offset: &LinuxTimeOffset) -> Result<(TimeClock, TimeOffset), PlanError> {
    let at = || pointer::below("/linux/timeOffsets", name);
    let clock = match name {
        "monotonic" => TimeClock::Monotonic,
        "boottime" => TimeClock::Boottime,
        _ => {
            return Err(PlanError::new(
                at(),
                "a time namespace has the clocks monotonic and boottime, and no other",
            ));
        }
    };
    let offset = TimeOffset {
        secs: offset.secs().unwrap_or(0),
        nanos: offset.nanosecs().unwrap_or(0),
    };
    check_offset(offset.secs, offset.nanos).map_err(|message| PlanError::new(at(), message))?;
    Ok((clock, offset))
}
