//! From a bundle to a container, for `create` and for `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use littlebox_helper::build::{self, Built, Detached, Status, gate};
use littlebox_helper::sys;
use littlebox_protocol::{CgroupPlan, ExistingCgroup, HooksPlan, LaunchPlan};

use crate::bundle::Bundle;
use crate::cli::{CgroupManager, Create, Global};
use crate::console::{self, EngineSocket, PidfdOf};
use crate::error::{Doing, Result, fault};
use crate::id::Id;
use crate::process::{Process, wait_for_end};
use crate::signal::SIGKILL;
use crate::state::State;
use crate::store::{Entry, Record, Store};
use crate::systemd::Scope;
use crate::{cgroup, foreground, log, pidfile};

/// What becomes of a container's program when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It waits for `start`.
    Wait,
    /// It runs, and this process goes.
    Leave,
    /// It runs, and this process waits for it.
    Stay,
}

/// A container that was built.
#[derive(Debug)]
pub struct Launched {
    /// Its directory, locked.
    pub entry: Entry,
    /// What is known of it.
    pub record: Record,
    /// PID 1, a child of this process.
    pub pidfd: OwnedFd,
    /// The master of its terminal, where nobody else got it.
    pub master: Option<OwnedFd>,
}

/// Everything that was checked before anything is made.
struct Prepared {
    id: Id,
    bundle: Bundle,
    plan: LaunchPlan,
    namespaces: Vec<OwnedFd>,
    sockets: Sockets,
    scope: Option<Scope>,
    preserved: u32,
}

/// Whom descriptors of the container are sent to.
struct Sockets {
    console: Option<EngineSocket>,
    pidfd: Option<EngineSocket>,
}

/// Builds the container.
///
/// # Errors
/// What is wrong with the bundle, or the step that failed. Nothing of the container is left.
pub fn launch(global: &Global, arguments: &Create, then: Then) -> Result<Launched> {
    let store = Store::new(global.root.clone());
    let prepared = prepare(global, &store, arguments, then)?;
    let entry = store.create(&prepared.id)?;
    build(&entry, prepared, arguments, then)
        .inspect_err(|_| {
            // The first error is the one to tell.
            let _ = entry.remove();
        })
        .map(|(record, pidfd, master)| Launched {
            entry,
            record,
            pidfd,
            master,
        })
}

fn prepare(global: &Global, store: &Store, arguments: &Create, then: Then) -> Result<Prepared> {
    let id: Id = arguments.id.parse()?;
    let activation = Activation::of_caller();
    check_preserved(activation.preserved(arguments))?;
    let bundle = Bundle::read(&arguments.bundle, arguments.config.as_deref())?;
    let scope = if global.has_systemd_cgroup() {
        Some(cgroup::scope(&bundle.spec, &id)?)
    } else {
        None
    };
    let (cgroup, existing) = match &scope {
        Some(scope) => (scope.container_path(), ExistingCgroup::Use),
        None => (cgroup::path(&bundle.spec, &id)?, ExistingCgroup::UseEmpty),
    };
    let run_dir = store.path_of(&id);
    let (mut plan, namespaces) = bundle.plan(&id, &run_dir, cgroup, existing)?;
    // What engines and their monitors expect of a runtime.
    plan.cgroup.every_hierarchy = true;
    if global.cgroup_manager == CgroupManager::Disabled {
        leave_cgroup_out(&mut plan.cgroup);
    }
    activation.pass_on(&mut plan.process.env);
    let console = arguments.handed.console_socket.as_deref();
    let sockets = Sockets {
        console: console::prepare(&mut plan.process.terminal, then == Then::Stay, console)?,
        pidfd: arguments.handed.connect_pidfd_socket()?,
    };
    Ok(Prepared {
        id,
        bundle,
        plan,
        namespaces,
        sockets,
        scope,
        preserved: activation.preserved(arguments),
    })
}

/// The container stays in its caller's cgroup, whose limits are not its own to change.
fn leave_cgroup_out(plan: &mut CgroupPlan) {
    if !plan.resources.is_empty() {
        log::warn("without a cgroup the limits and device rules of linux.resources are not set");
    }
    plan.path = None;
    plan.resources = Default::default();
}

/// Listening sockets that the caller was activated with (sd_listen_fds(3)): they come first of what is
/// passed on, and the program hears of them as systemd would have told it.
#[derive(Debug, Clone, Copy)]
struct Activation {
    sockets: u32,
}

impl Activation {
    /// `LISTEN_FDS`; not where `LISTEN_PID` says that it was meant for another process.
    fn of_caller() -> Activation {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let for_another = number("LISTEN_PID").is_some_and(|pid| pid != std::process::id());
        let sockets = number("LISTEN_FDS").filter(|_| !for_another);
        Activation {
            sockets: sockets.unwrap_or(0),
        }
    }

