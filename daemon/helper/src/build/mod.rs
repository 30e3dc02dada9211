//! Building a container: the order of the helper's work, from the plan to a running program.
//!
//! ```text
//! helper                                        child
//!   cgroup, root (detached), bind sources, pipes
//!   clone3 ------------------------------------> cgroup v1, namespaces, names
//!   id maps ------------------------ go -------> (only with a new user namespace)
//!   file of the clocks' offsets ---- go -------> (only with offsets)
//!   root and binds through the maps  go -------> (only with a new user namespace)
//!   inodes, start time                           mounts, devices, terminal, masks
//!   waits for the hang-up                        pivot_root, user, capabilities
//!                  <---- terminal, timings ----- descriptors closed
//!                  <---- hang-up --------------- execve
//! ```

pub mod agent;
mod cgroup_mount;
mod child;
mod clocks;
mod copy_up;
mod deadline;
mod deputy;
mod detached;
mod devices;
mod dying;
mod exec;
mod execute;
pub mod gate;
mod guard;
pub mod hooks;
mod identity;
mod idmap;
mod keyring;
mod labels;
mod limits;
mod masks;
mod mounts;
pub mod namespaces;
mod overlay;
mod paths;
mod premade;
mod program;
#[cfg(test)]
mod races;
mod report;
mod rootfs;
mod scheduling;
mod seccomp;
mod source;
mod spawn;
mod stdio;
mod steps;
mod stream_ends;
mod succession;
mod sysctls;
mod terminal;
mod tree;
mod view;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::defence;
use crate::fault::Fault;
use crate::sys::Forked;
use littlebox_protocol::{
    IdMapping, LaunchPlan, Launched, MountReport, NamespaceKind, RootfsPlan, Step, StepFailure,
    StepTiming, bounds,
};

use agent::Agent;
use child::Container;
use deadline::Deadline;
use detached::Start;
use guard::CgroupGuard;
use idmap::Ids;
use mounts::Source;
use namespaces::{Birth, Namespaces, Origin};
use report::{Heard, Report};
use stdio::{ChildStdio, Prepared};
use steps::Steps;
use watch::Watch;

pub(crate) use steps::Warnings;

pub use detached::{Detached, Status};
pub(crate) use dying::{Dying, bury_later, ends_within, leave_to_loop, reap, take as take_dying};
pub use exec::{ExecBuilt, PendingExec, Running, begin as begin_exec, exec, exec_detached};
pub(crate) use guard::Child;
pub use namespaces::Membership;
pub use stream_ends::{InputPipe, Terminal};
pub(crate) use view::{children, parent};
pub use view::{container_hostname, container_root, is_exiting, start_time};

/// uid map and gid map.
pub type IdMaps<'a> = (&'a [IdMapping], &'a [IdMapping]);

/// A container whose program runs (its `execve` succeeded).
#[derive(Debug)]
pub struct Built {
    /// What the daemon is told.
    pub launched: Launched,
    /// PID 1. It is a child of this process and must be waited for (`waitid`, `P_PIDFD`).
    pub pidfd: OwnedFd,
    /// The helper's ends of the program's stdio, for the supervisor to take; of a detached program
    /// the terminal alone.
    pub stdio: Option<Stdio>,
    /// The container's cgroup; the caller kills and removes it when PID 1 has ended.
    pub cgroup: Cgroup,
    /// What an exec joins.
    pub membership: Membership,
}

/// The helper's ends of a program's stdio: non-blocking, close-on-exec.
#[derive(Debug)]
pub enum Stdio {
    /// One pipe per stream.
    Pipes {
        /// Write end of stdin; `None` where the program reads `/dev/null`.
        stdin: Option<OwnedFd>,
        /// Read end of stdout.
        stdout: OwnedFd,
        /// Read end of stderr.
        stderr: OwnedFd,
    },
    /// A pseudo terminal of the container's own devpts.
    Terminal(Terminal),
}

/// Reads and makes once what every container needs of the host (cgroup hierarchies, inodes of the
/// host's namespaces, a `/dev/null`). The zygote calls this before it forks helpers, which inherit
/// it.
pub fn prepare() {
    littlebox_protocol::cgroup::Layout::detect();
    namespaces::host_inodes();
    stdio::prepare();
}

