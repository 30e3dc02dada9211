//! Signal masks and dispositions as the kernel has them: 64 bits, no libc reservations.

use rustix::io::Result;

use super::check;

/// The size of the kernel's sigset_t, which the rt_* calls want to be told.
const SIGSET_SIZE: usize = 8;

/// Every disposition back to the default. exec(2) resets handlers but keeps what is ignored
/// (SIGPIPE, by Rust's runtime; SIGHUP, when the daemon was started by nohup), and a program
/// inside a container must not inherit that.
pub fn reset_signal_dispositions() {
    // The kernel's struct sigaction: handler, flags, restorer, mask; zero is SIG_DFL.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is as large as the kernel's struct on every 64-bit architecture;
        // the failures for SIGKILL and SIGSTOP are as intended.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                SIGSET_SIZE,
            )
        };
    }
}

/// Sets this thread's mask of blocked signals; bit n-1 is signal n.
pub fn set_signal_mask(mask: u64) -> Result<()> {
    let old = std::ptr::null::<u64>();
    // SAFETY: `mask` has the kernel's size and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            old,
            SIGSET_SIZE,
        )
    })
    .map(drop)
}

/// Waits for one of the signals in `mask`, which must be blocked, and returns its number.
pub fn wait_for_signal(mask: u64) -> Result<i32> {
    let (info, forever) = (
        std::ptr::null::<libc::siginfo_t>(),
        std::ptr::null::<libc::timespec>(),
    );
    // SAFETY: a null siginfo and a null timeout are allowed (rt_sigtimedwait(2)).
    let signal = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            info,
            forever,
            SIGSET_SIZE,
        )
    })?;
    Ok(i32::try_from(signal).unwrap_or(0))
}
