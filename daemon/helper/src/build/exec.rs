//! Starting a process inside a running container, in two halves: [`begin`] forks, and
//! [`PendingExec::finish`] takes what became of it.
//!
//! In between, the container can hold the process up: its cgroup may be frozen, its PID 1 may stop it,
//! its file systems may not answer. So every wait for it has a limit, and a supervisor does not wait
//! at all: the report is one of the sources of its loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::child::{self, Exec};
use super::deadline::Deadline;
use super::detached::{Detached, Start, Status};
use super::guard::Child;
use super::namespaces::{self, Membership, Origin};
use super::program::LastFork;
use super::report::Report;
use super::steps::Steps;
use super::{
    Built, IdMaps, Stdio, check_stdio, choose_stdio, dying, give_to_namespace_root, prepare_stdio,
    settle, spawn, view, watch,
};
use crate::cgroup::Cgroup;
use crate::defence::stands;
use crate::fault::Fault;
use crate::sys::Forked;
use littlebox_protocol::{Defence, ExecPlan, LaunchPlan, ProcessPlan, Step, StepFailure, bounds};

/// How long a supervised exec may take to start when its plan does not say.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A container that runs, as somebody sees it who wants to start a process in it.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// PID 1.
    pub pidfd: BorrowedFd<'a>,
    /// Its number, as this process sees it.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// One below that, in one hierarchy, which the new process is to be in.
    pub below: Option<&'a Cgroup>,
    /// Its namespaces.
    pub membership: &'a Membership,
    /// The maps of its user namespace, where that was made for it.
    pub id_maps: IdMaps<'a>,
}

impl<'a> Running<'a> {
    /// The cgroups that the new process is put into.
    pub fn cgroups(self) -> impl Iterator<Item = &'a Cgroup> {
        std::iter::once(self.cgroup).chain(self.below)
    }

    /// The maps of the container's user namespace, empty where it was given and they are not known;
    /// `None` where it is in the host's user namespace.
    pub fn maps(self) -> Option<IdMaps<'a>> {
        match self.membership.user() {
            Origin::Host => None,
            Origin::New | Origin::Joined => Some(self.id_maps),
        }
    }
}

/// A process that was started inside a running container.
#[derive(Debug)]
pub struct ExecBuilt {
    /// Its PID as the helper sees it.
    pub pid: u32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_time: u64,
    /// It is a child of this process and must be waited for.
    pub pidfd: OwnedFd,
    /// The helper's ends of its stdio; of a detached program the terminal alone.
    pub stdio: Option<Stdio>,
    /// What could not be done and was not essential.
    pub warnings: Vec<String>,
}

/// An exec whose processes were forked and that has not said yet how it went.
///
/// Its owner watches [`PendingExec::report`] for a hang-up (no other event) and calls
/// [`PendingExec::finish`] then, or after [`PendingExec::due`].
#[derive(Debug)]
pub struct PendingExec {
    child: Child,
    report: Report,
    stdio: Option<Stdio>,
    steps: Steps,
    supervised: bool,
    deadline: Deadline,
}

