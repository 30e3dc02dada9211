//! The daemon's requests.

use std::io;
use std::os::fd::AsFd;

use super::event_loop::{Fds, Supervisor};
use super::output::StreamError;
use super::program::{Kind, Program};
use crate::build;
use crate::protocol::{Call, PROTOCOL_VERSION, Reply, Request, Status, Step, StepFailure, Target};
use crate::sys::pidfd_send_signal;

/// An answer, or why there is none.
pub(super) type Answer = Result<(Reply, Fds), StepFailure>;

impl Supervisor {
    /// Serves one request.
    pub(super) fn handle(&mut self, connection: u64, request: Request) {
        let is_status = matches!(request.call, Call::Status);
        let call = match request.call {
            // Answered when it runs.
            Call::Exec(plan) => return self.begin_exec(connection, request.seq, *plan),
            call => call,
        };
        let answer = self.answer(connection, call);
        self.reply(connection, request.seq, answer);
        if is_status {
            self.tell_unsettled();
        }
    }

    /// Answers a request of a newer daemon.
    pub(super) fn refuse_unknown(&mut self, connection: u64, seq: u64) {
        let answer = Err(refused(
            "this helper is older than the daemon and does not know the request",
        ));
        self.reply(connection, seq, answer);
    }

    pub(super) fn reply(&mut self, connection: u64, seq: u64, answer: Answer) {
        let (reply, fds) = answer.unwrap_or_else(|failure| (Reply::Failed(failure), Vec::new()));
        let sent = self
            .connection(connection)
            .map(|connection| connection.reply(seq, reply, fds));
        if let Some(Err(_)) = sent {
            self.drop_connection(connection);
        }
    }

    fn answer(&mut self, connection: u64, call: Call) -> Answer {
        match call {
            Call::Status => self.status(),
            Call::Signal {
                target,
                signal,
                all,
            } => self.signal(&target, signal, all),
            Call::Exec(_) => Err(refused("an exec is begun elsewhere")),
            Call::Resize { target, size } => {
                let program = self.program(&target)?;
                done(program.streams.resize(size), Step::Terminal)
            }
            Call::OpenStdin { target } => {
                let stdin = self.program(&target)?.streams.open_stdin();
                let stdin = stdin.map_err(|error| stream_failure(error, Step::Stdio))?;
                Ok((Reply::Done, vec![stdin]))
            }
            Call::CloseStdin { target } => {
                let program = self.program(&target)?;
                done(program.streams.close_stdin(), Step::Stdio)
            }
            Call::Gate { target, consumed } => {
                self.program(&target)?.set_gate(connection, consumed);
                Ok((Reply::Done, Vec::new()))
            }
            Call::Freeze { frozen } => {
                let result = self.built.cgroup.set_frozen(frozen);
                result.map_err(|error| freeze_failure(&error))?;
                Ok((Reply::Done, Vec::new()))
            }
            Call::Update { resources } => {
                self.built.cgroup.update(&resources)?;
                self.pace.change(&resources);
                self.read_at = None;
                let cgroups = self.built.cgroup.paths();
                self.built.launched.cgroups.clone_from(&cgroups);
                Ok((Reply::Updated { cgroups }, Vec::new()))
            }
            Call::Hostname => self.hostname(),
            Call::OpenRoot => {
                let root = build::container_root(&self.built);
                let root = root.map_err(|error| io_failure(Step::Rootfs, "open", &error))?;
                Ok((Reply::Done, vec![root]))
            }
        }
    }

    fn status(&mut self) -> Answer {
        let mut fds = Vec::new();
        if self.container_runs() {
            let pidfd = rustix::io::fcntl_dupfd_cloexec(&self.built.pidfd, 3);
            fds.push(pidfd.map_err(|errno| io_failure(Step::Checks, "fcntl", &errno.into()))?);
        }
        let running_execs = self
            .programs
            .iter()
            .filter_map(|program| match &program.kind {
                Kind::Container => None,
                Kind::Exec { id, .. } => Some(id.clone()),
            });
        let status = Status {
            version: PROTOCOL_VERSION,
            id: self.plan.id.clone(),
            launched: self.built.launched.clone(),
            exit: self.exit.clone(),
            running_execs: running_execs.collect(),
            frozen: self.built.cgroup.is_frozen().unwrap_or(false),
            oom_kills: self.oom.total(),
        };
        Ok((Reply::Status(Box::new(status)), fds))
    }

