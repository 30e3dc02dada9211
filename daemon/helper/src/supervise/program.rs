//! One supervised program: the container's PID 1 or an exec. From its start to its exit record.
//!
//! ```text
//! running ──its process ended──▶ draining ──all output read, or out of patience──▶ drained
//! ```
//!
//! The end of a program is the end of its process. A descendant may hold its output open for as
//! long as it likes: what is still in the pipe is read, more is waited for only for a short while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use super::clock;
use super::log::LogWriter;
use super::oom::OomLedger;
use super::output::{Buffers, Pumped, Streams};
use super::time_limit;
use crate::build::{self, Child};
use crate::cgroup::Cgroup;
use littlebox_protocol::{ExitRecord, GATE_WINDOW, LogStream, ProcessExit, Target, bounds};

/// How often a stream is read in a row before others get their turn.
const READS_IN_A_ROW: u32 = 16;

/// What kind of program this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The container's PID 1.
    Container,
    /// An exec.
    Exec {
        /// Its id.
        id: String,
        /// Where its exit record goes.
        exit_record: PathBuf,
    },
}

/// How long the rest of a program's output is waited for.
struct Patience {
    /// In all.
    total: Duration,
    /// Since the last output.
    quiet: Duration,
}

impl Kind {
    /// Everything that could hold the container's own output open has been killed with it, and
    /// only has to die; what an exec left behind may go on for good.
    fn patience(&self) -> Patience {
        match self {
            Kind::Container => Patience {
                total: bounds::DRAIN,
                quiet: Duration::from_millis(500),
            },
            Kind::Exec { .. } => Patience {
                total: Duration::from_secs(1),
                quiet: Duration::from_millis(250),
            },
        }
    }

    /// Whether a request's target is this program.
    pub fn is(&self, target: &Target) -> bool {
        match (self, target) {
            (Kind::Container, Target::Container) => true,
            (Kind::Exec { id, .. }, Target::Exec(wanted)) => id == wanted,
            (Kind::Container, Target::Exec(_)) | (Kind::Exec { .. }, Target::Container) => false,
        }
    }
}

/// A reader that must not lose anything.
#[derive(Debug, Clone, Copy)]
struct Gate {
    /// The connection that holds it.
    holder: u64,
    /// How far its reader is, a position in the log.
    consumed: u64,
}

#[derive(Debug)]
enum Phase {
    Running,
    Draining(Drain),
    Drained(End),
}

#[derive(Debug, Clone, Copy)]
struct End {
    status: ProcessExit,
    finished_at_ns: u64,
}

#[derive(Debug)]
struct Drain {
    end: End,
    /// When it is over in any case.
    until: Instant,
    /// When it is over unless there is more output before.
    quiet_until: Instant,
}

/// A program, its output and its log.
#[derive(Debug)]
pub struct Program {
    /// What it is.
    pub kind: Kind,
    /// Its standard streams.
    pub streams: Streams,
    pid: u32,
    pidfd: OwnedFd,
    /// The cgroup that all it has started is in, below the container's.
    own: Option<Cgroup>,
    log: LogWriter,
    gate: Option<Gate>,
    phase: Phase,
    /// When it is killed.
    deadline: Option<Instant>,
    timed_out: bool,
    truncated: bool,
    /// [`OomLedger::of_container`] when it started.
    oom_kills_before: u64,
    /// It was killed because somebody asked for it.
    kill_asked: bool,
    /// When its end is not waited for any more.
    abandoned_at: Option<Instant>,
}

/// What [`Program::new`] needs to know.
pub struct Started {
    /// What it is.
    pub kind: Kind,
    /// Its process' number.
    pub pid: u32,
    /// Its own cgroup, where it has one.
    pub own: Option<Cgroup>,
    /// Its process, a child of this one.
    pub pidfd: OwnedFd,
    /// Its standard streams.
    pub streams: Streams,
    /// Its log.
    pub log: LogWriter,
    /// When it is to be killed.
    pub deadline: Option<Instant>,
    /// [`OomLedger::of_container`] before it started.
    pub oom_kills_before: u64,
}

