//! The last part, the same for a container's program and for an exec: from a process that is
//! inside to the program.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Signal, chdir, fchdir, getcwd, getpid, ioctl_tiocsctty,
    set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
};
use rustix::thread::CapabilitySet;

use super::agent::{Agent, Handover, Introduction};
use super::detached::{Detached, Status, Tie};
use super::execute::{self, Execution};
use super::identity;
use super::paths::{self, Links};
use super::report::{FromChild, Report};
use super::stdio::ChildStdio;
use super::steps::Steps;
use super::{gate, hooks, keyring, limits, scheduling, seccomp, succession};
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::init;
use crate::sys;
use littlebox_protocol::{Defence, NamespaceKind, ProcessPlan, Step, StepFailure};

/// What the process becomes.
#[derive(Debug)]
pub struct Program<'a> {
    /// The plan.
    pub process: &'a ProcessPlan,
    /// Its stdio.
    pub stdio: ChildStdio,
    /// Whether the program is this process or a child of it.
    pub fork: LastFork,
    /// What ties it to the helper.
    pub tie: Tie<'a>,
    /// Whom its filter leaves calls to.
    pub agent: Option<Agent<'a>>,
}

/// The fork between a process that is inside and the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastFork {
    /// None: this process becomes the program.
    None,
    /// This process stays as a reaping init.
    Init,
    /// This process, which the container does not see, ends; the program is born in the container's
    /// PID namespace with no more rights than it keeps.
    PidNamespace,
}

/// When the program gets its CPU scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheduled {
    /// There is none to set.
    Never,
    /// While this process has every capability.
    Now,
    /// When the child is there that becomes the program: it need not have its parent's scheduler.
    AfterFork,
    /// When this process has forked for the last time and has its last thread.
    Last,
}

impl Scheduled {
    /// Whether CAP_SYS_NICE is kept for it.
    fn is_later(self) -> bool {
        matches!(self, Scheduled::AfterFork | Scheduled::Last)
    }
}

/// What [`Program::execute`] needs to know of what was done before.
struct Last {
    /// The user's home directory.
    home: Option<String>,
    scheduled: Scheduled,
}

