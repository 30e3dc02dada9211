//! The seccomp agent: a process of the host that decides about system calls which a filter leaves to it
//! (OCI config-linux.md, "Seccomp", `listenerPath`; seccomp_unotify(2)).
//!
//! Who loads such a filter gets its listener, and the agent must have that before the next call that
//! is left to it; which calls these are, the profile says. So between the filter and the agent's getting
//! the listener the process that is confined makes none at all. A second thread, which the filter does
//! not bind, hands the listener over and is gone with the execve(2) that follows:
//!
//! ```text
//! child                                        thread
//!   connection to the agent, PID, message
//!   thread ----------------------------------> looks for a listener
//!   seccomp(2)
//!   spins          ---- listener ------------> sendmsg to the agent, close
//!                  <------------- done ------- exit
//!   capset, execve: the agent's, if need be
//! ```

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect as connect_to, sendmsg, shutdown, socket_with,
};
use serde_json::json;

use super::deadline::Deadline;
use super::detached::Status;
use super::report::Report;
use crate::fault::{Fault, OrFault};
use crate::sys::{self, SharedNumber};
use littlebox_protocol::ListenerPlan;

/// How long an agent may take to accept a connection, and to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often is looked for what another process or thread is about to write.
const LOOK: Duration = Duration::from_micros(50);

/// The stack of the thread: it formats one message at most.
const STACK: usize = 128 * 1024;

/// Connects to the agent that listens at a path of the host, within `limit` and at most ten seconds.
///
/// # Errors
/// Nobody listens there, or nobody accepts.
pub fn connect(path: &Path, limit: Option<Duration>) -> Result<OwnedFd, Fault> {
    let fault = |syscall: &'static str| {
        move |errno: Errno| {
            Fault::of(syscall, errno)
                .at(path.display())
                .because(advice(errno))
        }
    };
    // By its descriptor: a socket's path has at most 107 bytes (unix(7)).
    let there = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(fault("open"))?;
    let address = format!("/proc/self/fd/{}", there.as_raw_fd());
    let address = SocketAddrUnix::new(address.as_str()).map_err(fault("connect"))?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(fault("socket"))?;
    // Of connect(2) too, where the agent's queue is full. Zero would be no limit.
    let limit = limit.unwrap_or(PATIENCE);
    let limit = limit.clamp(Duration::from_millis(1), PATIENCE);
    set_socket_timeout(&socket, Timeout::Send, Some(limit)).map_err(fault("setsockopt"))?;
    let connected = retry_on_intr(|| connect_to(&socket, &address));
    connected.map_err(timed).map_err(fault("connect"))?;
    Ok(socket)
}

/// Where a socket has a time limit, EAGAIN says that it is up (socket(7), `SO_SNDTIMEO`).
fn timed(errno: Errno) -> Errno {
    match errno {
        Errno::AGAIN => Errno::TIMEDOUT,
        errno => errno,
    }
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::CONNREFUSED => {
            "no seccomp agent listens there: start it, or correct listenerPath in the seccomp profile"
        }
        Errno::TIMEDOUT => {
            "the seccomp agent does not accept connections: look at it, or restart it"
        }
        Errno::PROTOTYPE => "a seccomp agent's socket is of the type SOCK_STREAM",
        _ => "the seccomp agent of listenerPath cannot be reached",
    }
}

/// The agent of a process that is on its way.
#[derive(Debug)]
pub struct Agent<'a> {
    listener: &'a ListenerPlan,
    /// The container's status, for its state.
    status: Status,
    /// The container's PID, where the process is not the container's own.
    container: Option<u32>,
    /// The PID of the process as the helper sees it, told by who forked it.
    pid: SharedNumber,
    /// One for each filter that will be loaded: those of the hooks, then that of the program.
    connections: Vec<OwnedFd>,
}

