//! The child: from the clone to the program. Everything here runs in the container's namespaces.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{chroot, fchdir, getpid, pivot_root, umask};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::ThreadNameSpaceType;

use super::agent::Agent;
use super::clocks;
use super::deadline::Deadline;
use super::detached::{Start, Status};
use super::exec::Running;
use super::mounts::{self, Context, Source};
use super::namespaces::{Birth, Namespaces, Origin, join, join_process};
use super::paths::Links;
use super::program::{LastFork, Program, give_up, harden};
use super::report::{FromChild, Report};
use super::rootfs::inherited_propagation;
use super::stdio::ChildStdio;
use super::steps::Steps;
use super::terminal::{self, Pty};
use super::tree::{Tree, attach, clone_mount};
use super::{devices, hooks, identity, labels, limits, masks, scheduling, sysctls};
use crate::cgroup::Cgroup;
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::oom;
use crate::sys::{self, MountAttr, mount_setattr};
use littlebox_protocol::{
    Defence, LaunchPlan, MountSource, NamespaceKind, ProcessPlan, Propagation, RootfsSource, Step,
    StepFailure,
};

/// What the child of a launch has from the helper.
#[derive(Debug)]
pub struct Container<'a> {
    /// The plan.
    pub plan: &'a LaunchPlan,
    /// Its namespaces.
    pub namespaces: &'a Namespaces,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// The root; `None`: it comes with the go.
    pub root: Option<OwnedFd>,
    /// What the helper has made, one for each mount of the plan.
    pub sources: Vec<Source>,
    /// A procfs for sysctls, where the child may not make it.
    pub proc: Option<OwnedFd>,
    /// The program's pipes; `None`: a terminal.
    pub stdio: Option<ChildStdio>,
    /// How the program is started.
    pub start: Start<'a>,
    /// Whom its filter leaves calls to.
    pub agent: Option<Agent<'a>>,
}

/// Runs the child's part and never returns: at its end is the program, or a report of what failed.
pub fn run(
    work: impl FnOnce(&mut Steps, &Report) -> Result<Infallible, StepFailure>,
    steps: Steps,
    report: &Report,
) -> ! {
    let mut steps = steps.fork();
    // What the helper and the Rust runtime have set is not the program's.
    sys::reset_signal_dispositions();
    umask(Mode::empty());
    let Err(failure) = work(&mut steps, report);
    give_up(failure, report)
}

impl<'a> Container<'a> {
    /// Builds the container around this process and becomes its program.
    pub fn build(mut self, steps: &mut Steps, report: &Report) -> Result<Infallible, StepFailure> {
        let plan = self.plan;
        if let Some(score) = plan.process.oom_score_adj {
            let subject = Some("oom_score_adj".to_owned());
            steps.run_on(Step::Rlimits, subject, |warnings| {
                limits::set_oom_score(score, warnings);
                Ok::<_, Fault>(())
            })?;
        } else if oom::is_protected() {
            let subject = Some("oom_score_adj".to_owned());
            steps.run_on(Step::Rlimits, subject, |_| oom::unprotect().fault("write"))?;
        }
        // Before the ids change: the directories belong to the host's root.
        steps.run_if(self.cgroup.has_v1(), Step::CgroupAttach, |_| {
            self.cgroup.attach_self_v1()
        })?;
        scheduling::set_cpus(&[]).map_err(|fault| fault.of_step(Step::Scheduling))?;
        self.enter_user_namespace(steps, report)?;
        self.enter_namespaces(steps)?;
        self.enter_time_namespace(steps, report)?;
        steps.run(Step::Propagation, |_| {
            cut_propagation(plan.rootfs.propagation)
        })?;
        if self.namespaces.origin(NamespaceKind::User) == Origin::New {
            // The helper makes the layers in the meantime.
            let ahead = Some("made ahead".to_owned());
            steps.run_on(Step::Mounts, ahead, |_| {
                self.make_ahead();
                Ok::<_, Fault>(())
            })?;
        }
        self.wait_for_layers(report)
            .map_err(|fault| fault.of_step(Step::AttachRoot))?;
        let Some(root) = self.root.take() else {
            return Err(Fault::refused("the root got lost").of_step(Step::AttachRoot));
        };
        let pty = self.build_mounts(root, steps, report)?;
        let stdio = hand_over_terminal(pty, self.stdio.take(), report)
            .map_err(|fault| fault.of_step(Step::Terminal))?;
        let program = Program {
            process: &plan.process,
            stdio,
            fork: match self.namespaces.birth() {
                Birth::Outside => LastFork::PidNamespace,
                Birth::Inside | Birth::Middle if plan.init => LastFork::Init,
                Birth::Inside | Birth::Middle => LastFork::None,
            },
            tie: self.start.tie_of_container(&plan.hooks),
            agent: self.agent.take(),
        };
        program.start(steps, report)
    }