impl Program<'_> {
    /// Becomes the program. Returns only on failure.
    pub fn start(mut self, steps: &mut Steps, report: &Report) -> Result<Infallible, StepFailure> {
        let process = self.process;
        let agent = self.agent.take();
        let own_keyring = self.tie.has_own_keyring();
        steps.run_if(own_keyring, Step::Keyring, keyring::leave_session)?;
        steps.run(Step::Session, |_| {
            self.new_session(self.fork == LastFork::None)
        })?;
        let asked = scheduling::is_asked(&process.scheduling);
        steps.run_if(asked, Step::Scheduling, |_| {
            scheduling::set(&process.scheduling)
        })?;
        let scheduled = self.scheduled(agent.is_some());
        steps.run_if(scheduled == Scheduled::Now, Step::Scheduling, |_| {
            scheduling::set_scheduler(&process.scheduling)
        })?;
        // Root of the container may enter what the program's user may not, and the other way round (a
        // FUSE mount, a directory of an id that is not mapped).
        let entered = match enter(&process.cwd) {
            Err(fault) if fault.is(Errno::ACCESS) || fault.is(Errno::PERM) => false,
            entered => steps.run(Step::Cwd, |_| entered).map(|()| true)?,
        };
        let home = steps.run(Step::User, |warnings| {
            let home = identity::assume(
                &process.user,
                execute::needs_home(process),
                &self.stdio,
                warnings,
            )?;
            umask(Mode::from_raw_mode(
                process.user.umask.unwrap_or(0o022) & 0o777,
            ));
            Ok::<_, Fault>(home)
        })?;
        steps.run_if(!entered, Step::Cwd, |_| enter(&process.cwd))?;
        steps.run(Step::Rlimits, |warnings| {
            limits::set(&process.rlimits, warnings)
        })?;
        steps.run(Step::Capabilities, |warnings| {
            let mut besides = CapabilitySet::empty();
            if seccomp::needs_privilege(process) {
                besides |= CapabilitySet::SYS_ADMIN;
            }
            if scheduled.is_later() {
                besides |= CapabilitySet::SYS_NICE;
            }
            identity::restrict(&process.capabilities, besides, warnings)
        })?;
        steps.run_if(process.no_new_privileges, Step::NoNewPrivileges, |_| {
            rustix::thread::set_no_new_privs(true).fault("prctl(PR_SET_NO_NEW_PRIVS)")
        })?;
        steps.run_if(false, Step::Seccomp, |_| Ok::<_, Fault>(()))?;
        match self.fork {
            LastFork::None => {}
            LastFork::Init => self.split_off_init(scheduled, steps)?,
            LastFork::PidNamespace => self.enter_pid_namespace(steps, report, agent.as_ref())?,
        }
        steps.run_if(scheduled == Scheduled::AfterFork, Step::Scheduling, |_| {
            self.set_scheduler_later(scheduled)
        })?;
        let last = Last { home, scheduled };
        let Err(failure) = match self.tie {
            Tie::None {
                detached: Detached {
                    gate: Some(gate), ..
                },
                ..
            } => self.execute_when_asked(*gate, last, agent, steps, report),
            Tie::None { .. } | Tie::DiesWithHelper | Tie::Reaped => {
                self.execute(last, agent, steps, report)
            }
        };
        give_up(failure, report)
    }

    /// When the program gets its scheduler. `agent`: whether a thread hands its filter's listener over.
    fn scheduled(&self, agent: bool) -> Scheduled {
        let scheduling = &self.process.scheduling;
        let forks = agent || !self.tie.start_hooks().is_empty();
        if scheduling.scheduler.is_none() {
            Scheduled::Never
        } else if forks && scheduling::forbids_forks(scheduling) {
            Scheduled::Last
        } else if self.fork == LastFork::None {
            Scheduled::Now
        } else {
            Scheduled::AfterFork
        }
    }

    fn set_scheduler_later(&self, scheduled: Scheduled) -> Result<(), Fault> {
        scheduling::set_scheduler(&self.process.scheduling)?;
        self.give_back_scheduling(scheduled)
    }

    /// Gives CAP_SYS_NICE back; where the filter takes a capability, both are given back with that.
    fn give_back_scheduling(&self, scheduled: Scheduled) -> Result<(), Fault> {
        if !scheduled.is_later() || seccomp::needs_privilege(self.process) {
            return Ok(());
        }
        identity::give_back(&self.process.capabilities).fault("capset")
    }

    /// Says that all is done, waits for somebody to ask for the start, and tells that one the rest.
    fn execute_when_asked(
        &self,
        gate: BorrowedFd<'_>,
        last: Last,
        mut agent: Option<Agent<'_>>,
        steps: &mut Steps,
        report: &Report,
    ) -> Result<Infallible, StepFailure> {
        steps.run(Step::Exec, |_| execute::find(self.process))?;
        let (timings, warnings) = (steps.timings.split_off(0), steps.warnings.split_off(0));
        report
            .say(&FromChild::Ready { timings, warnings }, None)
            .fault("sendmsg")
            .map_err(|fault| fault.of_step(Step::CloseFds))?;
        // This closes the report too, which is what the helper waits for. From here on there is
        // nobody to tell: whoever asks for a start that cannot be finds no process.
        let asked = sys::close_all_but([gate], 3 + self.tie.preserved())
            .fault("close_range")
            .and_then(|()| gate::wait(gate));
        let Ok(asked) = asked else { sys::exit_now(1) };
        if let Some(agent) = &mut agent
            && let Err(fault) = agent.take_over(self.tie.filters(), &asked)
        {
            give_up(fault.of_step(Step::Seccomp), &asked);
        }
        let Err(failure) = self.execute(last, agent, steps, &asked);
        give_up(failure, &asked)
    }

    /// The point of no return: most descriptors are closed behind the backs of their owners, so
    /// the caller must end the process, without running destructors.
    fn execute(
        &self,
        Last { home, scheduled }: Last,
        mut agent: Option<Agent<'_>>,
        steps: &mut Steps,
        report: &Report,
    ) -> Result<Infallible, StepFailure> {
        self.start_hooks(home.as_deref(), &mut agent, steps)?;
        let introduction = agent.as_mut().map(Agent::introduction).transpose();
        let introduction = introduction.map_err(|fault| fault.of_step(Step::Seccomp))?;
        let connection = introduction.as_ref().map(Introduction::descriptor);
        steps.run(Step::CloseFds, |_| self.leave_helper(report, connection))?;
        let agent = introduction.map(|introduction| with_report(introduction, report));
        let agent = agent
            .transpose()
            .map_err(|fault| fault.of_step(Step::Seccomp))?;
        let (timings, warnings) = (steps.timings.split_off(0), steps.warnings.split_off(0));
        report
            .say(&FromChild::Ready { timings, warnings }, None)
            .fault("sendmsg")
            .map_err(|fault| fault.of_step(Step::CloseFds))?;
        let execution = Execution::prepare(self.process, home);
        steps.run(Step::Exec, |_| {
            let mut execution = execution.map_err(|fault| fault.of_step(Step::Exec))?;
            // Under the filter it may be impossible to tell.
            execution
                .look()
                .map_err(|fault| fault.of_step(Step::Exec))?;
            let handover = agent.map(|(introduction, tell)| Handover::begin(introduction, tell));
            let handover = handover.transpose();
            let handover = handover.map_err(|fault| fault.of_step(Step::Seccomp))?;
            if scheduled == Scheduled::Last {
                self.set_scheduler_later(scheduled)
                    .map_err(|fault| fault.of_step(Step::Scheduling))?;
            }
            seccomp::load(self.process, handover).map_err(|fault| fault.of_step(Step::Seccomp))?;
            Err(execution.execute().of_step(Step::Exec))
        })
    }

    /// The `startContainer` hooks, as the program's user, with its capabilities, under its filter and
    /// in its environment.
    fn start_hooks(
        &self,
        home: Option<&str>,
        agent: &mut Option<Agent<'_>>,
        steps: &mut Steps,
    ) -> Result<(), StepFailure> {
        let hooks = self.tie.start_hooks();
        let Tie::None { detached, .. } = self.tie else {
            return Ok(());
        };
        if hooks.is_empty() {
            return Ok(());
        }
        let subject = Some("startContainer".to_owned());
        steps.run_on(Step::Hooks, subject, |_| {
            let pid = getpid().as_raw_nonzero().get().unsigned_abs();
            let state = (detached.state)(Status::Created, pid);
            hooks::run_in_container(hooks, &state, self.process, home, agent)
        })
    }

    /// A session of its own: no terminal of the host can be reached (TIOCSTI), and signals of the
    /// helper's process group stay outside.
    fn new_session(&self, with_terminal: bool) -> Result<(), Fault> {
        if with_terminal {
            self.stdio.install()?;
            return self.take_terminal();
        }
        setsid().fault("setsid")?;
        self.stdio.install()
    }

    /// A session with what stdin is by now as its terminal.
    fn take_terminal(&self) -> Result<(), Fault> {
        setsid().fault("setsid")?;
        if self.process.terminal.is_some() {
            ioctl_tiocsctty(rustix::stdio::stdin()).fault("ioctl(TIOCSCTTY)")?;
        }
        Ok(())
    }

    /// This process stays behind as init; its child goes on to be the program.
    fn split_off_init(&self, scheduled: Scheduled, steps: &mut Steps) -> Result<(), StepFailure> {
        steps.run_on(Step::Session, Some("init".to_owned()), |_| {
            if matches!(self.tie, Tie::DiesWithHelper) {
                set_parent_process_death_signal(Some(Signal::KILL))
                    .fault("prctl(PR_SET_PDEATHSIG)")?;
            }
            init::split_off(|| {
                self.give_back_scheduling(scheduled)?;
                seccomp::load_in_init(self.process)
            })?;
            // Only the program comes here.
            self.new_session(true)
        })
    }

    /// Only the child of this process is seen in the container. From here on most descriptors are
    /// closed behind the backs of their owners, see [`Program::execute`].
    fn enter_pid_namespace(
        &self,
        steps: &mut Steps,
        report: &Report,
        agent: Option<&Agent<'_>>,
    ) -> Result<(), StepFailure> {
        let subject = Some(NamespaceKind::Pid.name().to_owned());
        steps.run_on(Step::JoinNamespaces, subject, |_| {
            self.close_all_but(report, agent)?;
            succession::hand_over(|pid, pidfd| {
                if let Some(agent) = agent {
                    agent.tell_pid(pid);
                }
                report.say(&FromChild::Forked { pid }, Some(pidfd))
            })?;
            self.take_terminal()
        })
    }

    /// Closes what is the helper's, but for the report, what the program still waits at, and what leads
    /// to its agent.
    fn close_all_but(&self, report: &Report, agent: Option<&Agent<'_>>) -> Result<(), Fault> {
        let first = 3 + self.tie.preserved();
        let gate = match self.tie {
            Tie::None { detached, .. } => detached.gate,
            Tie::DiesWithHelper | Tie::Reaped => None,
        };
        let agents = agent.into_iter().flat_map(Agent::descriptors);
        let kept = agents.chain(gate).chain([report.as_fd()]);
        sys::close_all_but(kept, first).fault("close_range")
    }

    /// Cuts what still ties this process to the helper, but for the report and the connection to the
    /// agent.
    fn leave_helper(
        &self,
        report: &Report,
        connection: Option<BorrowedFd<'_>>,
    ) -> Result<(), Fault> {
        if matches!(self.tie, Tie::DiesWithHelper) {
            // After the change of identity, which clears it (prctl(2)). Had the helper died
            // before this, the report that follows would fail.
            set_parent_process_death_signal(Some(Signal::KILL)).fault("prctl(PR_SET_PDEATHSIG)")?;
        }
        sys::set_signal_mask(0).fault("rt_sigprocmask")?;
        if !stands(Defence::ClosedDescriptors) {
            return Ok(());
        }
        // Closed, not only flagged: the path of the program is resolved before execve closes
        // what is flagged, and must not find a descriptor of the host (CVE-2024-21626).
        let end = 3 + self.tie.preserved();
        let kept = connection.into_iter().chain([report.as_fd()]);
        sys::close_all_but(kept, end).fault("close_range")?;
        sys::keep_over_exec(3, end).fault("fcntl")
    }
}

