//! The daemon's requests.

use std::io;
use std::os::fd::AsFd;

use super::event_loop::{Fds, Supervisor};
use super::output::{StreamError, Streams};
use super::program::{Kind, Program};
use crate::build;
use crate::sys::pidfd_send_signal;
use littlebox_protocol::{
    Call, PROTOCOL_VERSION, Reply, Request, ResourcePlan, Status, Step, StepFailure, Target,
};

/// An answer, or why there is none.
pub(super) type Answer = Result<(Reply, Fds), StepFailure>;

impl Supervisor {
    /// Serves one request.
    pub(super) fn handle(&mut self, connection: u64, request: Request) {
        let Some(Request { seq, call }) = self.hold(connection, request) else {
            return;
        };
        let is_status = matches!(call, Call::Status);
        if let Some(answer) = self.answer(connection, seq, call) {
            self.reply(connection, seq, answer);
        }
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

    /// The answer; `None`: it comes later.
    fn answer(&mut self, connection: u64, seq: u64, call: Call) -> Option<Answer> {
        Some(match call {
            Call::Exec(plan) => {
                self.begin_exec(connection, seq, *plan);
                return None;
            }
            Call::Freeze { frozen } => {
                self.begin_freeze(connection, seq, frozen);
                return None;
            }
            Call::Status => self.status(),
            Call::Signal {
                target,
                signal,
                all,
            } => self.signal(&target, signal, all),
            Call::Resize { target, size } => {
                self.with_streams(&target, Step::Terminal, |streams| streams.resize(size))
            }
            Call::OpenStdin { target } => self.open_stdin(&target),
            Call::CloseStdin { target } => {
                self.with_streams(&target, Step::Stdio, Streams::close_stdin)
            }
            Call::Gate { target, consumed } => self.program(&target).and_then(|program| {
                program.set_gate(connection, consumed);
                done()
            }),
            Call::Update { resources } => self.update(&resources),
            Call::Hostname => self.hostname(),
            Call::OpenRoot => self.open_root(),
        })
    }

    fn with_streams(
        &mut self,
        target: &Target,
        step: Step,
        work: impl FnOnce(&mut Streams) -> Result<(), StreamError>,
    ) -> Answer {
        let worked = work(&mut self.program(target)?.streams);
        worked.map_err(|error| stream_failure(error, step))?;
        done()
    }

    fn open_stdin(&mut self, target: &Target) -> Answer {
        let stdin = self.program(target)?.streams.open_stdin();
        let stdin = stdin.map_err(|error| stream_failure(error, Step::Stdio))?;
        Ok((Reply::Done, vec![stdin]))
    }

    fn update(&mut self, resources: &ResourcePlan) -> Answer {
        self.built.cgroup.update(resources)?;
        self.pace.change(resources);
        self.read_at = None;
        let cgroups = self.built.cgroup.paths();
        self.built.launched.cgroups.clone_from(&cgroups);
        Ok((Reply::Updated { cgroups }, Vec::new()))
    }

    fn open_root(&self) -> Answer {
        let root = build::container_root(&self.built);
        let root = root.map_err(|error| io_failure(Step::Rootfs, "open", &error))?;
        Ok((Reply::Done, vec![root]))
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
        done()
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

/// The answer to a request that was carried out.
pub(super) fn done() -> Answer {
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
pub(super) fn ended(why: &str) -> StepFailure {
    StepFailure {
        errno: libc::ESRCH,
        ..refused(why)
    }
}

/// A system call that failed.
pub(super) fn io_failure(step: Step, syscall: &str, error: &io::Error) -> StepFailure {
    StepFailure {
        step,
        errno: error.raw_os_error().unwrap_or(0),
        syscall: syscall.to_owned(),
        path: None,
        detail: error.raw_os_error().is_none().then(|| error.to_string()),
    }
}
