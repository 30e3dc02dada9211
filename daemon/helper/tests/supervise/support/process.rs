//! The real binary as a zygote, and its helpers, driven through the protocol.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use littlebox_protocol::channel::{self, Received, Wait};
use littlebox_protocol::{
    Call, Event, ExecPlan, ExitRecord, First, FromHelper, HELPER_SOCKET, LaunchPlan, Launched,
    PROTOCOL_VERSION, Reply, Request, Status, StepFailure, Target, ZygoteEvent, ZygoteRequest,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Nothing here takes longer, on a busy machine either.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a descriptor is readable.
pub fn readable(fd: &OwnedFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(patience).unwrap();
    poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One end for us, one to be handed over.
pub fn socket_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

pub struct Zygote {
    process: Child,
    control: Option<OwnedFd>,
}

impl Zygote {
    pub fn start() -> Self {
        let (ours, theirs) = socket_pair();
        // Another build of it (the static one) can be put to the same tests.
        let built = || env!("CARGO_BIN_EXE_littlebox-helper").into();
        let helper = std::env::var_os("LITTLEBOX_HELPER").unwrap_or_else(built);
        let process = Command::new(helper)
            .arg("zygote")
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let zygote = Self {
            process,
            control: Some(ours),
        };
        let (ready, _) = zygote.event();
        assert_eq!(
            ready,
            ZygoteEvent::Ready {
                version: PROTOCOL_VERSION,
                pid: zygote.pid()
            }
        );
        zygote
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn control(&self) -> &OwnedFd {
        self.control.as_ref().unwrap()
    }

    pub fn event(&self) -> (ZygoteEvent, Vec<OwnedFd>) {
        assert!(readable(self.control(), PATIENCE), "the zygote is silent");
        match channel::receive(self.control().as_fd(), Wait::Block).unwrap() {
            Received::Message(event, fds) => (event, fds),
            other => panic!("the zygote is gone: {other:?}"),
        }
    }

    pub fn fork(&self) -> Helper {
        let (ours, theirs) = socket_pair();
        channel::send(self.control().as_fd(), &ZygoteRequest::Fork, vec![theirs]).unwrap();
        loop {
            match self.event() {
                (ZygoteEvent::Forked { pid }, fds) => {
                    let pidfd = fds.into_iter().next().unwrap();
                    return Helper::new(ours, pid, Some(pidfd));
                }
                (ZygoteEvent::Reaped { .. }, _) => {}
                (other, _) => panic!("not forked: {other:?}"),
            }
        }
    }

    /// A helper whose container runs.
    pub fn launch(&self, plan: &LaunchPlan) -> (Helper, Launched) {
        let mut helper = self.fork();
        helper.send_first(&First::Launch(Box::new(plan.clone())), Vec::new());
        match helper.reply(0) {
            (Reply::Launched(launched), fds) => {
                assert_eq!(fds.len(), 1, "a pidfd beside the answer");
                (helper, *launched)
            }
            (other, _) => panic!("not launched: {other:?}"),
        }
    }

    /// Closes the control socket, and waits for the zygote's end.
    pub fn hang_up(&mut self) -> std::process::ExitStatus {
        self.control = None;
        self.process.wait().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.control = None;
        let _ = self.process.wait();
    }
}

/// A connection to a helper.
pub struct Helper {
    pub connection: OwnedFd,
    pub pid: u32,
    pidfd: Option<OwnedFd>,
    seq: u64,
    events: VecDeque<Event>,
}

impl Helper {
    fn new(connection: OwnedFd, pid: u32, pidfd: Option<OwnedFd>) -> Self {
        Self {
            connection,
            pid,
            pidfd,
            seq: 0,
            events: VecDeque::new(),
        }
    }

    /// Connects to the path socket, as a daemon does that was restarted.
    pub fn connect(run_dir: &Path) -> Self {
        Self::try_connect(run_dir).expect("the helper listens")
    }

    /// The same, if there is a helper.
    pub fn try_connect(run_dir: &Path) -> Option<Self> {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).ok()?;
        let address = SocketAddrUnix::new(run_dir.join(HELPER_SOCKET)).ok()?;
        rustix::net::connect(&socket, &address).ok()?;
        Some(Self::new(socket, 0, None))
    }

    /// Kills the container and waits for the helper's end, whatever happens on the way.
    pub fn end(&mut self) {
        let call = Call::Signal {
            target: Target::Container,
            signal: 9,
            all: true,
        };
        let request = Request { seq: 0, call };
        let _ = channel::send(self.connection.as_fd(), &request, Vec::new());
        while readable(&self.connection, PATIENCE) {
            let received = channel::receive::<FromHelper>(self.connection.as_fd(), Wait::Block);
            if !matches!(received, Ok(Received::Message(..))) {
                return;
            }
        }
    }

    pub fn send_first(&self, first: &First, fds: Vec<OwnedFd>) {
        channel::send(self.connection.as_fd(), first, fds).unwrap();
    }

    fn next(&self) -> Option<(FromHelper, Vec<OwnedFd>)> {
        assert!(readable(&self.connection, PATIENCE), "the helper is silent");
        match channel::receive(self.connection.as_fd(), Wait::Block).unwrap() {
            Received::Message(message, fds) => Some((message, fds)),
            Received::Closed => None,
            Received::NothingYet => unreachable!("it is readable"),
        }
    }

    /// The answer to a request; events before it are kept.
    pub fn reply(&mut self, wanted: u64) -> (Reply, Vec<OwnedFd>) {
        loop {
            match self.next().expect("the helper is there") {
                (FromHelper::Reply { seq, reply }, fds) => {
                    assert_eq!(seq, wanted);
                    return (reply, fds);
                }
                (FromHelper::Event(event), _) => self.events.push_back(event),
            }
        }
    }

    pub fn call(&mut self, call: Call) -> (Reply, Vec<OwnedFd>) {
        let seq = self.ask(call);
        self.reply(seq)
    }

    /// Sends a request; [`Helper::reply`] has the answer.
    pub fn ask(&mut self, call: Call) -> u64 {
        self.seq += 1;
        let request = Request {
            seq: self.seq,
            call,
        };
        channel::send(self.connection.as_fd(), &request, Vec::new()).unwrap();
        self.seq
    }

    /// Whether something comes within that time.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        !readable(&self.connection, time)
    }

    /// A call that is answered by `Done`.
    pub fn done(&mut self, call: Call) -> Vec<OwnedFd> {
        match self.call(call) {
            (Reply::Done, fds) => fds,
            (other, _) => panic!("not done: {other:?}"),
        }
    }

    /// The write end of a program's stdin.
    pub fn open_stdin(&mut self, target: &Target) -> OwnedFd {
        let target = target.clone();
        self.done(Call::OpenStdin { target }).remove(0)
    }

    pub fn status(&mut self) -> Status {
        match self.call(Call::Status) {
            (Reply::Status(status), _) => *status,
            (other, _) => panic!("no status: {other:?}"),
        }
    }

    pub fn exec(&mut self, plan: &ExecPlan) -> u32 {
        match self.call(Call::Exec(Box::new(plan.clone()))) {
            (Reply::ExecStarted { pid, .. }, _) => pid,
            (other, _) => panic!("exec not started: {other:?}"),
        }
    }

    pub fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.next().expect("the helper is there") {
            (FromHelper::Event(event), _) => event,
            (other, _) => panic!("not an event: {other:?}"),
        }
    }

    /// The end of an exec. Kills for want of memory are told as they come.
    pub fn exec_exit(&mut self, wanted: &str) -> ExitRecord {
        loop {
            match self.event() {
                Event::OomKilled { .. } => {}
                Event::ExecExited { id, record } => {
                    assert_eq!(id, wanted);
                    return record;
                }
                other => panic!("not the end of {wanted}: {other:?}"),
            }
        }
    }

    /// Kills the container; it and its helper end as they should.
    pub fn finish(&mut self) -> ExitRecord {
        self.done(Call::Signal {
            target: Target::Container,
            signal: 9,
            all: false,
        });
        self.exit()
    }

    /// The end of the container and of the connection.
    pub fn exit(&mut self) -> ExitRecord {
        let Event::Exited(record) = self.event() else {
            panic!("not the container's end")
        };
        assert!(
            self.next().is_none(),
            "the helper exits after its last word"
        );
        record
    }

    /// The failure that a call is answered with.
    #[track_caller]
    pub fn refused(&mut self, call: Call) -> StepFailure {
        let seq = self.ask(call);
        self.refusal(seq)
    }

    /// The failure that a request is answered with.
    #[track_caller]
    pub fn refusal(&mut self, seq: u64) -> StepFailure {
        match self.reply(seq) {
            (Reply::Failed(failure), _) => failure,
            (other, _) => panic!("not refused: {other:?}"),
        }
    }

    /// Its children.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let list = std::fs::read_to_string(path).unwrap_or_default();
        let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.collect()
    }

    /// Whether the last of its children is stopped (SIGSTOP). Of a mere connection, which does not know
    /// the helper's PID, this is not known: it is taken to be so.
    pub fn newest_child_is_stopped(&self) -> bool {
        self.children().last().is_none_or(|newest| {
            let stat = std::fs::read_to_string(format!("/proc/{newest}/stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    }

    /// Closes this connection.
    pub fn hang_up(&mut self) {
        self.connection = socket_pair().0;
    }

    /// Whether the helper's process has ended.
    pub fn has_ended(&self) -> bool {
        readable(self.pidfd.as_ref().unwrap(), Duration::ZERO)
    }
}
