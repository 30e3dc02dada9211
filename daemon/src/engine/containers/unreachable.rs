//! Containers whose helper cannot be asked: they end by pidfd and cgroup alone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::{EXIT_RECORD, ExitRecord, bounds};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::asyncfd;
use crate::engine::record::{ProcessIdentity, read_exit_record, unknown_exit};
use crate::engine::{Engine, EngineError, Handle};
use crate::procfs;
use crate::supervisor::HelperError;
use crate::time::now_ns;

/// Pause before an exit record that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often the log tells of a killed program that does not end.
const UNDEAD_AGAIN: Duration = Duration::from_secs(10);
/// How soon a process is looked at again for which there was no descriptor.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Engine {
    /// Ends a container whose helper does not answer: the signal to its program, the grace, then
    /// everything in its cgroup, and the helper. Does not wait.
    pub(in crate::engine) fn end_without_helper(
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

    /// Signals a container whose helper does not answer, or is gone.
    pub(super) fn signal_without_helper(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        signal: i32,
        all: bool,
    ) -> Result<(), EngineError> {
        if signal == Signal::KILL.as_raw() {
            self.end_without_helper(handle, run, signal, Duration::ZERO);
            return Ok(());
        }
        let silent = || EngineError::Helper(HelperError::Silent);
        let program = process_of(handle, run);
        let ended = match &program {
            // Its end may have been told and not been heard yet.
            Some(program) => self.has_ended(program),
            None => !still_runs(handle, run),
        };
        if ended {
            // Then the signal has nothing left to do.
            return Ok(());
        }
        if all {
            // Who else is in it only the helper finds out.
            return Err(silent());
        }
        let program = program.ok_or_else(silent)?;
        let signal = Signal::from_named_raw(signal).ok_or_else(silent)?;
        self.signal_process(&program, signal)
            .map_err(|source| EngineError::Kernel {
                op: "pidfd_send_signal",
                source,
            })
    }

    async fn end_by_force(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
        signal: i32,
        grace: Duration,
    ) {
        if !still_runs(handle, run) {
            return;
        }
        let program = process_of(handle, run);
        if let (Some(program), Some(signal)) = (&program, Signal::from_named_raw(signal)) {
            self.try_to_signal(program, signal);
            self.ends_within(program, grace).await;
        }
        // It may answer again by now, and has told how the container ended.
        if !still_runs(handle, run) {
            return;
        }
        if let Some(program) = &program {
            self.try_to_signal(program, Signal::KILL);
        }
        self.remove_cgroup_of(handle.id).await;
        if let Some(program) = &program {
            self.wait_for_death(handle, run, program).await;
        }
        if still_runs(handle, run) {
            self.record_forced_end(handle, run).await;
        }
    }

    /// What waits in the kernel outlives its kill, and what runs is not recorded as ended.
    async fn wait_for_death(&self, handle: &Handle, run: u64, program: &ProcessIdentity) {
        let ended = {
            let live = handle.live();
            (live.run == run).then(|| live.ended.subscribe())
        };
        let Some(mut ended) = ended else { return };
        let dead = async {
            while !self.ends_within(program, UNDEAD_AGAIN).await {
                tracing::error!(id = %handle.id, pid = program.pid, "a killed program does not end");
            }
        };
        tokio::select! {
            () = dead => {}
            // Its helper answers again, and has told how it ended.
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    /// The true exit status where the helper still writes it, else `unknown`.
    async fn record_forced_end(self: &Arc<Self>, handle: &Arc<Handle>, run: u64) {
        let helper = {
            let live = handle.live();
            live.record.helper.clone().filter(|_| live.run == run)
        };
        if let Some(helper) = &helper {
            // It ends when it has written the record and told of it.
            self.ends_within(helper, bounds::RECORD).await;
        }
        let path = self.paths.run_dir(handle.id).join(EXIT_RECORD);
        if let Some(record) = read_patiently(&path).await {
            return self.exited(handle, run, &record);
        }
        if let Some(helper) = &helper {
            self.try_to_signal(helper, Signal::KILL);
        }
        let exit = unknown_exit("the container was ended without its helper, which did not answer");
        self.ended(handle, run, exit, now_ns());
    }

    /// A process that runs now, as it is known later.
    pub(in crate::engine) fn identity(&self, pid: u32) -> Option<ProcessIdentity> {
        Some(ProcessIdentity {
            pid,
            start_time: procfs::start_time(pid).ok()?,
            boot_id: self.boot_id.clone(),
        })
    }

    fn try_to_signal(&self, process: &ProcessIdentity, signal: Signal) {
        if let Err(error) = self.signal_process(process, signal) {
            tracing::warn!(pid = process.pid, %error, "cannot signal a process");
        }
    }

    /// Signals a process, if it is the one that is meant. One that has ended needs no signal.
    fn signal_process(&self, process: &ProcessIdentity, signal: Signal) -> io::Result<()> {
        let Some(pidfd) = self.open_process(process)? else {
            return Ok(());
        };
        match pidfd_send_signal(&pidfd, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Whether a process has ended: one that nobody has reaped has (pidfd_open(2)). One that cannot
    /// be looked at (no descriptors) may live.
    fn has_ended(&self, process: &ProcessIdentity) -> bool {
        match self.open_process(process) {
            Ok(Some(pidfd)) => {
                let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
                poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Waits for the end of a process; `false` when the time was up first.
    async fn ends_within(&self, process: &ProcessIdentity, limit: Duration) -> bool {
        let ended = async {
            loop {
                match self.open_process(process) {
                    Ok(None) => return,
                    Ok(Some(pidfd)) => {
                        if let Ok(pidfd) = asyncfd::watch(pidfd) {
                            let _readable = pidfd.readable().await;
                            return;
                        }
                    }
                    // No descriptors: it may live.
                    Err(_) => {}
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    /// A pidfd of a process that cannot be another one with the same PID: the start time is read
    /// when the descriptor is held. `None`: it has ended.
    fn open_process(&self, process: &ProcessIdentity) -> io::Result<Option<OwnedFd>> {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|_| process.boot_id == self.boot_id) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        match procfs::start_time(process.pid) {
            Ok(start) => Ok((start == process.start_time).then_some(pidfd)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A directory of `/proc` whose process was reaped (proc(5)).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::SRCH)
    )
}

/// PID 1 of a run.
fn process_of(handle: &Handle, run: u64) -> Option<ProcessIdentity> {
    let live = handle.live();
    let process = live.record.process.clone();
    process.filter(|_| live.run == run)
}

/// Reads an exit record; `None`: there is none. A read that fails (no descriptors, no memory) says nothing
/// of it and is tried again.
async fn read_patiently(path: &Path) -> Option<ExitRecord> {
    loop {
        match read_exit_record(path) {
            Ok(record) => return record,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot read an exit record yet")
            }
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

/// Whether a run has not been recorded as ended.
fn still_runs(handle: &Handle, run: u64) -> bool {
    let live = handle.live();
    live.run == run && !*live.ended.borrow()
}
