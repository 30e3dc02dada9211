//! The helper is the last victim of the OOM killer; what it starts is not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set in the zygote and inherited by its forks.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// Protects this process and those it will fork, where that is allowed (it takes
/// `CAP_SYS_RESOURCE`; proc_pid_oom_score_adj(5)).
pub fn protect() {
    PROTECTED.store(write("-999").is_ok(), Ordering::Relaxed);
}

/// Whether [`protect`] was allowed.
pub fn is_protected() -> bool {
    PROTECTED.load(Ordering::Relaxed)
}

/// Takes the protection from a fork that becomes a container's program.
///
/// # Errors
/// procfs refused; a program that nothing can kill must not start.
pub fn unprotect() -> io::Result<()> {
    write("0")
}

fn write(score: &str) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score)
}