impl Program {
    /// A program that was just started.
    pub fn new(started: Started) -> Self {
        Self {
            kind: started.kind,
            streams: started.streams,
            pid: started.pid,
            own: started.own,
            pidfd: started.pidfd,
            log: started.log,
            gate: None,
            phase: Phase::Running,
            deadline: started.deadline,
            timed_out: false,
            truncated: false,
            oom_kills_before: started.oom_kills_before,
            kill_asked: false,
            abandoned_at: None,
        }
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether its process has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        !self.is_running() || build::ends_within(self.pidfd.as_fd(), Duration::ZERO)
    }

    /// Whether its process has ended or is about to.
    pub fn is_ending(&self) -> bool {
        self.has_ended() || build::is_exiting(self.pid)
    }

    /// Its process, to be watched while it runs.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The streams to be watched now: none while a reader that must not lose anything is too far
    /// behind, or while the helper has spent (`paced`) what it may on reading. Nothing holds what an
    /// ended program has left in its pipes.
    pub fn readable(&self, paced: bool) -> impl Iterator<Item = (LogStream, BorrowedFd<'_>)> {
        let held = self.is_running() && (paced || self.is_held());
        self.streams.outputs().filter(move |_| !held)
    }

    fn is_held(&self) -> bool {
        self.gate
            .is_some_and(|gate| self.log.position().saturating_sub(gate.consumed) > GATE_WINDOW)
    }

    /// Puts the gate on from where the log ends now, for the given connection.
    pub fn hold_from_here(&mut self, holder: u64) {
        let consumed = self.log.position();
        self.gate = Some(Gate { holder, consumed });
    }

    /// A reader told how far it is, or (`None`) that it is done.
    pub fn set_gate(&mut self, holder: u64, consumed: Option<u64>) {
        self.gate = consumed.map(|consumed| Gate { holder, consumed });
    }

    /// A connection is gone, and its gate with it.
    pub fn lift_gate_of(&mut self, connection: u64) {
        self.gate.take_if(|gate| gate.holder == connection);
    }

    /// Reads what a stream has. While a program prints faster than that, other things get their
    /// turn too. Returns whether there was any output.
    pub fn pump(&mut self, stream: LogStream, buffers: &mut Buffers) -> bool {
        let mut any = false;
        for _ in 0..READS_IN_A_ROW {
            match self.streams.pump(stream, buffers, &mut self.log) {
                Pumped::Data => any = true,
                Pumped::Nothing | Pumped::End => break,
            }
            if self.is_running() && self.is_held() {
                break;
            }
        }
        if let (true, Phase::Draining(drain)) = (any, &mut self.phase) {
            drain.quiet_until = Instant::now() + self.kind.patience().quiet;
        }
        self.settle_drain();
        any
    }

