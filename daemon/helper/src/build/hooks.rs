//! Hooks: programs that are run with the container's state on their stdin (OCI config.md,
//! "POSIX-platform Hooks").

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::agent::{Agent, Handover};
use super::seccomp;
use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::{HookPlan, ProcessPlan, bounds};

/// How much of what a hook printed is told when it fails.
const OUTPUT_LIMIT: u64 = 4096;

/// Runs hooks in their order, until one fails. `name` is their list's in the specification. One that
/// says nothing of its environment has this process'.
///
/// # Errors
/// The first that could not be run, did not return 0, or took longer than its timeout; with what it
/// printed.
pub fn run_all(name: &str, hooks: &[HookPlan], state: &str) -> Result<(), Fault> {
    hooks
        .iter()
        .try_for_each(|hook| run(name, hook, state, |_| {}))
}

/// Runs `startContainer` hooks: as all that is executed in the container they are under the filter of
/// its process, which may leave calls to an `agent`, and one that says nothing of its environment has
/// the process's.
///
/// # Errors
/// As [`run_all`].
pub fn run_in_container(
    hooks: &[HookPlan],
    state: &str,
    process: &ProcessPlan,
    home: Option<&str>,
    agent: &mut Option<Agent<'_>>,
) -> Result<(), Fault> {
    hooks.iter().try_for_each(|hook| {
        let mut introduction = agent.as_mut().map(Agent::introduction).transpose()?;
        run("startContainer", hook, state, |command| {
            if hook.env.is_none() {
                let env = process.env.iter().filter_map(|entry| entry.split_once('='));
                let home = home.map(|home| ("HOME", home));
                command.env_clear().envs(env).envs(home);
            }
            let process = process.clone();
            sys::before_exec(command, move || {
                // The output of a hook that fails becomes part of the error.
                let tell = |fault: Fault| {
                    let _ = writeln!(std::io::stderr(), "{}", fault.sentence());
                };
                let handover = introduction.take().map(|i| Handover::begin(i, tell));
                let handover = handover.transpose();
                let loaded = handover.and_then(|handover| seccomp::load(&process, handover));
                loaded.map_err(|fault| std::io::Error::from_raw_os_error(fault.errno))
            });
        })
    })
}

fn run(
    name: &str,
    hook: &HookPlan,
    state: &str,
    prepare: impl FnOnce(&mut Command),
) -> Result<(), Fault> {
    try_run(hook, state, prepare).map_err(|why| {
        Fault::refused(format!("the {name} hook failed: {why}")).at(hook.path.display())
    })
}

fn try_run(hook: &HookPlan, state: &str, prepare: impl FnOnce(&mut Command)) -> Result<(), String> {
    let output = memory_file("").map_err(describe)?;
    let mut command = command(hook, state, &output).map_err(describe)?;
    prepare(&mut command);
    let child = command.spawn().map_err(|error| error.to_string())?;
    // With the connection to an agent.
    drop(command);
    match wait(child, hook.timeout_s) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(with_output(how(status), output)),
        Err(why) => Err(with_output(why, output)),
    }
}

/// Files, not pipes: a hook that does not read its stdin, or leaves a child with its stdout behind,
/// can block nobody.
fn command(hook: &HookPlan, state: &str, output: &File) -> Result<Command, Fault> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if let Some(env) = &hook.env {
        let env = env.iter().filter_map(|entry| entry.split_once('='));
        command.env_clear().envs(env);
    }
    command
        .stdin(memory_file(state)?)
        .stdout(output.try_clone().fault("fcntl")?)
        .stderr(Stdio::from(output.try_clone().fault("fcntl")?));
    Ok(command)
}

fn memory_file(content: &str) -> Result<File, Fault> {
    let fd = memfd_create("hook", MemfdFlags::CLOEXEC).fault("memfd_create")?;
    let mut file = File::from(fd);
    file.write_all(content.as_bytes()).fault("write")?;
    file.rewind().fault("lseek")?;
    Ok(file)
}

fn wait(mut child: Child, timeout_s: Option<u64>) -> Result<ExitStatus, String> {
    if let Some(seconds) = timeout_s
        && !ends_within(&child, Duration::from_secs(seconds)).map_err(describe)?
    {
        // It may end in this moment: then there is only the reaping.
        let _ = child.kill();
        // In an uninterruptible wait it cannot be reaped now; init reaps it later.
        if ends_within(&child, bounds::REAP).unwrap_or(false) {
            let _ = child.wait();
        }
        return Err(format!("it was killed after its timeout of {seconds} s"));
    }
    child.wait().map_err(|error| error.to_string())
}

fn ends_within(child: &Child, time: Duration) -> Result<bool, Fault> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Errno::SRCH).fault("pidfd_open")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).fault("pidfd_open")?;
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(Fault::of("poll", errno)),
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it returned {code}"),
        (None, Some(signal)) => format!("signal {signal} killed it"),
        (None, None) => "nobody knows how it ended".to_owned(),
    }
}

fn describe(fault: Fault) -> String {
    let errno = std::io::Error::from_raw_os_error(fault.errno);
    format!("{}: {errno}", fault.syscall)
}

fn with_output(why: String, mut output: File) -> String {
    let mut text = Vec::new();
    // What it printed is a help, no more: what cannot be read is left out.
    let read = output
        .rewind()
        .and_then(|()| output.take(OUTPUT_LIMIT).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        printed if read.is_ok() && !printed.is_empty() => format!("{why}: {printed}"),
        _ => why,
    }
}
