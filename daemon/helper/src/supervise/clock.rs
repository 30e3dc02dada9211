//! The clocks: the wall's for what is written down, the monotonic one for what is waited for, the
//! thread's for what is spent.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the epoch (`CLOCK_REALTIME`); 0 for a clock set before it.
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec)) else {
        return 0;
    };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// CPU time that this thread has used (`CLOCK_THREAD_CPUTIME_ID`).
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
