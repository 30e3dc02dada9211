//! A helper's beginning: its first message says what it is for.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::connection::Connection;
use super::event_loop::Supervisor;
use super::log::LogWriter;
use super::output::Streams;
use super::program::{Kind, Program, Started};
use super::run_dir::{self, RunDir};
use crate::build;
use crate::cgroup::Cgroup;
use crate::defence;
use littlebox_protocol::channel::{self, ChannelError, Received, Wait};
use littlebox_protocol::{
    CgroupPlan, First, FromHelper, LaunchPlan, Reply, Step, StepFailure, StepTiming, bounds,
};

/// The connection that a helper is born with; others come from the path socket.
const FIRST_CONNECTION: u64 = 0;

/// The whole life of a helper after its fork. What fails is told on the connection.
pub fn run(connection: OwnedFd) -> ExitCode {
    match serve_first(connection) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "littlebox-helper: first connection: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_first(connection: OwnedFd) -> Result<(), ChannelError> {
    set_blocking(&connection)?;
    let (first, fds) = match channel::receive(connection.as_fd(), Wait::Block)? {
        Received::Message(first, fds) => (first, fds),
        Received::Closed | Received::NothingYet => return Ok(()),
    };
    match first {
        First::Launch(plan) => launch(connection, *plan, fds),
        First::OpenRootfs {
            plan,
            uid_map,
            gid_map,
        } => match build::open_rootfs(&plan, &uid_map, &gid_map) {
            Ok(root) => answer(&connection, Reply::Done, vec![root]),
            Err(failure) => answer(&connection, Reply::Failed(failure), Vec::new()),
        },
        First::RemoveCgroup(plan) => answer(&connection, remove_cgroup(*plan), Vec::new()),
        First::NamespaceRelations(namespaces) => {
            let relations = crate::nsinfo::relations(&namespaces);
            answer(
                &connection,
                Reply::NamespaceRelations(relations),
                Vec::new(),
            )
        }
    }
}

/// Ends and removes what a helper that crashed has left.
fn remove_cgroup(plan: CgroupPlan) -> Reply {
    let removed = Cgroup::open(&plan).and_then(|cgroup| {
        cgroup.kill_all()?;
        cgroup.remove()
    });
    match removed {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed(StepFailure {
            step: Step::Cgroup,
            errno: error.raw_os_error().unwrap_or(0),
            syscall: "rmdir".to_owned(),
            path: plan.path.map(|path| path.to_string_lossy().into_owned()),
            detail: Some(error.to_string()),
        }),
    }
}

/// Builds the container, tells how that went, and supervises it.
fn launch(connection: OwnedFd, plan: LaunchPlan, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
    let begun = Instant::now();
    set_process_name(&plan.id);
    let (run_dir, log) = match prepare(&plan) {
        Ok(prepared) => prepared,
        Err(failure) => return answer(&connection, Reply::Failed(failure), Vec::new()),
    };
    let prepared = begun.elapsed();
    let mut built = match build::launch(&plan, fds) {
        Ok(built) => built,
        Err(failure) => {
            run_dir.remove_socket();
            return answer(&connection, Reply::Failed(failure), Vec::new());
        }
    };
    add_run_dir_timing(&mut built.launched.timings, prepared);
    let (pidfd, told) = match duplicate(&built.pidfd) {
        Ok((ours, theirs)) => (ours, theirs),
        Err(errno) => {
            undo(&built, &run_dir);
            let failure = run_dir::failure("fcntl", errno, plan.run_dir);
            return answer(&connection, Reply::Failed(failure), Vec::new());
        }
    };
    let reply = Reply::Launched(Box::new(built.launched.clone()));
    match answer(&connection, reply, vec![told]) {
        // A daemon that went away in the meantime finds the container again by its path socket.
        Err(error) if !error.is_hang_up() => {
            // It is there and would wait for the answer for ever.
            undo(&built, &run_dir);
            return answer(&connection, Reply::Failed(untold(&error)), Vec::new());
        }
        Ok(()) | Err(_) => {}
    }
    supervise(connection, plan, built, pidfd, run_dir, log);
    Ok(())
}

/// The path socket and the log: there before the program runs, also when it prints nothing.
fn prepare(plan: &LaunchPlan) -> Result<(RunDir, LogWriter), StepFailure> {
    defence::weaken(plan.weaken);
    if let Some(injection) = &plan.inject
        && injection.step == Step::RunDir
    {
        inject(injection.errno)?;
    }
    let run_dir = RunDir::open(&plan.run_dir)?;
    let log = LogWriter::open(&plan.log).map_err(|error| {
        run_dir.remove_socket();
        run_dir::failure(error.syscall, error.errno, error.path)
    })?;
    Ok((run_dir, log))
}