/// Builds the container of `plan` and starts its program. `fds` are the descriptors that lay
/// beside the plan (for `NamespacePlan::Join`).
///
/// The caller must be a process with one thread.
///
/// # Errors
///
/// The step that failed. Everything that was made is undone: the child is killed and reaped, the
/// cgroup removed, no mount is left.
pub fn launch(plan: &LaunchPlan, fds: Vec<OwnedFd>) -> Result<Built, StepFailure> {
    launch_as(plan, fds, Start::Supervised)
}

/// Builds the container of `plan` around a program that goes its own way. With a gate it is built
/// up to the execution of its program, else the program runs when this returns.
///
/// # Errors
/// As [`launch`]; a hook that failed is one of them.
pub fn launch_detached(
    plan: &LaunchPlan,
    fds: Vec<OwnedFd>,
    detached: &Detached<'_>,
) -> Result<Built, StepFailure> {
    launch_as(plan, fds, Start::Detached(detached))
}

fn launch_as(plan: &LaunchPlan, fds: Vec<OwnedFd>, start: Start<'_>) -> Result<Built, StepFailure> {
    defence::weaken(plan.weaken);
    let deadline = Deadline::after_ms(plan.start_timeout_ms);
    let mut steps = Steps::start(plan.inject.clone());
    let namespaces = steps.run(Step::Checks, |_| {
        program::harden()?;
        if plan.process.args.is_empty() {
            return Err(Fault::refused("there is no command"));
        }
        if start.is_supervised() && !plan.hooks.is_empty() {
            return Err(Fault::refused(
                "hooks are run by the OCI command line alone",
            ));
        }
        Namespaces::of_plan(plan, fds)
    })?;
    let agent = connect_agent(plan, start, deadline, &mut steps)?;
    let cgroup = CgroupGuard::new(steps.run(Step::Cgroup, |warnings| {
        Cgroup::create(&plan.cgroup, warnings)
    })?);
    let mut parts = prepare_parts(plan, &namespaces, cgroup.get(), start, &mut steps)?;
    let (report, childs_report) = Report::pair().map_err(|fault| fault.of_step(Step::Stdio))?;
    let forked = steps.run(Step::Clone, |_| {
        spawn::spawn(&namespaces, cgroup.get().clone_fd(), deadline)
    })?;
    let child = match forked {
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
        Forked::Child => {
            drop(report);
            let container = Container {
                plan,
                namespaces: &namespaces,
                cgroup: cgroup.get(),
                root: parts.root,
                sources: parts.sources,
                proc: parts.proc,
                stdio: parts.childs_stdio,
                start,
                agent,
            };
            child::run(
                |steps, report| container.build(steps, report),
                steps,
                &childs_report,
            )
        }
    };
    drop(childs_report);
    parts.release_to_child();
    // Else the one who forks last tells it.
    if let Some(agent) = agent.filter(|_| namespaces.birth() != Birth::Outside) {
        agent.tell_pid(child.pid);
    }
    let watch = Watch {
        plan,
        namespaces: &namespaces,
        child: &child,
        report: &report,
        start,
        cgroup: cgroup.get(),
        deadline,
    };
    let watched = watch.work(&mut parts, &mut steps);
    let heard = watched.and_then(|launched| Ok((launched, watch.listen(&steps)?)));
    let ((mut launched, heard), child) = end_on_failure(child, heard, report)?;
    let (mut heard, child) = settle(child, heard, &steps)?;
    let stdio = choose_stdio(parts.stdio, heard.terminal());
    let (stdio, child) = child.or_end(check_stdio(stdio, start.is_supervised()))?;
    conclude(&mut launched, heard, &child, &namespaces, steps);
    launched.cgroups = cgroup.get().paths();
    launched.device_filter = cgroup.get().device_filter(&plan.cgroup.resources);
    Ok(Built {
        launched,
        pidfd: child.pidfd,
        stdio,
        cgroup: cgroup.keep(),
        membership: namespaces.membership(),
    })
}

/// The agent that the program's filter leaves calls to, connected unless the program waits for its start:
/// then who asks for that is.
fn connect_agent<'p>(
    plan: &'p LaunchPlan,
    start: Start<'_>,
    deadline: Deadline,
    steps: &mut Steps,
) -> Result<Option<Agent<'p>>, StepFailure> {
    let filter = plan.process.seccomp.as_ref();
    let Some(listener) = filter.and_then(|filter| filter.listener.as_ref()) else {
        return Ok(None);
    };
    steps.run_on(Step::Seccomp, Some("agent".to_owned()), |_| {
        let mut agent = Agent::new(listener, Status::Creating, None)?;
        if !start.is_gated() {
            let filters = start.tie_of_container(&plan.hooks).filters();
            agent.connect(filters, deadline)?;
        }
        Ok::<_, Fault>(Some(agent))
    })
}

