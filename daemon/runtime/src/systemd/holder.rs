//! A process that does nothing but be there.

use std::os::fd::{AsFd, OwnedFd};

use littlebox_helper::sys::{self, Forked};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Signal, WaitId, WaitIdOptions, set_parent_process_death_signal, waitid};

use crate::error::{Doing, Result};
use crate::signal::SIGKILL;

/// The process; dropping it ends it.
#[derive(Debug)]
pub struct Holder {
    pid: u32,
    pidfd: OwnedFd,
}

impl Holder {
    /// Forks it. It ends with this process at the latest.
    pub fn fork() -> Result<Holder> {
        match sys::fork_into(0, None).doing(|| "fork".to_owned())? {
            Forked::Parent { pid, pidfd } => Ok(Holder { pid, pidfd }),
            Forked::Child => {
                // Had the parent ended before this, the scope would keep an idle process: the
                // deletion of the container ends it.
                let _ = set_parent_process_death_signal(Some(Signal::KILL));
                loop {
                    std::thread::sleep(std::time::Duration::from_secs(3600));
                }
            }
        }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been ended with its cgroup (ESRCH): then there is only the reaping. One that
        // could not be killed is not waited for: it ends with this process.
        match sys::pidfd_send_signal(self.pidfd.as_fd(), SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(_) => return,
        }
        let options = WaitIdOptions::EXITED;
        let _ = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
    }
}
