//! The helper's side of a start while its child works.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::deadline::Deadline;
use super::detached::{Detached, Start, Status};
use super::guard::Child;
use super::namespaces::{self, Namespaces, Origin};
use super::report::{First, Heard, Report};
use super::steps::Steps;
use super::{Parts, clocks, dying, hooks, ids, view};
use crate::cgroup::Cgroup;
use crate::fault::Fault;
use littlebox_protocol::{LaunchPlan, Launched, NamespaceKind, Step, StepFailure};

/// The helper's part while the child works.
///
/// It never waits for the child beyond the deadline. What it does itself, before the clone and here,
/// cannot be interrupted by itself: a source on a file system that does not answer (FUSE, NFS) may
/// hold it. Then it is the daemon that ends this process.
pub struct Watch<'a> {
    /// The plan.
    pub plan: &'a LaunchPlan,
    /// Its namespaces.
    pub namespaces: &'a Namespaces,
    /// The child.
    pub child: &'a Child,
    /// What it says.
    pub report: &'a Report,
    /// How the program is started.
    pub start: Start<'a>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// When the start has taken too long.
    pub deadline: Deadline,
}

impl Watch<'_> {
    /// Maps, clocks, what is seen through the maps, hooks: up to where the child goes on alone.
    pub fn work(&self, parts: &mut Parts, steps: &mut Steps) -> Result<Launched, StepFailure> {
        let inodes = self.namespaces.inodes(self.child.pid).unwrap_or_default();
        self.write_maps_and_clocks(steps)?;
        if self.namespaces.origin(NamespaceKind::User) == Origin::New {
            let userns = namespaces::open_user_namespace(self.child.pid)
                .map_err(|fault| fault.of_step(Step::IdMaps))?;
            parts.see_through(self.plan, Some(ids(self.plan, userns.as_fd())), steps)?;
            let root = parts.root.as_ref().map(AsFd::as_fd);
            let told = self.report.go(root);
            told.map_err(|fault| fault.of_step(Step::AttachRoot))?;
        }
        parts.root = None;
        parts.sources.clear();
        let launched = Launched {
            pid: self.child.pid,
            start_time: view::start_time(self.child.pid).unwrap_or(0),
            ..Launched::default()
        };
        if let Start::Detached(detached) = self.start {
            self.run_hooks(detached, steps)?;
            return Ok(launched);
        }
        let helper_pid = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        Ok(Launched {
            helper_pid,
            helper_start_time: view::start_time(helper_pid).unwrap_or(0),
            namespaces: inodes,
            idmaps: std::mem::take(&mut parts.idmaps),
            ..launched
        })
    }

    fn write_maps_and_clocks(&self, steps: &mut Steps) -> Result<(), StepFailure> {
        let plan = self.plan;
        if self.namespaces.origin(NamespaceKind::User) == Origin::New {
            steps.run(Step::IdMaps, |_| {
                namespaces::write_id_maps(self.child.pid, &plan.uid_map, &plan.gid_map)?;
                self.report.go(None)
            })?;
        }
        if self.namespaces.clocks_are_set() {
            steps.run(Step::TimeNamespace, |_| {
                let offsets = clocks::open_offsets(self.child.pid)?;
                self.report.go(Some(offsets.as_fd()))
            })?;
        }
        Ok(())
    }

    /// The hooks of the host that come before `pivot_root`, when the child has come there.
    fn run_hooks(&self, detached: &Detached<'_>, steps: &mut Steps) -> Result<(), StepFailure> {
        let (hooks, pid) = (&self.plan.hooks, self.child.pid);
        if !hooks.any_before_pivot() {
            return Ok(());
        }
        let first = self.report.wait_before_pivot(self.deadline);
        match first.map_err(|fault| fault.of_step(Step::Hooks))? {
            Some(First::BeforePivot) => {}
            Some(First::Failed(failure)) => return Err(failure),
            // The caller, which waits for the program, finds out how it ended.
            Some(First::End) => return Ok(()),
            None => return Err(self.late(steps)),
        }
        steps.run_on(Step::Hooks, Some("on the host".to_owned()), |_| {
            // prestart hooks were once part of the start, and find the state as it was then.
            let state = (detached.state)(Status::Created, pid);
            hooks::run_all("prestart", &hooks.prestart, &state)?;
            let state = (detached.state)(Status::Creating, pid);
            hooks::run_all("createRuntime", &hooks.create_runtime, &state)?;
            self.report.go(None)
        })
    }

    /// All that the child has said when its program runs, or it has ended.
    pub fn listen(&self, steps: &Steps) -> Result<Heard, StepFailure> {
        let of_exec = |fault: Fault| fault.of_step(Step::Exec);
        if !self.report.wait_for_end(self.deadline).map_err(of_exec)? {
            return Err(self.late(steps));
        }
        self.report.drain().map_err(of_exec)
    }

    fn late(&self, steps: &Steps) -> StepFailure {
        let heard = self.report.drain().unwrap_or_default();
        let failure = too_late(self.child, &heard, steps, self.deadline, self.cgroup);
        if let Some(successor) = heard.forked {
            // The child itself is ended by who has it.
            successor.kill();
            dying::bury_later(successor);
        }
        heard.failure.unwrap_or(failure)
    }
}

/// Why a start or an exec is given up that has not come to its program in time: where it is, and what
/// holds it there.
pub fn too_late(
    child: &Child,
    heard: &Heard,
    steps: &Steps,
    deadline: Deadline,
    cgroup: &Cgroup,
) -> StepFailure {
    let step = steps.step_of_child().unwrap_or(Step::Clone);
    let at_work = heard.forked.as_ref().unwrap_or(child);
    let (limit, why) = (deadline.limit(), at_work.what_holds_it(cgroup));
    let name = step.name();
    Fault::refused(format!("not started within {limit} in step {name}: {why}"))
        .with_errno(Errno::TIMEDOUT)
        .of_step(step)
}
