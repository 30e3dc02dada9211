//! `exec`.

use std::fs::File;
use std::path::Path;

use littlebox_helper::build::{self, Detached, Running};
use littlebox_helper::cgroup::{Below, Cgroup};
use littlebox_plan::{ExecEnvelope, capability, exec_plan, scheduling, seccomp};
use littlebox_protocol::{LogPlan, ProcessPlan};
use oci_spec::runtime::{LinuxCapabilities, Process, Spec};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::find;
use crate::bundle::{CONFIG, parse_process, parse_spec, read_bounded};
use crate::cli::Exec;
use crate::console::{self, PidfdOf};
use crate::error::{Doing, Error, Result};
use crate::foreground::{self, Signals};
use crate::launch::check_preserved;
use crate::state::State;
use crate::store::{Entry, Record, Status, Store};
use crate::{log, pidfile};

/// Executes another program in a running container; in the foreground returns its exit code.
pub fn run(store: &Store, arguments: &Exec) -> Result<u8> {
    check_preserved(arguments.handed.preserve_fds)?;
    let (entry, record) = find(store, &arguments.id)?;
    check_status(&entry, &record, arguments)?;
    let mut plan = plan(&entry, &record, arguments)?;
    let socket = arguments.handed.console_socket.as_deref();
    let console = console::prepare(&mut plan.terminal, !arguments.detach, socket)?;
    let pidfd_socket = arguments.handed.connect_pidfd_socket()?;
    let signals = if arguments.detach {
        None
    } else {
        Some(Signals::take()?)
    };
    let built = enter(&entry, &record, &plan, arguments)?;
    for warning in &built.warnings {
        log::note(warning);
    }
    let mut master = console::master(built.stdio);
    if let Some(console) = console
        && let Some(master) = master.take()
    {
        console.send_terminal(&master)?;
    }
    if let Some(socket) = pidfd_socket {
        socket.send_pidfd(PidfdOf::Exec, &built.pidfd)?;
    }
    if let Some(path) = &arguments.handed.pid_file {
        pidfile::write(path, built.pid)?;
    }
    match signals {
        None => Ok(0),
        Some(signals) => foreground::wait(&built.pidfd, master, &signals),
    }
}

fn check_status(entry: &Entry, record: &Record, arguments: &Exec) -> Result<()> {
    match entry.status(record)? {
        Status::Running | Status::Created => Ok(()),
        Status::Paused if arguments.ignore_paused => Ok(()),
        Status::Paused => Err(Error::WrongState(format!(
            "cannot exec in a paused container (use --ignore-paused to override): {}",
            entry.id()
        ))),
        Status::Stopped => Err(Error::WrongState(format!(
            "cannot exec in a stopped container: {}",
            entry.id()
        ))),
        Status::Creating => Err(Error::wrong_state("exec in", entry.id(), Status::Creating)),
    }
}

fn enter(
    entry: &Entry,
    record: &Record,
    plan: &ProcessPlan,
    arguments: &Exec,
) -> Result<build::ExecBuilt> {
    let gone = || {
        Error::WrongState(format!(
            "cannot exec in a stopped container: {}",
            entry.id()
        ))
    };
    let (Some(process), Some(membership)) = (&record.process, &record.membership) else {
        return Err(gone());
    };
    let pidfd = match process.open() {
        Err(Errno::SRCH) => return Err(gone()),
        other => other.doing(|| format!("open process {}", process.pid))?,
    };
    let cgroup = enter_cgroup(record, &arguments.cgroup)?;
    let running = Running {
        pidfd: pidfd.as_fd(),
        pid: process.pid,
        cgroup: &cgroup,
        below: None,
        membership,
        id_maps: (&record.uid_map, &record.gid_map),
    };
    let detached = Detached {
        gate: None,
        preserved: arguments.handed.preserve_fds,
        leaves_newlines: !arguments.detach
            && arguments.handed.console_socket.is_none()
            && !foreground::is_shown(),
        own_keyring: true,
        // An exec has no hooks.
        state: &|_, _| String::new(),
    };
    Ok(build::exec_detached(running, plan, &detached)?)
}

/// The container's cgroup, or what `--cgroup` says of those below it.
fn enter_cgroup(record: &Record, below: &[String]) -> Result<Cgroup> {
    let parsed: Vec<(Vec<&str>, &Path)> = below
        .iter()
        .map(|text| match text.split_once(':') {
            Some((controllers, path)) => (controllers.split(',').collect(), Path::new(path)),
            None => (Vec::new(), Path::new(text)),
        })
        .collect();
    let below: Vec<Below<'_>> = parsed
        .iter()
        .map(|(controllers, path)| Below { controllers, path })
        .collect();
    Ok(Cgroup::enter(&record.cgroup, &below)?)
}