    fn enter_user_namespace(&self, steps: &mut Steps, report: &Report) -> Result<(), StepFailure> {
        let (namespaces, plan) = (self.namespaces, self.plan);
        let user = namespaces.origin(NamespaceKind::User);
        steps.run_if(user != Origin::Host, Step::IdMaps, |_| {
            if user == Origin::New {
                report.wait_for_go()?;
            }
            identity::become_namespace_root(&plan.uid_map, &plan.gid_map)
        })
    }

    /// What the helper sees through the new id map: the root, if it is not there yet, and binds.
    fn wait_for_layers(&mut self, report: &Report) -> Result<(), Fault> {
        if self.namespaces.origin(NamespaceKind::User) == Origin::New
            && let Some(made) = report.wait_for_go()?
        {
            self.root = Some(made);
        }
        Ok(())
    }

    fn enter_namespaces(&self, steps: &mut Steps) -> Result<(), StepFailure> {
        let (plan, namespaces) = (self.plan, self.namespaces);
        let is_new = |kind| namespaces.origin(kind) == Origin::New;
        let own_names = namespaces.origin(NamespaceKind::Uts) != Origin::Host;
        let join = namespaces.joins_in_child();
        let joined = steps.across_time_namespace(|| {
            if join {
                namespaces.join_in_child()
            } else {
                Ok(())
            }
        });
        steps.run_if(join, Step::JoinNamespaces, |_| joined)?;
        steps.run_if(is_new(NamespaceKind::Cgroup), Step::CgroupNamespace, |_| {
            sys::unshare_cgroup_namespace().fault("unshare")
        })?;
        let named = plan.hostname.is_some() || plan.domainname.is_some();
        steps.run_if(named && own_names, Step::Hostname, |_| set_names(plan))?;
        let loopback = plan.loopback_up && is_new(NamespaceKind::Net);
        steps.run_if(loopback, Step::Loopback, |_| loopback_up())
    }

    fn enter_time_namespace(&self, steps: &mut Steps, report: &Report) -> Result<(), StepFailure> {
        let wanted = self.namespaces.clocks_are_set();
        let entered = steps.across_time_namespace(|| {
            if wanted {
                clocks::enter_own(&self.plan.time_offsets, report.wait_for_go()?)
            } else {
                Ok(())
            }
        });
        steps.run_if(wanted, Step::TimeNamespace, |_| entered)
    }

    /// The whole tree, up to the change of the root.
    fn build_mounts(
        &mut self,
        root: OwnedFd,
        steps: &mut Steps,
        report: &Report,
    ) -> Result<Option<Pty>, StepFailure> {
        let plan = self.plan;
        let mut tree = Tree::new(root);
        steps.run(Step::AttachRoot, |_| attach_root(&tree, plan))?;
        let dev_is_made = self.dev_is_made();
        self.mount_all(&mut tree, steps)?;
        steps.run_if(!dev_is_made, Step::Devices, |_| {
            devices::make(&tree, &plan.devices)
        })?;
        let elsewhere = !plan.devices.iter().all(devices::is_below_dev);
        steps.run_if(elsewhere, Step::Devices, |_| {
            devices::make_elsewhere(&tree, &plan.devices)
        })?;
        let cwd = &plan.process.cwd;
        if plan.process.create_cwd && stands(Defence::CwdInside) {
            // As long as the root is writable.
            let subject = Some(format!("make {}", cwd.display()));
            steps.run_on(Step::Cwd, subject, |_| {
                tree.ensure_dir(cwd, Links::Inside).map(drop)
            })?;
        }
        let pty = self.console(&tree, steps)?;
        let proc = self.proc.take();
        steps.run_if(!plan.sysctls.is_empty(), Step::Sysctls, |_| {
            sysctls::write(&plan.sysctls, self.namespaces, proc)
        })?;
        let labelled = !plan.process.labels.is_empty();
        steps.run_if(labelled, Step::SecurityLabels, |_| {
            labels::set(&plan.process.labels)
        })?;
        steps.run(Step::MaskedPaths, |_| {
            masks::apply(&tree, &plan.masked_paths, &plan.readonly_paths)
        })?;
        steps.run_if(plan.hooks.any_before_pivot(), Step::Hooks, |_| {
            self.hooks_before_pivot(&tree, report)
        })?;
        match self.namespaces.outer_mounts() {
            None => {
                steps.run(Step::PivotRoot, |_| {
                    change_root(&tree, plan.rootfs.propagation)
                })?;
                steps.run(Step::ReadonlyRoot, |_| tree.seal(plan.rootfs.read_only))?;
            }
            Some(outside) => {
                steps.run(Step::ReadonlyRoot, |_| tree.seal(plan.rootfs.read_only))?;
                steps.run(Step::PivotRoot, |_| take_outside(&tree, outside))?;
            }
        }
        Ok(pty)
    }