/// What the helper makes before the clone.
struct Parts {
    root: Option<OwnedFd>,
    sources: Vec<Source>,
    idmaps: Vec<MountReport>,
    proc: Option<OwnedFd>,
    stdio: Option<Stdio>,
    childs_stdio: Option<ChildStdio>,
}

impl Parts {
    /// Closes the helper's copies of what is the child's now: a pipe ends with its last writer.
    fn release_to_child(&mut self) {
        self.root = None;
        self.proc = None;
        self.childs_stdio = None;
    }

    /// Makes what is seen through the id map of the container's user namespace: the root and the
    /// binds.
    fn see_through(
        &mut self,
        plan: &LaunchPlan,
        ids: Option<Ids<'_>>,
        steps: &mut Steps,
    ) -> Result<(), StepFailure> {
        if self.root.is_none() {
            let root = steps.run(Step::Rootfs, |warnings| {
                rootfs::make(&plan.rootfs, ids, warnings)
            })?;
            self.idmaps.extend(root.report(ids.is_some()));
            self.root = Some(root.mount);
        }
        for (mount, source) in plan.mounts.iter().zip(&self.sources) {
            if let Source::Tree(tree) = source {
                let report = idmap::source(mount, tree, ids, &mut steps.warnings)
                    .map_err(|fault| fault.of_step(Step::Mounts))?;
                self.idmaps.extend(report);
            }
        }
        Ok(())
    }
}

fn prepare_parts(
    plan: &LaunchPlan,
    namespaces: &Namespaces,
    cgroup: &Cgroup,
    start: Start<'_>,
    steps: &mut Steps,
) -> Result<Parts, StepFailure> {
    let mut parts = Parts {
        root: None,
        sources: Vec::new(),
        idmaps: Vec::new(),
        proc: premade::sysctls(plan, namespaces).map_err(|fault| fault.of_step(Step::Sysctls))?,
        stdio: None,
        childs_stdio: None,
    };
    for mount in &plan.mounts {
        let source = match premade::make(plan, mount, namespaces, cgroup) {
            Ok(Some(made)) => Ok(made),
            Ok(None) => mounts::open_source(mount),
            Err(fault) => Err(fault),
        };
        parts
            .sources
            .push(source.map_err(|fault| fault.of_step(Step::Mounts))?);
    }
    // Through the id map of a new user namespace all this can only be seen when that is there.
    if namespaces.origin(NamespaceKind::User) != Origin::New {
        let given = namespaces.given(NamespaceKind::User);
        parts.see_through(plan, given.map(|userns| ids(plan, userns)), steps)?;
    }
    let terminal = plan.process.terminal.is_some();
    (parts.stdio, parts.childs_stdio) =
        steps.run(Step::Stdio, |_| prepare_stdio(terminal, plan.stdin, start))?;
    if let Some(childs) = &parts.childs_stdio {
        give_to_namespace_root((&plan.uid_map, &plan.gid_map), childs)
            .map_err(|fault| fault.of_step(Step::Stdio))?;
    }
    Ok(parts)
}

/// Both sides' ends of a program's stdio. A terminal is made by the child.
fn prepare_stdio(
    terminal: bool,
    stdin: bool,
    start: Start<'_>,
) -> Result<(Option<Stdio>, Option<ChildStdio>), Fault> {
    match start {
        Start::Detached(_) if !terminal => Ok((None, Some(ChildStdio::inherited()?))),
        Start::Detached(_) | Start::Supervised => Ok(match Prepared::make(terminal, stdin)? {
            Prepared::Pipes(ours, childs) => (Some(ours), Some(childs)),
            Prepared::Terminal => (None, None),
        }),
    }
}

/// The container's user namespace with the maps that the plan knows.
fn ids<'p>(plan: &'p LaunchPlan, userns: BorrowedFd<'p>) -> Ids<'p> {
    Ids {
        userns,
        uid_map: &plan.uid_map,
        gid_map: &plan.gid_map,
    }
}

