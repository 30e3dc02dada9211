//! Execs on their way: from the request to the answer. The loop serves everybody else meanwhile.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::calls::{Answer, ended, refused};
use super::event_loop::Supervisor;
use super::freezing::Freezing;
use super::log::LogWriter;
use super::output::Streams;
use super::program::{Kind, Program, Started};
use super::{run_dir, time_limit};
use crate::build::{self, ExecBuilt, PendingExec};
use crate::cgroup::Cgroup;
use littlebox_protocol::{ExecPlan, Reply, StepFailure, Target};

/// An exec whose processes were forked and whose request is not answered yet.
pub(super) struct Starting {
    /// Who waits for the answer.
    connection: u64,
    /// To which request.
    seq: u64,
    plan: ExecPlan,
    log: LogWriter,
    oom_kills_before: u64,
    exec: PendingExec,
    /// Its own cgroup, where it has a time limit.
    own: Option<Cgroup>,
    warning: Option<String>,
}

impl Starting {
    /// The exec's id.
    pub(super) fn id(&self) -> &str {
        &self.plan.id
    }

    /// To be watched for a hang-up.
    pub(super) fn report(&self) -> BorrowedFd<'_> {
        self.exec.report()
    }

    /// When it has taken too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.exec.due()
    }
}

impl Supervisor {
    /// Begins an exec. It is answered when it runs, or is known not to.
    pub(super) fn begin_exec(&mut self, connection: u64, seq: u64, plan: ExecPlan) {
        match self.fork_exec(connection, seq, plan) {
            Ok(starting) => self.starting.push(starting),
            Err(failure) => self.reply(connection, seq, Err(failure)),
        }
    }

    fn fork_exec(
        &mut self,
        connection: u64,
        seq: u64,
        plan: ExecPlan,
    ) -> Result<Starting, StepFailure> {
        let target = Target::Exec(plan.id.clone());
        let known = |program: &Program| program.kind.is(&target);
        if self.programs.iter().any(known) || self.starting.iter().any(|s| s.id() == plan.id) {
            return Err(refused("an exec of this id runs already"));
        }
        if !self.container_runs() {
            return Err(container_ended());
        }
        // A process born in a frozen cgroup stops before it can say that it runs.
        let freezes = self.freezing.as_ref().is_some_and(Freezing::is_freeze);
        if freezes || self.built.cgroup.is_frozen().unwrap_or(false) {
            return Err(refused("the container is paused"));
        }
        let log = LogWriter::open(&plan.log)
            .map_err(|error| run_dir::failure(error.syscall, error.errno, error.path))?;
        // Kills that nobody was told of yet were before its time.
        let kills = self.oom.look(&self.built.cgroup);
        self.tell_oom(kills);
        let (own, warning) = time_limit::prepare(&self.built.cgroup, &plan);
        match build::begin_exec(&self.built, &self.plan, &plan, own.as_ref()) {
            Ok(exec) => Ok(Starting {
                connection,
                seq,
                oom_kills_before: self.oom.of_container(),
                exec,
                plan,
                log,
                own,
                warning,
            }),
            Err(failure) => {
                self.end_cgroup(own);
                Err(self.unless_ended(failure))
            }
        }
    }

    /// Why an exec did not start. In the namespaces of a container whose PID 1 is ending nothing can
    /// be started, which the kernel tells as a lack of memory (clone(2), `ENOMEM`).
    fn unless_ended(&self, failure: StepFailure) -> StepFailure {
        match self.programs.first().is_none_or(Program::is_ending) {
            true => container_ended(),
            false => failure,
        }
    }

    /// The report of an exec has ended.
    pub(super) fn serve_starting(&mut self, id: &str) {
        self.finish_execs(|starting| starting.id() == id);
    }

    /// Gives up on those that take too long.
    pub(super) fn end_late_execs(&mut self, now: Instant) {
        self.finish_execs(|starting| starting.due().is_some_and(|due| due <= now));
    }

    /// Those that are not running by now never will: the container has ended.
    pub(super) fn end_starting(&mut self) {
        self.finish_execs(|starting| starting.exec.is_over());
        self.give_up_execs(|_| true, &container_ended());
    }

    /// Somebody kills one that has not started.
    pub(super) fn kill_starting(&mut self, id: &str) {
        let why = refused("it was killed before its program ran");
        self.give_up_execs(|s| s.id() == id, &why);
    }

    fn give_up_execs(&mut self, which: impl Fn(&Starting) -> bool, why: &StepFailure) {
        let given_up: Vec<Starting> = self.starting.extract_if(.., |s| which(s)).collect();
        for starting in given_up {
            let failure = self.unless_ended(starting.exec.give_up(why.clone()));
            self.end_cgroup(starting.own);
            self.reply(starting.connection, starting.seq, Err(failure));
        }
        self.serve_held();
    }

    /// Nobody would hear of those that a lost connection has asked for.
    pub(super) fn end_starting_of(&mut self, connection: u64) {
        let why = refused("the connection that asked for it is gone");
        self.give_up_execs(|starting| starting.connection == connection, &why);
    }

    fn finish_execs(&mut self, which: impl Fn(&Starting) -> bool) {
        let over: Vec<Starting> = self.starting.extract_if(.., |s| which(s)).collect();
        for starting in over {
            let (connection, seq) = (starting.connection, starting.seq);
            let answer = self.finish_exec(starting);
            self.reply(connection, seq, answer);
        }
        self.serve_held();
    }

    fn finish_exec(&mut self, starting: Starting) -> Answer {
        let Starting {
            connection,
            plan,
            log,
            oom_kills_before,
            exec,
            own,
            warning,
            ..
        } = starting;
        let built = match exec.finish(&self.built.cgroup) {
            Ok(built) => built,
            Err(failure) => {
                self.end_cgroup(own);
                return Err(self.unless_ended(failure));
            }
        };
        let ExecBuilt {
            pid,
            start_time,
            pidfd,
            stdio,
            mut warnings,
        } = built;
        warnings.extend(warning);
        let stdio = stdio.expect("a supervised exec has its stdio");
        let timeout = plan.timeout_ms.map(Duration::from_millis);
        let mut program = Program::new(Started {
            kind: Kind::Exec {
                id: plan.id,
                exit_record: plan.exit_record,
            },
            pid,
            own,
            pidfd,
            streams: Streams::new(stdio, plan.stdin),
            log,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            oom_kills_before,
        });
        if plan.gate {
            program.hold_from_here(connection);
        }
        self.programs.push(program);
        let reply = Reply::ExecStarted {
            pid,
            start_time,
            warnings,
        };
        Ok((reply, Vec::new()))
    }
}

fn container_ended() -> StepFailure {
    ended("the container has ended")
}
