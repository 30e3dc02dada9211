//! The supervisor: what it holds, what it waits for, what it does when something ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::calls::refused;
use super::clock;
use super::complaint;
use super::connection::{Connection, Incoming};
use super::freezing::Freezing;
use super::held::Held;
use super::killing::Killings;
use super::oom::OomLedger;
use super::output::Buffers;
use super::pace::Pace;
use super::program::{Kind, Program};
use super::run_dir::RunDir;
use super::starting::Starting;
use super::time_limit::Released;
use crate::build::{self, Built, Dying};
use littlebox_protocol::{Event, ExitRecord, LaunchPlan, LogStream};

/// More connections than a daemon has reason for are closed at once.
const MAX_CONNECTIONS: usize = 16;
/// Requests read from one connection before others get their turn.
const REQUESTS_IN_A_ROW: u32 = 16;
/// After so much quiet the scratch memory is given back.
const TIDY_AFTER: Duration = Duration::from_millis(500);
/// After which time a killed container that still lives is looked at.
const UNDEAD_AFTER: Duration = Duration::from_millis(200);
/// How often after that.
const UNDEAD_AGAIN: Duration = Duration::from_secs(2);
/// How long the last messages may take.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// A running container and everybody who has to do with it.
pub(super) struct Supervisor {
    /// The plan, without what only the start needed.
    pub(super) plan: LaunchPlan,
    pub(super) built: Built,
    /// The container's program, then the execs.
    pub(super) programs: Vec<Program>,
    /// Execs on their way.
    pub(super) starting: Vec<Starting>,
    /// The container's exit record, once everything is over.
    pub(super) exit: Option<ExitRecord>,
    pub(super) oom: OomLedger,
    pub(super) run_dir: RunDir,
    pub(super) connections: Vec<Connection>,
    next_connection: u64,
    buffers: Buffers,
    /// Exit records that could not be written and that nobody was told either.
    pub(super) unsettled: Vec<(Kind, ExitRecord)>,
    /// Children that were killed and are not dead yet.
    dying: Vec<Dying>,
    /// A freeze or a thaw on its way.
    pub(super) freezing: Option<Freezing>,
    /// Requests about execs on their way.
    pub(super) held: Vec<Held>,
    pub(super) retry_at: Option<Instant>,
    tidy_at: Option<Instant>,
    /// Cgroups of execs that have ended.
    pub(super) released: Released,
    /// Those of execs that are being ended with everything in them.
    pub(super) killings: Killings,
    pub(super) pace: Pace,
    /// When output is read again; `None`: now.
    pub(super) read_at: Option<Instant>,
    /// When to look whether what was killed has died.
    undead_at: Option<Instant>,
}

/// What poll(2) found ready. Programs by index: none is removed while a round is served.
#[derive(Debug, Clone)]
enum Source {
    Listener,
    Connection(u64),
    Process(usize),
    Output(usize, LogStream),
    Oom,
    /// An exec on its way, by its id.
    Starting(String),
    Dying,
}

impl Supervisor {
    /// A supervisor of a container that was just started.
    pub(super) fn new(
        plan: LaunchPlan,
        built: Built,
        container: Program,
        run_dir: RunDir,
        first: Connection,
    ) -> Self {
        let (oom, error) = OomLedger::watching(&built.cgroup);
        let pace = Pace::new(&plan.cgroup.resources, Instant::now());
        let supervisor = Self {
            plan,
            built,
            oom,
            programs: vec![container],
            starting: Vec::new(),
            dying: Vec::new(),
            freezing: None,
            held: Vec::new(),
            exit: None,
            run_dir,
            next_connection: first.id + 1,
            connections: vec![first],
            buffers: Buffers::default(),
            unsettled: Vec::new(),
            retry_at: None,
            undead_at: None,
            pace,
            read_at: None,
            released: Released::default(),
            killings: Killings::default(),
            tidy_at: Some(Instant::now() + TIDY_AFTER),
        };
        if let Some(error) = error {
            supervisor.complain("watch for the OOM killer", &error);
        }
        supervisor
    }

    /// Supervises until the container has ended, its record is safe and everybody was told.
    pub(super) fn run(mut self) {
        build::leave_to_loop();
        while self.exit.is_none() || !self.unsettled.is_empty() {
            let ready = self.wait(self.timeout());
            let now = Instant::now();
            if !ready.is_empty() {
                self.tidy_at = Some(now + TIDY_AFTER);
            }
            for source in ready {
                self.serve(source);
            }
            self.on_time(now);
            self.settle_ended();
            self.dying.append(&mut build::take_dying());
        }
        self.run_dir.remove_socket();
        self.flush_last_messages();
    }