impl<'a> Agent<'a> {
    /// Of the container's own process, or with the PID of `container` of another one in it.
    pub fn new(
        listener: &'a ListenerPlan,
        status: Status,
        container: Option<u32>,
    ) -> Result<Agent<'a>, Fault> {
        Ok(Agent {
            listener,
            status,
            container,
            pid: SharedNumber::new().fault("mmap")?,
            connections: Vec::new(),
        })
    }

    /// Connects for so many filters, all of them before the deadline; on the host.
    pub fn connect(&mut self, filters: usize, deadline: Deadline) -> Result<(), Fault> {
        for _ in 0..filters {
            let connection = connect(&self.listener.path, deadline.left())?;
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Takes the connections for so many filters from who asks for the start of a container that is
    /// there by now.
    pub fn take_over(&mut self, filters: usize, asked: &Report) -> Result<(), Fault> {
        self.status = Status::Created;
        for _ in 0..filters {
            let connection = asked.wait_for_go()?;
            self.connections.push(connection.ok_or_else(lost)?);
        }
        Ok(())
    }

    /// What must stay open on the way.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.connections.iter().map(AsFd::as_fd)
    }

    /// Whoever forked the process says which PID that has.
    pub fn tell_pid(&self, pid: u32) {
        self.pid.set(pid);
    }

    /// The message for the next filter. To be called in the process that will load the filter, or in
    /// its parent just before the fork.
    pub fn introduction(&mut self) -> Result<Introduction, Fault> {
        if self.connections.is_empty() {
            return Err(lost());
        }
        let connection = self.connections.remove(0);
        let message = self.message(self.own_pid()?);
        Ok(Introduction {
            connection,
            message,
        })
    }

    /// The PID may be told a moment after the fork.
    fn own_pid(&self) -> Result<u32, Fault> {
        let begun = Instant::now();
        while self.pid.get() == 0 {
            if begun.elapsed() > PATIENCE {
                return Err(Fault::refused("the process has not been told its PID"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(self.pid.get())
    }

    /// OCI config-linux.md, "The Container Process State".
    fn message(&self, pid: u32) -> Vec<u8> {
        let mut state = self.listener.state.clone();
        let status = || self.status.name().into();
        state.entry("status").or_insert_with(status);
        let container = || self.container.unwrap_or(pid).into();
        state.entry("pid").or_insert_with(container);
        let mut message = json!({
            "ociVersion": state.get("ociVersion"),
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if let Some(metadata) = &self.listener.metadata {
            message["metadata"] = metadata.as_str().into();
        }
        message.to_string().into_bytes()
    }
}

fn lost() -> Fault {
    Fault::refused("the connection to the seccomp agent got lost")
}

/// A connection to the agent, and what is said on it beside the listener.
#[derive(Debug)]
pub struct Introduction {
    connection: OwnedFd,
    message: Vec<u8>,
}

impl Introduction {
    /// What must stay open on the way.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Fails when the agent cannot be told all within its time.
    fn send(&self, listener: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let listeners = [listener];
        control.push(SendAncillaryMessage::ScmRights(&listeners));
        let mut rest = self.message.as_slice();
        while !rest.is_empty() {
            let slices = [IoSlice::new(rest)];
            match sendmsg(&self.connection, &slices, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    // The listener goes with the first bytes alone.
                    control.clear();
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let errno = timed(errno);
                    return Err(Fault::of("sendmsg", errno).because(unsent(errno)));
                }
            }
        }
        // Who has forked this process may hold the connection until the execve(2) is done, about which
        // an agent that reads to the end could not be asked. One that has hung up needs no end.
        let _ = shutdown(&self.connection, Shutdown::Both);
        Ok(())
    }
}

fn unsent(errno: Errno) -> &'static str {
    match errno {
        Errno::TIMEDOUT => "the seccomp agent does not read what it is sent",
        Errno::PIPE | Errno::CONNRESET => "the seccomp agent has ended or hung up",
        _ => "the seccomp agent could not be given the filter's listener",
    }
}

/// Where the process that loads the filter and the thread beside it meet, without a system call.
#[derive(Debug, Default)]
pub struct Handover {
    listener: OnceLock<OwnedFd>,
    done: AtomicBool,
}

impl Handover {
    /// Starts the thread that hands the listener over. When it cannot, `tell` is called there, and the
    /// process ends.
    pub fn begin(
        introduction: Introduction,
        tell: impl FnOnce(Fault) + Send + 'static,
    ) -> Result<Arc<Handover>, Fault> {
        let handover = Arc::new(Handover::default());
        let ours = Arc::clone(&handover);
        let thread = std::thread::Builder::new().stack_size(STACK);
        let started = thread.spawn(move || {
            if let Err(fault) = introduction.send(ours.wait_for_listener()) {
                tell(fault);
                sys::exit_now(1);
            }
            // The agent sees the end before the program runs.
            drop((introduction, tell));
            ours.done.store(true, Ordering::Release);
        });
        started.fault("clone3").map_err(|fault| {
            fault.because("giving the filter's listener to the seccomp agent takes a thread: raise the limit of processes")
        })?;
        Ok(handover)
    }

    fn wait_for_listener(&self) -> BorrowedFd<'_> {
        loop {
            if let Some(listener) = self.listener.get() {
                return listener.as_fd();
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Gives the listener to the thread, and returns when the agent has it. Makes no system call; but
    /// with a real-time policy sched_yield(2), because there the thread would not run beside this one.
    pub fn give(self: Arc<Handover>, listener: OwnedFd, realtime: bool) {
        // The first and only one.
        let _ = self.listener.set(listener);
        while !self.done.load(Ordering::Acquire) {
            if realtime {
                rustix::thread::sched_yield();
            } else {
                std::hint::spin_loop();
            }
        }
        // The listener is closed by execve(2), or with this process: close(2) may be the agent's.
        std::mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{bind, listen};

    use super::*;

    #[test]
    fn the_limit_is_for_all_connections_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let agent = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        bind(&agent, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        // One may wait to be accepted.
        listen(&agent, 0).unwrap();
        let _waiting = connect(&path, None).unwrap();
        let limit = Duration::from_millis(800);
        let accepts = std::thread::spawn(move || {
            std::thread::sleep(limit * 3 / 4);
            let accepted = rustix::net::accept(&agent).unwrap();
            std::thread::sleep(limit * 2);
            drop((agent, accepted));
        });
        let plan = ListenerPlan {
            path,
            metadata: None,
            calls: Vec::new(),
            others: false,
            state: serde_json::Map::new(),
        };
        let begun = Instant::now();
        let mut agent = Agent::new(&plan, Status::Creating, None).unwrap();
        let fault = agent.connect(2, Deadline::after(limit)).unwrap_err();
        assert!(fault.is(Errno::TIMEDOUT), "{fault:?}");
        assert_eq!(agent.connections.len(), 1);
        assert!(begun.elapsed() < limit * 3 / 2, "{:?}", begun.elapsed());
        accepts.join().unwrap();
    }
}
