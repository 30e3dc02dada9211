//! Building a container: the order of the helper's work, from the plan to a running program.
//!
//! ```text
//! helper                                        child
//!   cgroup, root (detached), bind sources, pipes
//!   clone3 ------------------------------------> cgroup v1, namespaces, names
//!   id maps, root through them ----- go -------> (only with a new user namespace)
//!   file of the clocks' offsets ---- go -------> (only with offsets)
//!   inodes, start time                           mounts, devices, terminal, masks
//!   waits for the hang-up                        pivot_root, user, capabilities
//!                  <---- terminal, timings ----- descriptors closed
//!                  <---- hang-up --------------- execve
//! ```

mod cgroup_mount;
mod child;
mod clocks;
mod copy_up;
mod detached;
mod devices;
mod execute;
pub mod gate;
mod guard;
pub mod hooks;
mod identity;
mod keyring;
mod labels;
mod limits;
mod masks;
mod mounts;
pub mod namespaces;
mod paths;
mod program;
mod report;
mod rootfs;
mod scheduling;
mod spawn;
mod stdio;
mod steps;
mod sysctls;
mod terminal;
mod tree;
mod view;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::ThreadNameSpaceType;

use crate::cgroup::Cgroup;
use crate::defence;
use crate::fault::Fault;
use crate::protocol::{
    ExecPlan, IdMapping, LaunchPlan, Launched, NamespaceKind, ProcessPlan, RootfsPlan,
    RootfsSource, Step, StepFailure, StepTiming,
};
use crate::sys::Forked;

use child::{Container, Exec};
use detached::Start;
use guard::{CgroupGuard, Child};
use namespaces::{Namespaces, Origin};
use report::{First, Heard, Report};
use stdio::{ChildStdio, Prepared};
use steps::Steps;

pub use detached::{Detached, Status};
pub use namespaces::Membership;
pub use view::{container_hostname, container_root, start_time};

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

/// A container that runs, as somebody sees it who wants to start a process in it.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// PID 1.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// Its namespaces.
    pub membership: &'a Membership,
    /// The maps of its user namespace, where that was made for it.
    pub id_maps: IdMaps<'a>,
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
    Terminal {
        /// The master.
        master: OwnedFd,
    },
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

/// Reads once what every container needs to know of the host (cgroup hierarchies, inodes of the
/// host's namespaces). The zygote calls this before it forks helpers, which inherit it.
pub fn prepare() {
    crate::cgroup::Layout::detect();
    namespaces::host_inodes();
}