    fn preserved(self, arguments: &Create) -> u32 {
        self.sockets.saturating_add(arguments.handed.preserve_fds)
    }

    fn pass_on(self, env: &mut Vec<String>) {
        if self.sockets == 0 {
            return;
        }
        env.retain(|entry| !entry.starts_with("LISTEN_"));
        env.push(format!("LISTEN_FDS={}", self.sockets));
        env.push("LISTEN_PID=1".to_owned());
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            env.push(format!("LISTEN_FDNAMES={names}"));
        }
    }
}

/// Descriptors that the caller means to pass on must be there; else they would be others by then.
pub fn check_preserved(count: u32) -> Result<()> {
    (3..count.saturating_add(3)).try_for_each(|fd| {
        std::fs::symlink_metadata(format!("/proc/self/fd/{fd}"))
            .map(drop)
            .doing(|| format!("--preserve-fds and LISTEN_FDS, {count} in all: descriptor {fd}"))
    })
}

type Parts = (Record, OwnedFd, Option<OwnedFd>);

fn build(entry: &Entry, prepared: Prepared, arguments: &Create, then: Then) -> Result<Parts> {
    let Prepared {
        id,
        bundle,
        plan,
        namespaces,
        sockets,
        scope,
        preserved,
    } = prepared;
    entry.write_config(&bundle.json)?;
    let mut record = new_record(&bundle, &plan);
    record.scope = scope.as_ref().map(|scope| scope.unit().to_owned());
    entry.write(&record)?;
    // Hooks expect it, and relative paths of theirs.
    std::env::set_current_dir(&bundle.dir)
        .doing(|| format!("enter the bundle {}", bundle.dir.display()))?;
    let gate = match then {
        Then::Wait => Some(gate::make(entry.dir()).map_err(fault)?),
        Then::Leave | Then::Stay => None,
    };
    // In the scope until the container is.
    let holder = scope.map(|scope| scope.start(&id)).transpose()?;
    let state =
        |status: Status, pid: u32| State::new(&id, &record, status.name(), Some(pid)).json();
    let detached = Detached {
        gate: gate.as_ref().map(AsFd::as_fd),
        preserved,
        leaves_newlines: then == Then::Stay && sockets.console.is_none() && !foreground::is_shown(),
        own_keyring: !arguments.no_new_keyring,
        state: &state,
    };
    let mut built = build::launch_detached(&plan, namespaces, &detached)?;
    drop(holder);
    for warning in &built.launched.warnings {
        log::note(warning);
    }
    record.process = Some(Process {
        pid: built.launched.pid,
        start_time: built.launched.start_time,
    });
    record.membership = Some(built.membership.clone());
    let master = console::master(built.stdio.take());
    match publish(entry, &record, arguments, &sockets, &built.pidfd, master) {
        Ok(master) => Ok((record, built.pidfd, master)),
        Err(error) => {
            end(&built);
            Err(error)
        }
    }
}

fn new_record(bundle: &Bundle, plan: &LaunchPlan) -> Record {
    Record {
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        annotations: bundle.annotations(),
        created: log::rfc3339(SystemTime::now()),
        process: None,
        cgroup: CgroupPlan {
            resources: Default::default(),
            ..plan.cgroup.clone()
        },
        scope: None,
        membership: None,
        uid_map: plan.uid_map.clone(),
        gid_map: plan.gid_map.clone(),
        agent: plan.process.seccomp.as_ref().and_then(|filter| {
            let listener = filter.listener.as_ref()?;
            Some(listener.path.clone())
        }),
        hooks: HooksPlan {
            start_container: plan.hooks.start_container.clone(),
            poststart: plan.hooks.poststart.clone(),
            poststop: plan.hooks.poststop.clone(),
            ..HooksPlan::default()
        },
    }
}

/// Tells the world: the record, the terminal, the PID file last, because engines wait for it.
fn publish(
    entry: &Entry,
    record: &Record,
    arguments: &Create,
    sockets: &Sockets,
    pidfd: &OwnedFd,
    master: Option<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    entry.write(record)?;
    let master = match (&sockets.console, master) {
        (Some(console), Some(master)) => {
            console.send_terminal(&master)?;
            None
        }
        (_, master) => master,
    };
    if let Some(socket) = &sockets.pidfd {
        socket.send_pidfd(PidfdOf::Container, pidfd)?;
    }
    if let (Some(path), Some(process)) = (&arguments.handed.pid_file, &record.process) {
        pidfile::write(path, process.pid)?;
    }
    Ok(master)
}

/// Ends a container that was built and cannot be used.
fn end(built: &Built) {
    // The error that brought us here is the one to tell.
    let _ = sys::pidfd_send_signal(built.pidfd.as_fd(), SIGKILL);
    let _ = built.cgroup.kill_all();
    let _ = wait_for_end(&built.pidfd, Duration::from_secs(10));
    let _ = built.cgroup.remove();
}