/// An introduction with what tells the helper that the agent could not be given the listener.
fn with_report(
    introduction: Introduction,
    report: &Report,
) -> Result<(Introduction, impl FnOnce(Fault) + Send + use<>), Fault> {
    let report = report.duplicate()?;
    let tell = move |fault: Fault| {
        // When the helper is gone too there is nobody to tell.
        let _ = report.say(&FromChild::Failed(fault.of_step(Step::Seccomp)), None);
    };
    Ok((introduction, tell))
}

/// Ends this process with a report of what failed.
pub fn give_up(failure: StepFailure, report: &Report) -> ! {
    // When the helper is gone too there is nobody to tell.
    let _ = report.say(&FromChild::Failed(failure), None);
    sys::exit_now(1)
}

/// Keeps other processes from attaching to this one while it is on its way into a container
/// (CVE-2016-9962). A change of identity may undo it, see `fs.suid_dumpable`.
pub fn harden() -> Result<(), Fault> {
    let dumpable = if stands(Defence::NotDumpable) {
        DumpableBehavior::NotDumpable
    } else {
        DumpableBehavior::Dumpable
    };
    set_dumpable_behavior(dumpable).fault("prctl(PR_SET_DUMPABLE)")
}

fn open_root() -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open("/", flags, Mode::empty()).fault_at("open", "/")
}

/// Enters the working directory, and makes sure that it lies inside.
fn enter(path: &Path) -> Result<(), Fault> {
    if !stands(Defence::CwdInside) {
        return chdir(path).fault_at("chdir", path.display());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = paths::open_in(open_root()?.as_fd(), path, flags, Links::Inside);
    let directory = directory
        .fault_at("openat2", path.display())
        .map_err(|fault| match fault.errno {
            libc::ENOENT => fault.because("the working directory does not exist in the container"),
            libc::ELOOP => fault.because("the working directory leads through a magic link"),
            _ => fault,
        })?;
    fchdir(&directory).fault_at("fchdir", path.display())?;
    let real = getcwd(Vec::new()).fault("getcwd")?;
    if real.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Fault::refused("the working directory is outside of the container").at(path.display()))
}