/// The process of `--process`, or the container's with what the flags say.
fn plan(entry: &Entry, record: &Record, arguments: &Exec) -> Result<ProcessPlan> {
    let document = arguments.process.as_deref();
    let spec = parse_spec(&entry.read_config()?)?;
    let process = match document {
        Some(path) => from_file(path)?,
        None => from_flags(&spec, arguments)?,
    };
    let filter = seccomp::of_spec(&spec).map_err(|error| Error::document(CONFIG, error))?;
    let pid = record.process.map(|process| process.pid);
    let status = entry.status(record)?.to_string();
    let state = State::new(entry.id(), record, &status, pid);
    // The rest of an exec's plan is the daemon's.
    let nowhere = || LogPlan {
        path: "/dev/null".into(),
        max_size: None,
        max_files: 0,
    };
    let envelope = ExecEnvelope {
        id: entry.id().to_string(),
        log: nowhere(),
        exit_record: nowhere().path,
        user: None,
        create_cwd: false,
        terminal_size: None,
        stdin: false,
        gate: false,
        seccomp: filter,
        state: state.map(),
        timeout_ms: None,
        start_timeout_ms: None,
    };
    let plan = exec_plan(&process, envelope)
        .map_err(|error| Error::document(document.unwrap_or(Path::new("process")), error))?;
    let of_container =
        scheduling::of_container(&spec).map_err(|error| Error::document(CONFIG, error))?;
    let scheduling = plan.process.scheduling.in_container(&of_container);
    Ok(ProcessPlan {
        scheduling,
        ..plan.process
    })
}

fn from_file(path: &Path) -> Result<Process> {
    let json = File::open(path)
        .and_then(read_bounded)
        .doing(|| format!("read {}", path.display()))?;
    parse_process(&json, path)
}

fn from_flags(spec: &Spec, arguments: &Exec) -> Result<Process> {
    let mut process = spec.process().clone().unwrap_or_default();
    if arguments.command.is_empty() {
        return Err(Error::Usage(
            "exec needs a command after the container's id, or --process".into(),
        ));
    }
    process.set_args(Some(arguments.command.clone()));
    process.set_terminal(Some(arguments.tty));
    if let Some(cwd) = &arguments.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(arguments.env.iter().cloned());
    process.set_env(Some(env));
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if arguments.apparmor.is_some() {
        process.set_apparmor_profile(arguments.apparmor.clone());
    }
    if arguments.process_label.is_some() {
        process.set_selinux_label(arguments.process_label.clone());
    }
    set_user(&mut process, arguments)?;
    add_capabilities(&mut process, &arguments.cap)?;
    Ok(process)
}

fn set_user(process: &mut Process, arguments: &Exec) -> Result<()> {
    let mut user = process.user().clone();
    if let Some(text) = &arguments.user {
        let wrong = || Error::Usage(format!("--user {text:?}: UID[:GID], both numbers"));
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        user.set_uid(uid.parse().map_err(|_| wrong())?);
        user.set_gid(gid.parse().map_err(|_| wrong())?);
        user.set_additional_gids(None);
    }
    if !arguments.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&arguments.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    Ok(())
}

/// Into the bounding, permitted and effective sets: an exec inherits nothing (CVE-2022-29162) but what
/// the container's process does, and that is ambient then (capabilities(7), "Ambient").
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = 0;
    for name in names {
        let number = capability::number(name)
            .ok_or_else(|| Error::Usage(format!("--cap: there is no capability {name:?}")))?;
        added |= 1 << number;
    }
    let mut sets = process
        .capabilities()
        .clone()
        .unwrap_or_else(no_capabilities);
    let with = |set: &Option<_>| {
        let mask = set.as_ref().map_or(0, capability::to_mask);
        Some(capability::from_mask(mask | added))
    };
    let (bounding, permitted, effective) = (
        with(sets.bounding()),
        with(sets.permitted()),
        with(sets.effective()),
    );
    let inheritable = sets.inheritable().as_ref().map_or(0, capability::to_mask);
    let ambient = sets.ambient().as_ref().map_or(0, capability::to_mask);
    let ambient = capability::from_mask(ambient | added & inheritable);
    sets.set_bounding(bounding)
        .set_permitted(permitted)
        .set_effective(effective)
        .set_ambient(Some(ambient));
    process.set_capabilities(Some(sets));
    Ok(())
}

/// The crate's default is a set of three.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None)
        .set_permitted(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_ambient(None);
    none
}
