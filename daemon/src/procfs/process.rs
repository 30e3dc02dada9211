//! The identity of a process.

use std::io;

/// Start time of a process in clock ticks since boot (`/proc/PID/stat` field 22, proc(5)).
///
/// # Errors
/// `ENOENT`/`ESRCH` when there is no such process.
pub fn start_time(_pid: u32) -> io::Result<u64> {
    unimplemented!()
}

/// The id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    unimplemented!()
}