    /// The helper runs those of the host, this process those of the container. These begin in its root,
    /// as with runc: it is where relative paths of theirs belong.
    fn hooks_before_pivot(&self, tree: &Tree, report: &Report) -> Result<(), Fault> {
        let Start::Detached(detached) = self.start else {
            return Err(Fault::refused(
                "hooks are run by the OCI command line alone",
            ));
        };
        let list = &self.plan.hooks;
        report.say(&FromChild::BeforePivot, None).fault("sendmsg")?;
        report.wait_for_go()?;
        let pid = getpid().as_raw_nonzero().get().unsigned_abs();
        let state = (detached.state)(Status::Creating, pid);
        fchdir(tree.root()).fault("fchdir")?;
        umask(Mode::from_raw_mode(0o022));
        let done = hooks::run_all("createContainer", &list.create_container, &state);
        umask(Mode::empty());
        done
    }

    /// Whether the helper has filled `/dev` already.
    fn dev_is_made(&self) -> bool {
        let mounts = self.plan.mounts.iter().zip(&self.sources);
        mounts.into_iter().any(|(mount, source)| {
            mount.destination == std::path::Path::new("/dev")
                && matches!(mount.source, MountSource::Filesystem { .. })
                && matches!(source, Source::Tree(_))
        })
    }

    fn mount_context(&self) -> Context<'a> {
        let plan = self.plan;
        let known = !plan.uid_map.is_empty() && !plan.gid_map.is_empty();
        Context {
            cgroup: self.cgroup,
            maps: known.then_some((&*plan.uid_map, &*plan.gid_map)),
            cgroup_namespace: self.namespaces.origin(NamespaceKind::Cgroup) != Origin::Host,
        }
    }

    /// Makes what can be made without the root.
    fn make_ahead(&mut self) {
        let context = self.mount_context();
        for (mount, source) in self.plan.mounts.iter().zip(&mut self.sources) {
            let dev = mount.destination == std::path::Path::new("/dev");
            if matches!(source, Source::Nothing)
                && !dev
                && let Some(made) = mounts::make_ahead(mount, context)
            {
                *source = made;
            }
        }
    }

    fn mount_all(&mut self, tree: &mut Tree, steps: &mut Steps) -> Result<(), StepFailure> {
        let context = self.mount_context();
        for (plan, source) in self.plan.mounts.iter().zip(self.sources.drain(..)) {
            let subject = Some(plan.destination.display().to_string());
            steps.run_on(Step::Mounts, subject, |warnings| {
                mounts::mount(tree, plan, source, context, warnings)
            })?;
        }
        Ok(())
    }

    fn console(&self, tree: &Tree, steps: &mut Steps) -> Result<Option<Pty>, StepFailure> {
        let mut pty = None;
        steps.run_if(self.plan.process.terminal.is_some(), Step::Terminal, |_| {
            let Some(size) = self.plan.process.terminal else {
                return Ok(());
            };
            let made = terminal::open_in_tree(tree, size)?;
            if self.start.leaves_newlines() {
                made.leave_newlines()?;
            }
            terminal::bind_console(tree, &made.slave)?;
            pty = Some(made);
            Ok::<_, Fault>(())
        })?;
        Ok(pty)
    }
}

