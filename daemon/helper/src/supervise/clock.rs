//! The two clocks: the wall's for what is written down, the monotonic one for what is waited for.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the epoch (`CLOCK_REALTIME`); 0 for a clock set before it.
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec)) else {
        return 0;
    };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