/// A failure that a test asked for; with errno 0 this process kills itself.
fn inject(errno: i32) -> Result<(), StepFailure> {
    if errno == 0 {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
    Err(StepFailure {
        step: Step::RunDir,
        errno,
        syscall: String::new(),
        path: None,
        detail: Some("injected by a test".to_owned()),
    })
}

/// Two duplicates of a pidfd: the supervisor's and the daemon's.
fn duplicate(pidfd: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let ours = rustix::io::fcntl_dupfd_cloexec(pidfd, 3)?;
    let theirs = rustix::io::fcntl_dupfd_cloexec(pidfd, 3)?;
    Ok((ours, theirs))
}

/// The container runs, and the daemon could not be told.
fn untold(error: &ChannelError) -> StepFailure {
    StepFailure {
        step: Step::RunDir,
        errno: 0,
        syscall: String::new(),
        path: None,
        detail: Some(format!("the answer could not be sent: {error}")),
    }
}

/// Ends a container that was built but cannot be supervised.
fn undo(built: &build::Built, run_dir: &RunDir) {
    // The failure that brought us here is the one to tell; what does not die within these bounds is
    // swept by the daemon.
    let _ = crate::sys::pidfd_send_signal(built.pidfd.as_fd(), libc::SIGKILL);
    let _ = built.cgroup.kill_all();
    build::ends_within(built.pidfd.as_fd(), bounds::REAP);
    build::reap(built.pidfd.as_fd());
    let _ = built.cgroup.remove();
    run_dir.remove_socket();
}

fn supervise(
    connection: OwnedFd,
    plan: LaunchPlan,
    mut built: build::Built,
    pidfd: OwnedFd,
    run_dir: RunDir,
    log: LogWriter,
) {
    let stdio = built
        .stdio
        .take()
        .expect("a container just built has its stdio");
    let mut container = Program::new(Started {
        kind: Kind::Container,
        pid: built.launched.pid,
        own: None,
        pidfd,
        streams: Streams::new(stdio, plan.stdin),
        log,
        deadline: None,
        // Its cgroup was made for it.
        oom_kills_before: 0,
    });
    if plan.gate {
        container.hold_from_here(FIRST_CONNECTION);
    }
    let first = Connection::new(FIRST_CONNECTION, connection);
    Supervisor::new(slim(plan), built, container, run_dir, first).run();
}

/// The plan without what only the start needed: a helper lives long and is to be small.
fn slim(plan: LaunchPlan) -> LaunchPlan {
    let mut slim = LaunchPlan {
        mounts: Vec::new(),
        devices: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctls: std::collections::BTreeMap::new(),
        time_offsets: std::collections::BTreeMap::new(),
        ..plan
    };
    slim.process.args = Vec::new();
    slim.process.env = Vec::new();
    slim
}

/// Puts this module's step in front of the builder's.
fn add_run_dir_timing(timings: &mut Vec<StepTiming>, took: Duration) {
    let duration_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    for timing in timings.iter_mut() {
        timing.start_ns = timing.start_ns.saturating_add(duration_ns);
    }
    let own = StepTiming {
        step: Step::RunDir,
        subject: None,
        start_ns: 0,
        duration_ns,
    };
    timings.insert(0, own);
}

/// `littlebox:` and the end of the container's id (its beginning is the time, and the same for
/// many): a process name has 15 bytes.
fn set_process_name(id: &str) {
    let tail = id.char_indices().rev().nth(4).map_or(0, |(at, _)| at);
    if let Ok(name) = CString::new(format!("littlebox:{}", &id[tail..])) {
        let _ = rustix::thread::set_name(&name);
    }
}

fn answer(connection: &OwnedFd, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
    channel::send(
        connection.as_fd(),
        &FromHelper::Reply { seq: 0, reply },
        fds,
    )
}

/// Until the launch is answered there is nothing else to do than to wait on the connection.
fn set_blocking(connection: &OwnedFd) -> Result<(), ChannelError> {
    let failed = |errno| ChannelError::Io {
        syscall: "fcntl",
        errno,
    };
    let flags = rustix::fs::fcntl_getfl(connection).map_err(failed)?;
    rustix::fs::fcntl_setfl(connection, flags - OFlags::NONBLOCK).map_err(failed)
}