impl PendingExec {
    /// Hangs up when it has started, or never will.
    pub fn report(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// When it has taken too long; `None`: never.
    pub fn due(&self) -> Option<Instant> {
        self.deadline.end()
    }

    /// Whether it has started, or never will.
    pub fn is_over(&self) -> bool {
        self.report.wait_for_end(Deadline::now()).unwrap_or(true)
    }

    /// What became of it. One that is not over has taken too long, and is ended: `cgroup` is the
    /// container's, to tell why.
    ///
    /// # Errors
    /// The step that failed; nothing of the process is left, but for what does not die.
    pub fn finish(self, cgroup: &Cgroup) -> Result<ExecBuilt, StepFailure> {
        if !self.is_over() {
            return Err(self.late(cgroup));
        }
        let heard = self.report.drain();
        let heard = heard.map_err(|fault| fault.of_step(Step::Exec));
        let (heard, child) = self.child.or_end(heard)?;
        let (mut heard, child) = settle(child, heard, &self.steps)?;
        let start_time = view::start_time(child.pid).unwrap_or(0);
        let stdio = choose_stdio(self.stdio, heard.terminal());
        let (stdio, child) = child.or_end(check_stdio(stdio, self.supervised))?;
        let mut warnings = heard.warnings;
        warnings.splice(0..0, self.steps.warnings);
        Ok(ExecBuilt {
            pid: child.pid,
            start_time,
            pidfd: child.pidfd,
            stdio,
            warnings,
        })
    }

    /// Ends it, without waiting for the end. The failure is the given one, unless it has told one of
    /// its own.
    pub fn give_up(self, failure: StepFailure) -> StepFailure {
        let heard = self.report.drain().unwrap_or_default();
        dying::give_up(self.child, heard.forked, self.report);
        heard.failure.unwrap_or(failure)
    }

    /// Ends it because it has taken too long.
    fn late(self, cgroup: &Cgroup) -> StepFailure {
        let heard = self.report.drain().unwrap_or_default();
        let failure = watch::too_late(&self.child, &heard, &self.steps, self.deadline, cgroup);
        dying::give_up(self.child, heard.forked, self.report);
        heard.failure.unwrap_or(failure)
    }
}

/// Starts a process inside a running container that this process has built, and waits for it.
///
/// # Errors
///
/// The step that failed; nothing of the process is left.
pub fn exec(
    container: &Built,
    launch: &LaunchPlan,
    plan: &ExecPlan,
) -> Result<ExecBuilt, StepFailure> {
    wait_for(begin(container, launch, plan, None)?, &container.cgroup)
}

/// Forks a process that is to start inside a running container that this process has built; in `own`,
/// a cgroup below the container's, where there is one.
///
/// # Errors
/// As [`exec`].
pub fn begin(
    container: &Built,
    launch: &LaunchPlan,
    plan: &ExecPlan,
    own: Option<&Cgroup>,
) -> Result<PendingExec, StepFailure> {
    let running = Running {
        pidfd: container.pidfd.as_fd(),
        pid: container.launched.pid,
        cgroup: &container.cgroup,
        below: own,
        membership: &container.membership,
        id_maps: (&launch.uid_map, &launch.gid_map),
    };
    let of_container = &launch.process.scheduling;
    let process = ProcessPlan {
        scheduling: plan.process.scheduling.in_container(of_container),
        ..plan.process.clone()
    };
    let limit = plan.start_timeout_ms.map(Duration::from_millis);
    let deadline = Deadline::after(limit.unwrap_or(START_LIMIT));
    begin_as(running, &process, plan.stdin, Start::Supervised, deadline)
}

/// Starts a process inside a running container that somebody else has built. It goes its own way;
/// until it ends or this process does, it is a child of this process. Waits for the start without a
/// limit: the caller of the OCI command line can kill it.
///
/// The caller must be a process with one thread.
///
/// # Errors
/// As [`exec`].
pub fn exec_detached(
    running: Running<'_>,
    process: &ProcessPlan,
    detached: &Detached<'_>,
) -> Result<ExecBuilt, StepFailure> {
    let (start, never) = (Start::Detached(detached), Deadline::after_ms(None));
    wait_for(
        begin_as(running, process, false, start, never)?,
        running.cgroup,
    )
}

fn wait_for(pending: PendingExec, cgroup: &Cgroup) -> Result<ExecBuilt, StepFailure> {
    let started = match pending.report.wait_for_end(pending.deadline) {
        Ok(_) => pending.finish(cgroup),
        Err(fault) => Err(pending.give_up(fault.of_step(Step::Exec))),
    };
    if started.is_err() {
        dying::wait(bounds::REAP);
    }
    started
}

/// Where a process is born that joins a container.
///
/// Whoever has CAP_SYS_PTRACE in the host's user namespace can trace a process that is not dumpable,
/// and may be in the container's PID namespace (CVE-2016-9962): the container, another that has joined
/// that namespace, a program that was executed with the capability and has left others behind. So such
/// a process is born outside of the PID namespace, and what is born inside is its child, which has no
/// rights left that the container has not (but for CAP_SYS_ADMIN until its seccomp filter is loaded,
/// where the request lifts no_new_privileges).
fn fork_of(running: Running<'_>) -> LastFork {
    if running.membership.has_pid() && stands(Defence::JoinsLast) {
        LastFork::PidNamespace
    } else {
        LastFork::None
    }
}

/// The clone of an exec.
fn fork_exec(running: Running<'_>, fork: LastFork) -> Result<Forked, Fault> {
    let below = running.below.and_then(Cgroup::clone_fd);
    let cgroup = below.or_else(|| running.cgroup.clone_fd());
    if fork == LastFork::PidNamespace || !running.membership.has_pid() {
        return spawn::fork(0, cgroup);
    }
    namespaces::bear_children_in(running.pidfd)?;
    let forked = spawn::fork(0, cgroup);
    if !matches!(forked, Ok(Forked::Child)) {
        namespaces::bear_children_outside()?;
    }
    forked
}

fn begin_as(
    running: Running<'_>,
    process: &ProcessPlan,
    stdin: bool,
    start: Start<'_>,
    deadline: Deadline,
) -> Result<PendingExec, StepFailure> {
    let mut steps = Steps::start(None);
    let terminal = process.terminal.is_some();
    let (stdio, childs_stdio) =
        steps.run(Step::Stdio, |_| prepare_stdio(terminal, stdin, start))?;
    if let (Some(childs), Some(maps)) = (&childs_stdio, running.maps()) {
        give_to_namespace_root(maps, childs).map_err(|fault| fault.of_step(Step::Stdio))?;
    }
    let (report, childs_report) = Report::pair().map_err(|fault| fault.of_step(Step::Stdio))?;
    let root = (running.membership.has_own_root())
        .then(|| view::root_of(running.pid, running.pidfd))
        .transpose()
        .map_err(|fault| fault.of_step(Step::JoinNamespaces))?;
    let fork = fork_of(running);
    let listener = process.seccomp.as_ref().and_then(|s| s.listener.as_ref());
    let agent = listener
        .map(|listener| Agent::new(listener, Status::Running, Some(running.pid)))
        .transpose()
        .map_err(|fault| fault.of_step(Step::Seccomp))?;
    let forked = steps.run(Step::Clone, |_| fork_exec(running, fork))?;
    let child = match forked {
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
        Forked::Child => {
            drop(report);
            let exec = Exec {
                fork,
                process,
                running,
                root,
                stdio: childs_stdio,
                start,
                agent,
            };
            child::run(
                |steps, report| exec.enter(steps, report),
                steps,
                &childs_report,
            )
        }
    };
    if let Some(agent) = agent.filter(|_| fork != LastFork::PidNamespace) {
        agent.tell_pid(child.pid);
    }
    Ok(PendingExec {
        child,
        report,
        stdio,
        steps,
        supervised: start.is_supervised(),
        deadline,
    })
}
