//! littlebox's own PID 1: forwards signals, reaps, ends as the program ends.

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper,
    set_parent_process_death_signal, wait,
};

use crate::fault::{Fault, OrFault};
use crate::sys::{self, Forked};

/// Every signal.
const ALL_SIGNALS: u64 = !0;

/// Forks: the child returns and becomes the program, the caller stays as init and never returns.
/// It holds no descriptor, so the program's pipes end with the program. `confine` is the last that
/// it does before it serves; where that fails, so does the container.
pub fn split_off(confine: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    let own = getpid();
    if !own.is_init() {
        // In the host's PID namespace: orphans would go to the host's init.
        set_child_subreaper(Some(own)).fault("prctl(PR_SET_CHILD_SUBREAPER)")?;
    }
    // Before the fork, so that no signal is lost in between.
    sys::set_signal_mask(ALL_SIGNALS).fault("rt_sigprocmask")?;
    match sys::fork_into(0, None).fault("clone3")? {
        Forked::Child => {
            // Where init is not PID 1, its end would not be the program's.
            set_parent_process_death_signal(Some(Signal::KILL)).fault("prctl(PR_SET_PDEATHSIG)")
        }
        Forked::Parent { pid, pidfd } => {
            drop(pidfd);
            // Best effort: the name is for people who look with ps.
            let _ = rustix::thread::set_name(c"littlebox-init");
            serve(pid, confine)
        }
    }
}

fn serve(program: u32, confine: impl FnOnce() -> Result<(), Fault>) -> ! {
    // What cannot be closed now is closed at the end.
    let _ = sys::close_from(0);
    // The program does the same in a moment, and can tell what is wrong with it.
    if confine().is_err() {
        sys::exit_now(1);
    }
    loop {
        match sys::wait_for_signal(ALL_SIGNALS) {
            Ok(libc::SIGCHLD) => reap(program),
            // The program's own business, not init's (signal(7), job control of its terminal).
            Ok(libc::SIGTTIN | libc::SIGTTOU | libc::SIGTSTP) => {}
            Ok(signal) => {
                // It may have ended in this moment: then SIGCHLD follows.
                let _ = sys::kill(program, signal);
            }
            Err(Errno::INTR) => {}
            // Nothing to wait with: end, and everything in the PID namespace with it.
            Err(_) => sys::exit_now(1),
        }
    }
}

/// Takes every child that has ended. With the program's end this process ends the same way.
fn reap(program: u32) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if is(pid, program) => end_like(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

fn is(pid: Pid, program: u32) -> bool {
    pid.as_raw_nonzero().get().unsigned_abs() == program
}

/// By the same signal, or where the kernel does not let PID 1 be killed from inside, with the
/// shell's 128+n.
fn end_like(status: WaitStatus) {
    if let Some(code) = status.exit_status() {
        sys::exit_now(code);
    }
    let Some(signal) = status.terminating_signal() else {
        return;
    };
    if !getpid().is_init() {
        sys::reset_signal_dispositions();
        let own = getpid().as_raw_nonzero().get().unsigned_abs();
        // Delivered when the mask is lifted.
        let _ = sys::kill(own, signal);
        let _ = sys::set_signal_mask(0);
    }
    sys::exit_now(128 + signal)
}