    fn signal(&mut self, target: &Target, signal: i32, all: bool) -> Answer {
        if !(1..=64).contains(&signal) {
            return Err(refused("signals are numbered 1 to 64"));
        }
        let program = self.program(target)?;
        // A zombie takes any signal (pidfd_send_signal(2)), and does nothing with it.
        if program.has_ended() {
            return Err(ended("the process has ended"));
        }
        let sent = if all && *target == Target::Container {
            self.signal_all(signal)
        } else {
            pidfd_send_signal(program.pidfd(), signal).map_err(Into::into)
        };
        sent.map_err(|error| io_failure(Step::Checks, "pidfd_send_signal", &error))?;
        self.program(target)?.signalled(signal);
        if signal == libc::SIGKILL && *target == Target::Container {
            self.container_was_killed();
        }
        Ok((Reply::Done, Vec::new()))
    }

    fn signal_all(&self, signal: i32) -> io::Result<()> {
        if self.built.cgroup.paths().is_empty() {
            // Without a cgroup there is nothing to know the others by.
            return Ok(pidfd_send_signal(self.built.pidfd.as_fd(), signal)?);
        }
        if signal == libc::SIGKILL {
            self.built.cgroup.kill_all()
        } else {
            self.built.cgroup.signal_all(signal)
        }
    }

    fn hostname(&self) -> Answer {
        let names = build::container_hostname(&self.built);
        let (hostname, domainname) =
            names.map_err(|error| io_failure(Step::Hostname, "uname", &error))?;
        let reply = Reply::Hostname {
            hostname,
            domainname,
        };
        Ok((reply, Vec::new()))
    }

    fn program(&mut self, target: &Target) -> Result<&mut Program, StepFailure> {
        let program = self
            .programs
            .iter_mut()
            .find(|program| program.kind.is(target));
        program.ok_or_else(|| ended("no such exec runs"))
    }
}

/// The answer to a request about a stream.
fn done(result: Result<(), StreamError>, step: Step) -> Answer {
    result.map_err(|error| stream_failure(error, step))?;
    Ok((Reply::Done, Vec::new()))
}

fn stream_failure(error: StreamError, step: Step) -> StepFailure {
    match error {
        StreamError::Refused(why) => StepFailure {
            step,
            ..refused(why)
        },
        StreamError::Io(syscall, errno) => io_failure(step, syscall, &errno.into()),
    }
}

/// A request that this helper does not carry out, with the reason as a sentence.
pub(super) fn refused(why: &str) -> StepFailure {
    StepFailure {
        step: Step::Checks,
        errno: 0,
        syscall: String::new(),
        path: None,
        detail: Some(why.to_owned()),
    }
}

/// There is nobody any more to do it to; the daemon tells by `ESRCH`.
fn ended(why: &str) -> StepFailure {
    StepFailure {
        errno: libc::ESRCH,
        ..refused(why)
    }
}

fn freeze_failure(error: &io::Error) -> StepFailure {
    if error.kind() == io::ErrorKind::Unsupported {
        let why = "the container has no control group that could be frozen";
        return StepFailure {
            step: Step::Cgroup,
            ..refused(why)
        };
    }
    io_failure(Step::Cgroup, "freeze", error)
}

fn io_failure(step: Step, syscall: &str, error: &io::Error) -> StepFailure {
    StepFailure {
        step,
        errno: error.raw_os_error().unwrap_or(0),
        syscall: syscall.to_owned(),
        path: None,
        detail: error.raw_os_error().is_none().then(|| error.to_string()),
    }
}