/// Builds the container of `plan` and starts its program. `fds` are the descriptors that lay
/// beside the plan (for `NamespacePlan::Join`).
///
/// The caller must be a process with one thread. Afterwards its children are born in the
/// container's PID namespace, so that each exec is a single clone.
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
    let cgroup = CgroupGuard::new(steps.run(Step::Cgroup, |_| Cgroup::create(&plan.cgroup))?);
    let mut parts = prepare_parts(plan, &namespaces, start, &mut steps)?;
    let (report, childs_report) = Report::pair().map_err(|fault| fault.of_step(Step::Stdio))?;
    let forked = steps.run(Step::Clone, |_| {
        spawn::spawn(&namespaces, cgroup.get().clone_fd())
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
                stdio: parts.childs_stdio,
                start,
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
    let running = watch(plan, &namespaces, &child, &report, start, &mut steps)
        .and_then(|launched| conclude(launched, parts.stdio, &child, &namespaces, steps, &report))
        .and_then(|(launched, stdio)| Ok((launched, check_stdio(stdio, start)?)));
    let ((mut launched, stdio), child) = child.or_end(running)?;
    launched.cgroups = cgroup.get().paths();
    Ok(Built {
        launched,
        pidfd: child.pidfd,
        stdio,
        cgroup: cgroup.keep(),
        membership: namespaces.membership(),
    })
}

/// What the helper makes before the clone.
struct Parts {
    root: Option<OwnedFd>,
    sources: Vec<Option<OwnedFd>>,
    stdio: Option<Stdio>,
    childs_stdio: Option<ChildStdio>,
}

impl Parts {
    /// Closes the helper's copies of what is the child's now: a pipe ends with its last writer.
    fn release_to_child(&mut self) {
        self.root = None;
        self.sources.clear();
        self.childs_stdio = None;
    }
}

fn prepare_parts(
    plan: &LaunchPlan,
    namespaces: &Namespaces,
    start: Start<'_>,
    steps: &mut Steps,
) -> Result<Parts, StepFailure> {
    let own_mounts = namespaces.origin(NamespaceKind::Mnt) == Origin::New;
    // Through the id map of a new user namespace it can only be made when that is there.
    let now = own_mounts && !is_made_later(plan, namespaces);
    let root = if now {
        Some(steps.run(Step::Rootfs, |warnings| {
            rootfs::make(
                &plan.rootfs,
                namespaces.given(NamespaceKind::User),
                warnings,
            )
        })?)
    } else {
        None
    };
    let mut sources = Vec::new();
    if own_mounts {
        for mount in &plan.mounts {
            sources.push(mounts::open_source(mount).map_err(|fault| fault.of_step(Step::Mounts))?);
        }
    }
    let terminal = plan.process.terminal.is_some();
    let (stdio, childs_stdio) =
        steps.run(Step::Stdio, |_| prepare_stdio(terminal, plan.stdin, start))?;
    if let Some(childs) = &childs_stdio {
        give_to_namespace_root(plan, namespaces, childs)
            .map_err(|fault| fault.of_step(Step::Stdio))?;
    }
    Ok(Parts {
        root,
        sources,
        stdio,
        childs_stdio,
    })
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

fn is_made_later(plan: &LaunchPlan, namespaces: &Namespaces) -> bool {
    namespaces.origin(NamespaceKind::User) == Origin::New
        && matches!(plan.rootfs.source, RootfsSource::Overlay { .. })
}

/// In a new user namespace the pipes would be nobody's, and could not be given to the program's
/// user: they are made the namespace's root's.
fn give_to_namespace_root(
    plan: &LaunchPlan,
    namespaces: &Namespaces,
    stdio: &ChildStdio,
) -> Result<(), Fault> {
    if namespaces.origin(NamespaceKind::User) != Origin::New {
        return Ok(());
    }
    match namespaces::host_id(&plan.uid_map, 0) {
        Some(uid) => stdio.give_to(uid, namespaces::host_id(&plan.gid_map, 0)),
        None => Ok(()),
    }
}

/// The helper's part while the child works.
fn watch(
    plan: &LaunchPlan,
    namespaces: &Namespaces,
    child: &Child,
    report: &Report,
    start: Start<'_>,
    steps: &mut Steps,
) -> Result<Launched, StepFailure> {
    if namespaces.origin(NamespaceKind::User) == Origin::New {
        steps.run(Step::IdMaps, |_| namespaces::write_id_maps(child.pid, plan))?;
        let own_mounts = namespaces.origin(NamespaceKind::Mnt) == Origin::New;
        let root = if own_mounts && is_made_later(plan, namespaces) {
            Some(steps.run(Step::Rootfs, |warnings| {
                let userns = namespaces::open_user_namespace(child.pid)?;
                rootfs::make(&plan.rootfs, Some(userns.as_fd()), warnings)
            })?)
        } else {
            None
        };
        // A child that has died already has said why.
        let _ = report.go(root.as_ref().map(AsFd::as_fd));
    }
    if namespaces.clocks_are_set() {
        steps.run(Step::TimeNamespace, |_| {
            let offsets = clocks::open_offsets(child.pid)?;
            // As above.
            let _ = report.go(Some(offsets.as_fd()));
            Ok::<_, Fault>(())
        })?;
    }
    if let Start::Detached(detached) = start {
        run_hooks(plan, child, report, detached, steps)?;
        return Ok(Launched {
            pid: child.pid,
            start_time: view::start_time(child.pid).unwrap_or(0),
            ..Launched::default()
        });
    }
    namespaces
        .enter_container_pid(child.pidfd.as_fd())
        .map_err(|fault| fault.of_step(Step::JoinNamespaces))?;
    let helper_pid = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    Ok(Launched {
        pid: child.pid,
        start_time: view::start_time(child.pid).unwrap_or(0),
        helper_pid,
        helper_start_time: view::start_time(helper_pid).unwrap_or(0),
        namespaces: namespaces.inodes(child.pid).unwrap_or_default(),
        ..Launched::default()
    })
}

/// The hooks of the host that come before `pivot_root`, when the child has come there.
fn run_hooks(
    plan: &LaunchPlan,
    child: &Child,
    report: &Report,
    detached: &Detached<'_>,
    steps: &mut Steps,
) -> Result<(), StepFailure> {
    if !plan.hooks.any_before_pivot() {
        return Ok(());
    }
    match report
        .wait_before_pivot()
        .map_err(|fault| fault.of_step(Step::Hooks))?
    {
        First::BeforePivot => {}
        First::Failed(failure) => return Err(failure),
        // How it ended is told by who waits for the program.
        First::End => return Ok(()),
    }
    steps.run_on(Step::Hooks, Some("on the host".to_owned()), |_| {
        let state = (detached.state)(Status::Creating, child.pid);
        hooks::run_all("prestart", &plan.hooks.prestart, &state)?;
        hooks::run_all("createRuntime", &plan.hooks.create_runtime, &state)
    })?;
    // A child that has died in the meantime has said why.
    let _ = report.go(None);
    Ok(())
}

/// The helper's part when the child has become the program.
fn conclude(
    mut launched: Launched,
    pipes: Option<Stdio>,
    child: &Child,
    namespaces: &Namespaces,
    mut steps: Steps,
    report: &Report,
) -> Result<(Launched, Option<Stdio>), StepFailure> {
    let mut heard = hear(child, report, &steps)?;
    let stdio = choose_stdio(pipes, heard.terminal.take());
    namespaces.refresh(&mut launched.namespaces, child.pid);
    steps.timings.append(&mut heard.timings);
    steps.timings.push(exec_timing(&steps));
    launched.timings = steps.timings;
    launched.warnings = steps.warnings;
    launched.warnings.append(&mut heard.warnings);
    Ok((launched, stdio))
}

/// Waits for the child's end of the report.
fn hear(child: &Child, report: &Report, steps: &Steps) -> Result<Heard, StepFailure> {
    let heard = report.listen().map_err(|fault| fault.of_step(Step::Exec))?;
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

fn choose_stdio(pipes: Option<Stdio>, terminal: Option<OwnedFd>) -> Option<Stdio> {
    pipes.or(terminal.map(|master| Stdio::Terminal { master }))
}

/// A supervisor has the other ends of its program's stdio.
fn check_stdio(stdio: Option<Stdio>, start: Start<'_>) -> Result<Option<Stdio>, StepFailure> {
    if stdio.is_none() && start.is_supervised() {
        return Err(Fault::refused("the terminal got lost").of_step(Step::Terminal));
    }
    Ok(stdio)
}

/// Starts a process inside a running container that this process has built.
///
/// # Errors
///
/// The step that failed; nothing of the process is left.
pub fn exec(
    container: &Built,
    launch: &LaunchPlan,
    plan: &ExecPlan,
) -> Result<ExecBuilt, StepFailure> {
    let running = Running {
        pidfd: container.pidfd.as_fd(),
        cgroup: &container.cgroup,
        membership: &container.membership,
        id_maps: (&launch.uid_map, &launch.gid_map),
    };
    let of_container = &launch.process.scheduling;
    let process = ProcessPlan {
        scheduling: plan.process.scheduling.in_container(of_container),
        ..plan.process.clone()
    };
    exec_as(running, &process, plan.stdin, Start::Supervised)
}

/// Starts a process inside a running container that somebody else has built. It goes its own way;
/// until it ends or this process does, it is a child of this process.
///
/// The caller must be a process with one thread, and is in the container's PID namespace for its
/// children afterwards.
///
/// # Errors
/// As [`exec`].
pub fn exec_detached(
    running: Running<'_>,
    process: &ProcessPlan,
    detached: &Detached<'_>,
) -> Result<ExecBuilt, StepFailure> {
    if running.membership.has_pid() {
        namespaces::join_process(running.pidfd, ThreadNameSpaceType::PROCESS_ID)
            .map_err(|fault| fault.of_step(Step::JoinNamespaces))?;
    }
    exec_as(running, process, false, Start::Detached(detached))
}

fn exec_as(
    running: Running<'_>,
    process: &ProcessPlan,
    stdin: bool,
    start: Start<'_>,
) -> Result<ExecBuilt, StepFailure> {
    let mut steps = Steps::start(None);
    let terminal = process.terminal.is_some();
    let (stdio, childs_stdio) =
        steps.run(Step::Stdio, |_| prepare_stdio(terminal, stdin, start))?;
    let maps = exec_maps(running);
    if let (Some(childs), Some((uids, gids))) = (&childs_stdio, maps)
        && let Some(uid) = namespaces::host_id(uids, 0)
    {
        childs
            .give_to(uid, namespaces::host_id(gids, 0))
            .map_err(|fault| fault.of_step(Step::Stdio))?;
    }
    let (report, childs_report) = Report::pair().map_err(|fault| fault.of_step(Step::Stdio))?;
    let forked = steps.run(Step::Clone, |_| spawn::fork(0, running.cgroup.clone_fd()))?;
    let child = match forked {
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
        Forked::Child => {
            drop(report);
            let exec = Exec {
                process,
                pidfd: running.pidfd,
                cgroup: running.cgroup,
                mask: running.membership.mask(),
                maps,
                stdio: childs_stdio,
                start,
            };
            child::run(
                |steps, report| exec.enter(steps, report),
                steps,
                &childs_report,
            )
        }
    };
    drop((childs_report, childs_stdio));
    let start_time = view::start_time(child.pid).unwrap_or(0);
    let started = hear(&child, &report, &steps).and_then(|mut heard| {
        let stdio = check_stdio(choose_stdio(stdio, heard.terminal.take()), start)?;
        Ok((stdio, heard.warnings))
    });
    let ((stdio, mut warnings), child) = child.or_end(started)?;
    warnings.splice(0..0, steps.warnings);
    Ok(ExecBuilt {
        pid: child.pid,
        start_time,
        pidfd: child.pidfd,
        stdio,
        warnings,
    })
}

/// The maps of the container's user namespace, empty where it was given and they are not known.
fn exec_maps(running: Running<'_>) -> Option<IdMaps<'_>> {
    match running.membership.user() {
        Origin::Host => None,
        Origin::New => Some(running.id_maps),
        Origin::Joined => Some((&[], &[])),
    }
}

/// The root filesystem of a container that does not run, as a detached mount: nothing is
/// mounted anywhere, and it is gone when the descriptor is closed.
pub fn open_rootfs(plan: &RootfsPlan) -> Result<OwnedFd, StepFailure> {
    rootfs::make(plan, None, &mut Vec::new()).map_err(|fault| fault.of_step(Step::Rootfs))
}