/// In a user namespace the pipes would be nobody's, and could not be given to the program's
/// user: they are made the namespace's root's.
fn give_to_namespace_root((uids, gids): IdMaps<'_>, stdio: &ChildStdio) -> Result<(), Fault> {
    match idmap::root_of(uids, gids) {
        Some((uid, gid)) => stdio.give_to(uid, Some(gid)),
        None => Ok(()),
    }
}

/// Ends the child, and one that went on in its place, when there is no result.
fn end_on_failure<T>(
    child: Child,
    result: Result<T, StepFailure>,
    report: Report,
) -> Result<(T, Child), StepFailure> {
    match result {
        Ok(built) => Ok((built, child)),
        Err(failure) => {
            dying::give_up(child, None, report);
            dying::wait(bounds::REAP);
            Err(failure)
        }
    }
}

/// Completes the report of a child that has become the program.
fn conclude(
    launched: &mut Launched,
    mut heard: Heard,
    child: &Child,
    namespaces: &Namespaces,
    mut steps: Steps,
) {
    if launched.pid != child.pid {
        launched.pid = child.pid;
        launched.start_time = view::start_time(child.pid).unwrap_or(0);
    }
    namespaces.refresh(&mut launched.namespaces, child.pid);
    steps.timings.append(&mut heard.timings);
    steps.timings.push(exec_timing(&steps));
    launched.timings = steps.timings;
    launched.warnings = steps.warnings;
    launched.warnings.append(&mut heard.warnings);
}

/// What has become of a child whose report has ended, and that may have let another go on in its
/// place; with the one that did.
fn settle(child: Child, mut heard: Heard, steps: &Steps) -> Result<(Heard, Child), StepFailure> {
    let child = match heard.forked.take() {
        None => child,
        Some(successor) => {
            child.reap();
            successor
        }
    };
    let judged = judge(heard, &child, steps);
    child.or_end(judged)
}

fn judge(heard: Heard, child: &Child, steps: &Steps) -> Result<Heard, StepFailure> {
    if let Some(failure) = heard.failure {
        steps.die_if_ordered(&failure);
        return Err(failure);
    }
    if heard.ready {
        return Ok(heard);
    }
    let how = child.how_it_ended();
    Err(
        Fault::refused(format!("the process ended before its program ran: {how}"))
            .of_step(Step::Exec),
    )
}

/// `execve` lasts from the child's last word to the hang-up, as far as the helper can see.
fn exec_timing(steps: &Steps) -> StepTiming {
    let end_ns = steps.now();
    let last = steps
        .timings
        .iter()
        .map(|timing| timing.start_ns + timing.duration_ns)
        .max();
    let start_ns = last.unwrap_or(end_ns).min(end_ns);
    StepTiming {
        step: Step::Exec,
        subject: None,
        start_ns,
        duration_ns: end_ns - start_ns,
    }
}

fn choose_stdio(pipes: Option<Stdio>, terminal: Option<Terminal>) -> Option<Stdio> {
    pipes.or(terminal.map(Stdio::Terminal))
}

/// A supervisor has the other ends of its program's stdio.
fn check_stdio(stdio: Option<Stdio>, supervised: bool) -> Result<Option<Stdio>, StepFailure> {
    if stdio.is_none() && supervised {
        return Err(Fault::refused("the terminal got lost").of_step(Step::Terminal));
    }
    Ok(stdio)
}

/// The root filesystem of a container that does not run, as a detached mount: nothing is
/// mounted anywhere, and it is gone when the descriptor is closed. With the maps of the container's
/// user namespace it is seen as if the container ran.
pub fn open_rootfs(
    plan: &RootfsPlan,
    uid_map: &[IdMapping],
    gid_map: &[IdMapping],
) -> Result<OwnedFd, StepFailure> {
    let opened = if uid_map.is_empty() || gid_map.is_empty() {
        rootfs::make(plan, None, &mut Vec::new())
    } else {
        deputy::user_namespace(uid_map, gid_map).and_then(|userns| {
            let ids = Ids {
                userns: userns.as_fd(),
                uid_map,
                gid_map,
            };
            rootfs::make(plan, Some(ids), &mut Vec::new())
        })
    };
    opened
        .map(|root| root.mount)
        .map_err(|fault| fault.of_step(Step::Rootfs))
}
