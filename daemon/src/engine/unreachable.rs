//! Containers whose helper cannot be asked: they end by pidfd and cgroup alone.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use littlebox_helper::protocol::EXIT_RECORD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::{ProcessIdentity, read_exit_record, unknown_exit};
use super::{Engine, Handle};
use crate::procfs;
use crate::time::now_ns;

/// How long the helper of an ended container has for its record.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);
/// How often what has no event is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Engine {
    /// Ends a container whose helper does not answer: the signal to its program, the grace, then
    /// everything in its cgroup, and the helper. Does not wait.
    pub(crate) fn end_without_helper(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        signal: i32,
        grace: Duration,
    ) {
        let (engine, handle) = (self.clone(), handle.clone());
        // Not tracked: a shutdown does not wait for it, and the next daemon does it anew.
        tokio::spawn(async move { engine.end_by_force(&handle, run, signal, grace).await });
    }

    async fn end_by_force(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        signal: i32,
        grace: Duration,
    ) {
        let program = handle.record().process;
        if let Some(program) = &program {
            self.signal_process(program, signal);
            let deadline = tokio::time::Instant::now() + grace;
            while tokio::time::Instant::now() < deadline && self.lives(program) {
                tokio::time::sleep(LOOK).await;
            }
        }
        // It may answer again by now, and has told how the container ended.
        let current = handle.live().run == run && !*handle.live().ended.borrow();
        if !current {
            return;
        }
        if let Some(program) = &program {
            self.signal_process(program, Signal::KILL.as_raw());
        }
        self.remove_cgroup_of(handle.id).await;
        self.record_forced_end(handle, run).await;
    }

    /// The true exit status where the helper still writes it, else `unknown`.
    async fn record_forced_end(self: &Arc<Self>, handle: &Arc<Handle>, run: u64) {
        let path = self.paths.run_dir(handle.id).join(EXIT_RECORD);
        let deadline = tokio::time::Instant::now() + RECORD_PATIENCE;
        loop {
            if let Ok(Some(record)) = read_exit_record(&path) {
                return self.exited(handle, run, &record);
            }
            if tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Some(helper) = handle.record().helper {
            self.signal_process(&helper, Signal::KILL.as_raw());
        }
        let exit = unknown_exit("the container was ended without its helper, which did not answer");
        self.ended(handle, run, exit, now_ns());
    }

    /// A process that runs now, as it is known later.
    pub(crate) fn identity(&self, pid: u32) -> Option<ProcessIdentity> {
        Some(ProcessIdentity {
            pid,
            start_time: procfs::start_time(pid).ok()?,
            boot_id: self.boot_id.clone(),
        })
    }

    /// Signals a process, if it is the one that is meant.
    fn signal_process(&self, process: &ProcessIdentity, signal: i32) {
        let (Some(pidfd), Some(signal)) = (self.open_process(process), named(signal)) else {
            return;
        };
        if let Err(error) = pidfd_send_signal(&pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = process.pid, %error, "cannot signal a process");
        }
    }

    /// Whether a process has not ended: one that nobody has reaped has (pidfd_open(2)).
    fn lives(&self, process: &ProcessIdentity) -> bool {
        let Some(pidfd) = self.open_process(process) else {
            return false;
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
    }

    /// A pidfd of a process that cannot be another one with the same PID: the start time is read
    /// when the descriptor is held.
    fn open_process(&self, process: &ProcessIdentity) -> Option<OwnedFd> {
        if process.boot_id != self.boot_id {
            return None;
        }
        let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let same = procfs::start_time(process.pid).ok() == Some(process.start_time);
        same.then_some(pidfd)
    }
}

fn named(signal: i32) -> Option<Signal> {
    Signal::from_named_raw(signal)
}