    /// Says what went wrong where nobody asks.
    pub(super) fn complain(&self, what: &str, error: &io::Error) {
        let line = format!("littlebox {}: {what}: {error}\n", self.plan.id);
        complaint::write(io::stderr().as_fd(), &line);
    }

    /// Whether the container's PID 1 runs.
    pub(super) fn container_runs(&self) -> bool {
        self.programs
            .first()
            .is_some_and(|container| container.is_running())
    }

    fn timeout(&self) -> Option<Duration> {
        let programs = self.programs.iter().filter_map(Program::next_deadline);
        let starting = self.starting.iter().filter_map(Starting::due);
        let held = self.held.iter().map(Held::due);
        let own = [
            self.freezing.as_ref().map(Freezing::due),
            self.retry_at,
            self.tidy_at,
            self.undead_at,
            self.released.due(),
            self.killings.due(),
            self.read_at,
            self.oom.due(),
        ];
        let next = programs
            .chain(starting)
            .chain(held)
            .chain(own.into_iter().flatten())
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Waits until something is ready.
    fn wait(&self, timeout: Option<Duration>) -> Vec<Source> {
        let (mut fds, sources) = self.watched();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Vec::new(),
            Ok(_) => {}
            // ENOMEM: all that can be done is to try again, not at full speed.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(100));
                return Vec::new();
            }
        }
        let ready = fds.iter().zip(sources);
        ready
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, source)| source)
            .collect()
    }

    /// Everything to be watched now.
    fn watched(&self) -> (Vec<PollFd<'_>>, Vec<Source>) {
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.run_dir.listener(),
            PollFlags::IN,
        )];
        let mut sources = vec![Source::Listener];
        for connection in &self.connections {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.has_unsent());
            fds.push(PollFd::from_borrowed_fd(connection.socket(), flags));
            sources.push(Source::Connection(connection.id));
        }
        // Before the programs: what has started before the container's end has started.
        for starting in &self.starting {
            // No events asked for: the hang-up alone is news.
            fds.push(PollFd::from_borrowed_fd(
                starting.report(),
                PollFlags::empty(),
            ));
            sources.push(Source::Starting(starting.id().to_owned()));
        }
        for (index, program) in self.programs.iter().enumerate() {
            for (stream, fd) in program.readable(self.read_at.is_some()) {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                sources.push(Source::Output(index, stream));
            }
            if program.is_running() {
                fds.push(PollFd::from_borrowed_fd(program.pidfd(), PollFlags::IN));
                sources.push(Source::Process(index));
            }
        }
        for dying in &self.dying {
            fds.push(PollFd::from_borrowed_fd(dying.pidfd(), PollFlags::IN));
            sources.push(Source::Dying);
        }
        if let Some(watch) = self.oom.watch() {
            let (fd, flags) = watch.poll();
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            sources.push(Source::Oom);
        }
        (fds, sources)
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Connection(id) => self.serve_connection(id),
            Source::Output(index, stream) => self.read(index, stream),
            Source::Oom => self.oom.told(),
            Source::Starting(id) => self.serve_starting(&id),
            Source::Dying => self.dying.retain_mut(|dying| !dying.reap()),
            Source::Process(index) => {
                let ended = self
                    .programs
                    .get_mut(index)
                    .filter(|program| program.is_running())
                    .is_some_and(|program| program.reap(&mut self.buffers));
                if ended && index == 0 {
                    self.end_everything();
                }
            }
        }
    }

    /// Reads output, within the container's CPU limit.
    fn read(&mut self, index: usize, stream: LogStream) {
        let Some(program) = self.programs.get_mut(index) else {
            return;
        };
        if program.is_running() && self.read_at.is_some() {
            // The budget was spent in this very round.
            return;
        }
        if !self.pace.is_limited() {
            program.pump(stream, &mut self.buffers);
            return;
        }
        let before = clock::thread_cpu();
        program.pump(stream, &mut self.buffers);
        let spent = clock::thread_cpu().saturating_sub(before);
        let now = Instant::now();
        self.read_at = self.pace.spent(now, spent).map(|wait| now + wait);
    }

    fn accept(&mut self) {
        while let Some(socket) = self.run_dir.accept() {
            if self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            self.connections
                .push(Connection::new(self.next_connection, socket));
            self.next_connection += 1;
        }
    }

    fn serve_connection(&mut self, id: u64) {
        for _ in 0..REQUESTS_IN_A_ROW {
            let Some(connection) = self.connection(id) else {
                return;
            };
            if connection.flush().is_err() {
                return self.drop_connection(id);
            }
            match connection.receive() {
                Incoming::Nothing => return,
                Incoming::Closed => return self.drop_connection(id),
                Incoming::Unknown { seq } => self.refuse_unknown(id, seq),
                Incoming::Request(request) => self.handle(id, request),
            }
        }
    }

    /// The connection with this id, unless it was dropped.
    pub(super) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == id)
    }

    /// Closes a connection and lifts the gates it holds.
    pub(super) fn drop_connection(&mut self, id: u64) {
        self.connections.retain(|connection| connection.id != id);
        for program in &mut self.programs {
            program.lift_gate_of(id);
        }
        self.end_starting_of(id);
        self.drop_held_of(id);
    }

    /// PID 1 has ended: so has everything else of the container, at the latest now.
    fn end_everything(&mut self) {
        self.end_starting();
        if let Err(error) = self.built.cgroup.kill_all() {
            self.complain("kill of the cgroup", &error);
        }
        self.killings.give_up();
        for exec in self.programs.iter_mut().skip(1) {
            exec.die_with_container();
        }
        self.container_was_killed();
    }

    /// A process in a frozen v1 cgroup dies only when it is thawed (cgroups(7), freezer), be it the
    /// container's own or one that somebody else has put it into.
    pub(super) fn container_was_killed(&mut self) {
        self.end_freeze(&refused("the container was killed"));
        if let Err(error) = self.built.cgroup.thaw() {
            self.complain("thaw", &error);
        }
        self.undead_at = Some(Instant::now() + UNDEAD_AFTER);
    }

    /// Lets those out of foreign freezers that were killed and still live.
    fn free_the_undead(&mut self, now: Instant) {
        if !self.programs.iter().any(|program| !program.has_ended()) {
            return;
        }
        let first = self.container_runs().then_some(self.built.launched.pid);
        if let Err(error) = self.built.cgroup.leave_foreign_freezers(first) {
            self.complain("let killed processes out of a frozen cgroup", &error);
        }
        self.undead_at = Some(now + UNDEAD_AGAIN);
    }

    fn on_time(&mut self, now: Instant) {
        self.end_timed_out(now);
        self.end_late_execs(now);
        self.look_at_kills(now);
        self.refuse_held(now);
        self.look_at_freeze(now);
        let kills = self.oom.on_time(now, &self.built.cgroup);
        self.tell_oom(kills);
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.retry_unsettled();
        }
        self.read_at.take_if(|at| *at <= now);
        self.released.on_time(now);
        if self.undead_at.take_if(|at| *at <= now).is_some() {
            self.free_the_undead(now);
        }
        if self.tidy_at.take_if(|at| *at <= now).is_some() {
            self.buffers.release();
            crate::sys::trim_heap();
        }
    }

    /// Ends an exec whose time is up. One in a round: the search for its descendants takes time, and
    /// what others ask is answered before the next.
    fn end_timed_out(&mut self, now: Instant) {
        let timed_out = self.programs.iter_mut().find_map(|program| {
            let is_up = program.on_time(now);
            is_up.then_some(program)
        });
        let own = timed_out.and_then(Program::kill_all);
        self.end_cgroup(own);
    }

    /// Tells that the OOM killer has struck, before anybody is told who ended by it.
    pub(super) fn tell_oom(&mut self, kills: Option<u64>) {
        if let Some(kills) = kills {
            self.tell_all(&Event::OomKilled { kills });
        }
    }

    /// Tells every connection.
    pub(super) fn tell_all(&mut self, event: &Event) {
        let mut broken = Vec::new();
        for connection in &mut self.connections {
            if connection.tell(event).is_err() {
                broken.push(connection.id);
            }
        }
        for id in broken {
            self.drop_connection(id);
        }
    }

    /// Sends what still waits, for a short while, and ends.
    fn flush_last_messages(&mut self) {
        let until = Instant::now() + LAST_FLUSH;
        loop {
            self.connections
                .retain_mut(|connection| connection.flush().is_ok() && connection.has_unsent());
            let left = until.saturating_duration_since(Instant::now());
            if self.connections.is_empty() || left.is_zero() {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = self
                .connections
                .iter()
                .map(|connection| PollFd::from_borrowed_fd(connection.socket(), PollFlags::OUT))
                .collect();
            let timeout = Timespec::try_from(left).ok();
            if poll(&mut fds, timeout.as_ref()).is_err() {
                return;
            }
        }
    }
}

/// Descriptors that go out beside a reply.
pub(super) type Fds = Vec<OwnedFd>;