/// What the child of an exec has from the helper.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The plan.
    pub process: &'a ProcessPlan,
    /// The container.
    pub running: Running<'a>,
    /// The container's root, where it is not that of its mount namespace.
    pub root: Option<OwnedFd>,
    /// Whether this process was born in the container's PID namespace, or a child of it will be.
    pub fork: LastFork,
    /// The program's pipes; `None`: a terminal.
    pub stdio: Option<ChildStdio>,
    /// How the program is started.
    pub start: Start<'a>,
    /// Whom its filter leaves calls to; not connected yet.
    pub agent: Option<Agent<'a>>,
}

impl Exec<'_> {
    /// Enters the container and becomes the program.
    pub fn enter(mut self, steps: &mut Steps, report: &Report) -> Result<Infallible, StepFailure> {
        let (process, running) = (self.process, self.running);
        self.let_go_of_the_supervisors(report)
            .map_err(|fault| fault.of_step(Step::CloseFds))?;
        let tie = self.start.tie_of_exec();
        if let Some(agent) = &mut self.agent {
            // Here its path is the host's, and nobody else waits for it.
            let subject = Some("agent".to_owned());
            steps.run_on(Step::Seccomp, subject, |_| {
                agent.connect(tie.filters(), Deadline::after_ms(None))
            })?;
        }
        if let Some(score) = process.oom_score_adj {
            limits::set_oom_score(score, &mut steps.warnings);
        } else if oom::is_protected() {
            let subject = Some("oom_score_adj".to_owned());
            steps.run_on(Step::Rlimits, subject, |_| oom::unprotect().fault("write"))?;
        }
        let cpus = &process.scheduling.exec_affinity;
        let v1 = running.cgroups().any(Cgroup::has_v1);
        let initial = v1 && !cpus.initial.is_empty();
        steps.run_if(initial, Step::Scheduling, |_| {
            scheduling::set_cpus(&cpus.initial)
        })?;
        steps.run_if(v1, Step::CgroupAttach, |_| {
            running.cgroups().try_for_each(Cgroup::attach_self_v1)
        })?;
        scheduling::set_cpus(&cpus.finally).map_err(|fault| fault.of_step(Step::Scheduling))?;
        // Before the container's mounts are all that this process sees.
        let labelled = !process.labels.is_empty();
        steps.run_if(labelled, Step::SecurityLabels, |_| {
            labels::set(&process.labels)
        })?;
        let mut mask = running.membership.mask();
        if self.fork == LastFork::PidNamespace {
            mask |= ThreadNameSpaceType::PROCESS_ID;
        }
        let joined = steps.across_time_namespace(|| join_process(running.pidfd, mask));
        steps.run(Step::JoinNamespaces, |_| {
            joined?;
            if let Some(root) = &self.root {
                make_root(root.as_fd())?;
            }
            match running.maps() {
                Some((uids, gids)) => identity::become_namespace_root(uids, gids),
                // Joining may have changed the credentials; see prctl(2), PR_SET_DUMPABLE.
                None => harden(),
            }
        })?;
        let pty = match process.terminal {
            Some(size) => Some(steps.run(Step::Terminal, |_| {
                let made = terminal::open_joined(size)?;
                if self.start.leaves_newlines() {
                    made.leave_newlines()?;
                }
                Ok::<_, Fault>(made)
            })?),
            None => None,
        };
        let stdio = hand_over_terminal(pty, self.stdio.take(), report)
            .map_err(|fault| fault.of_step(Step::Terminal))?;
        let program = Program {
            process,
            stdio,
            fork: self.fork,
            tie,
            agent: self.agent.take(),
        };
        program.start(steps, report)
    }

    /// Closes what the supervisor has open and an exec has no use for: its listener, its connections,
    /// the stdin of programs. They end when the supervisor closes them, however long this process is
    /// on its way.
    fn let_go_of_the_supervisors(&self, report: &Report) -> Result<(), Fault> {
        if !self.start.is_supervised() || !stands(Defence::ClosedDescriptors) {
            return Ok(());
        }
        let cgroups = self.running.cgroups().flat_map(Cgroup::descriptors);
        let root = self.root.as_ref().map(AsFd::as_fd);
        let stdio = self.stdio.iter().flat_map(ChildStdio::descriptors);
        let own = [report.as_fd(), self.running.pidfd].into_iter();
        let kept = own.chain(cgroups).chain(root).chain(stdio);
        sys::close_all_but(kept, 3).fault("close_range")
    }
}