    /// Reaps the process if it has ended; returns whether this was so.
    pub fn reap(&mut self, buffers: &mut Buffers) -> bool {
        if !self.is_running() {
            return false;
        }
        let Some(status) = ended_as(self.pidfd.as_fd()) else {
            return false;
        };
        let patience = self.kind.patience();
        let now = Instant::now();
        self.phase = Phase::Draining(Drain {
            end: End {
                status,
                finished_at_ns: clock::realtime_ns(),
            },
            until: now + patience.total,
            quiet_until: now + patience.quiet,
        });
        self.deadline = None;
        self.streams.program_ended();
        // Nearly always everything is there already, and nobody holds the streams any more.
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            self.pump(stream, buffers);
        }
        true
    }

    /// Becomes drained when all output has come.
    fn settle_drain(&mut self) {
        if let Phase::Draining(drain) = &self.phase
            && self.streams.ended()
        {
            self.phase = Phase::Drained(drain.end);
        }
    }

    /// The next time at which [`Program::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running => self.deadline.into_iter().chain(self.abandoned_at).min(),
            Phase::Draining(drain) => Some(drain.until.min(drain.quiet_until)),
            Phase::Drained(_) => None,
        }
    }

    /// Does what is due, such as to give up on output that does not end. `true`: its time is up, and
    /// the caller ends it by [`Program::kill_all`].
    pub fn on_time(&mut self, now: Instant) -> bool {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        match &self.phase {
            Phase::Running if self.abandoned_at.is_some_and(|at| at <= now) => self.abandon(),
            Phase::Running => {
                self.deadline = None;
                self.timed_out = true;
                return true;
            }
            Phase::Draining(drain) => self.cut_off(drain.end),
            Phase::Drained(_) => {}
        }
        false
    }

    /// What still comes of its output is not read any more.
    fn cut_off(&mut self, end: End) {
        self.truncated = true;
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            self.streams.close_output(stream);
        }
        self.phase = Phase::Drained(end);
    }

    /// It was killed with its container. One that does not die (an uninterruptible wait) holds the
    /// container's exit record up for [`bounds::DYING_EXEC`] and no longer.
    pub fn die_with_container(&mut self) {
        self.kill();
        self.abandoned_at = Some(Instant::now() + bounds::DYING_EXEC);
    }

    fn abandon(&mut self) {
        if let Ok(pidfd) = rustix::io::fcntl_dupfd_cloexec(&self.pidfd, 3) {
            build::bury_later(Child {
                pid: self.pid,
                pidfd,
            });
        }
        self.cut_off(End {
            // How it will end.
            status: ProcessExit::Signal(libc::SIGKILL),
            finished_at_ns: clock::realtime_ns(),
        });
    }

    /// Kills its process and all that came of it; what is in its cgroup, where it has one, is the
    /// caller's to kill.
    pub fn kill_all(&mut self) -> Option<Cgroup> {
        let own = self.own.take();
        if own.is_none() {
            time_limit::kill_descendants(self.pid, bounds::DESCENDANTS);
        }
        self.kill();
        own
    }

    /// Its cgroup, once it has ended.
    pub fn take_cgroup(&mut self) -> Option<Cgroup> {
        self.own.take()
    }

    /// Sends SIGKILL. That the process is gone already is fine.
    pub fn kill(&self) {
        let _ = crate::sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Whether all is known for the exit record.
    pub fn is_drained(&self) -> bool {
        matches!(self.phase, Phase::Drained(_))
    }

    /// A signal was sent to it because somebody asked for that.
    pub fn signalled(&mut self, signal: i32) {
        self.kill_asked |= signal == libc::SIGKILL;
    }

    /// The exit record, once the program is drained. The ledger has just looked.
    pub fn exit_record(&self, oom: &mut OomLedger) -> Option<ExitRecord> {
        let Phase::Drained(end) = &self.phase else {
            return None;
        };
        let oom_killed = match self.kind {
            // Its cgroup was made for it: of the container any process may have been taken.
            Kind::Container => oom.of_container() > 0,
            Kind::Exec { .. } => self.looks_killed(end.status) && oom.claim(self.oom_kills_before),
        };
        Some(ExitRecord {
            status: end.status,
            finished_at_ns: end.finished_at_ns,
            oom_killed,
            oom_kills: oom.total(),
            timed_out: self.timed_out,
            output_truncated: self.truncated,
            lost_output_bytes: self.log.lost_bytes(),
        })
    }

    /// Whether it ended as a victim of the OOM killer does: by SIGKILL that nobody had asked for,
    /// or, as shells do, with the code for that of a child.
    fn looks_killed(&self, status: ProcessExit) -> bool {
        let by_signal = status == ProcessExit::Signal(libc::SIGKILL);
        let by_code = status == ProcessExit::Code(128 + libc::SIGKILL);
        (by_signal && !self.timed_out && !self.kill_asked) || by_code
    }
}

/// How a child ended, `None` while it runs. Reaps it.
fn ended_as(pidfd: BorrowedFd<'_>) -> Option<ProcessExit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options)).ok()??;
    Some(process_exit(&status))
}

fn process_exit(status: &WaitIdStatus) -> ProcessExit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ProcessExit::Code(code),
        (None, signal) => ProcessExit::Signal(signal.unwrap_or(0)),
    }
}