/// Sends both ends to the helper; the slave is the program's stdio.
fn hand_over_terminal(
    pty: Option<Pty>,
    pipes: Option<ChildStdio>,
    report: &Report,
) -> Result<ChildStdio, Fault> {
    match (pty, pipes) {
        (Some(pty), _) => {
            for (message, end) in [
                (FromChild::TerminalMaster, &pty.master),
                (FromChild::TerminalSlave, &pty.slave),
            ] {
                report.say(&message, Some(end.as_fd())).fault("sendmsg")?;
            }
            ChildStdio::of_terminal(pty.slave)
        }
        (None, Some(pipes)) => Ok(pipes),
        (None, None) => Err(Fault::refused("the program has no stdio")),
    }
}

/// On top of the host's root, below nothing that has a name: paths of the host still resolve,
/// because the root directory of this process is the mount underneath.
///
/// Hooks know the root by its path on the host, and mount into it: for them it is attached there.
/// In a user namespace that path may not be reachable; then they find it as all others do.
fn attach_root(tree: &Tree, plan: &LaunchPlan) -> Result<(), Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| open(path, flags, Mode::empty()).fault_at("open", path.display());
    let host = match &plan.rootfs.source {
        RootfsSource::Bind { path } if plan.hooks.any_before_pivot() => {
            open(path).or_else(|_| open(Path::new("/")))
        }
        RootfsSource::Bind { .. } | RootfsSource::Overlay { .. } => open(Path::new("/")),
    };
    attach(tree.root(), host?, Path::new("/"))
}

fn set_names(plan: &LaunchPlan) -> Result<(), Fault> {
    if let Some(name) = &plan.hostname {
        sethostname(name.as_bytes()).fault_at("sethostname", name)?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name.as_bytes()).fault_at("setdomainname", name)?;
    }
    Ok(())
}

fn loopback_up() -> Result<(), Fault> {
    // Any socket will do, and this is the cheapest; it belongs to the namespace it is made in.
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .fault("socket")?;
    sys::loopback_up(socket.as_fd()).fault_at("ioctl(SIOCSIFFLAGS)", "lo")
}

/// The inherited tree: what is mounted here must not appear on the host.
fn cut_propagation(propagation: Propagation) -> Result<(), Fault> {
    let flags = if inherited_propagation(propagation) == libc::MS_PRIVATE {
        MountPropagationFlags::PRIVATE
    } else {
        MountPropagationFlags::DOWNSTREAM
    };
    mount_change("/", flags | MountPropagationFlags::REC).fault_at("mount", "/")
}

/// `pivot_root(".", ".")` puts the old root on top of the new one, and the detach uncovers the
/// new one: no directory is needed for the old (pivot_root(2), "Notes").
fn change_root(tree: &Tree, propagation: Propagation) -> Result<(), Fault> {
    fchdir(tree.root()).fault("fchdir")?;
    pivot_root(".", ".").fault("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).fault("umount2")?;
    let (flag, deep) = mounts::propagation_flags(propagation);
    if flag == libc::MS_PRIVATE {
        // Nothing was shared since the root was made.
        return Ok(());
    }
    let attr = MountAttr {
        propagation: flag,
        ..MountAttr::default()
    };
    mount_setattr(tree.root(), deep, attr).fault_at("mount_setattr", "/")
}

/// The mount namespace is to be the host's or another's, where nothing may be mounted: the finished
/// tree goes along as a copy that is attached in none (open_tree(2)), and is this process' root.
/// It lives as long as somebody has it as root or has a file open in it. Nothing is above it, so
/// `..` ends there even for who may call chroot(2).
fn take_outside(tree: &Tree, outside: BorrowedFd<'_>) -> Result<(), Fault> {
    let copy = clone_mount(tree.root(), true)?;
    join(NamespaceKind::Mnt, outside)?;
    make_root(copy.as_fd())
}

fn make_root(directory: BorrowedFd<'_>) -> Result<(), Fault> {
    fchdir(directory).fault("fchdir")?;
    chroot(".").fault("chroot")
}
