//! Where a program that is ready to run waits for its start.
//!
//! A listening socket in a 0700 directory of the host. The process that becomes the program holds
//! it from before `pivot_root` until it is asked; then it is closed, so nothing in the container
//! ever has it. The connection tells the one who asked how `execve` went, as [`super::report`] says.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use super::deadline::Deadline;
use super::report::Report;
use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::{Step, StepFailure};

/// The socket's name in its directory.
pub const NAME: &str = "start.sock";

/// Signals whose default is not to end a process (signal(7)).
const DO_NOT_END: [i32; 7] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// Its name from when a start was asked for until the program runs, or never will.
pub const ASKED: &str = "starting.sock";

/// Makes the socket in `dir`.
///
/// # Errors
/// The system call that failed.
pub fn make(dir: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let socket = socket()?;
    bind(&socket, &address(dir)?).fault_at("bind", NAME)?;
    listen(&socket, 1).fault_at("listen", NAME)?;
    Ok(socket)
}

/// Asks the program that waits behind the socket in `dir` to start, and waits until it runs. `agents`
/// are the connections to its seccomp agent, one for each filter that will be loaded. Renames
/// the socket at first, so that nobody can ask a second time, and removes it at the end: as long as
/// the program does not run, what is signalled is not the program.
///
/// # Errors
/// What kept the program from running; [`NotWaiting`] when none waits.
pub fn open(dir: BorrowedFd<'_>, agents: Vec<OwnedFd>) -> Result<(), GateError> {
    let socket = socket().map_err(GateError::from_fault)?;
    let address = address(dir).map_err(GateError::from_fault)?;
    match retry_on_intr(|| connect(&socket, &address)) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(GateError::NotWaiting),
        Err(errno) => {
            return Err(GateError::from_fault(Fault::of("connect", errno).at(NAME)));
        }
    }
    // Gone already when somebody deletes the container at this very moment.
    let _ = renameat(dir, NAME, dir, ASKED);
    let report = Report::from(socket);
    let mut sent = agents.iter().map(|agent| report.go(Some(agent.as_fd())));
    let sent = sent.try_for_each(|sent| sent);
    // The agent is to see the end of what it is sent.
    drop(agents);
    let heard = sent
        .and_then(|()| report.wait_for_end(Deadline::after_ms(None)))
        .and_then(|_| report.drain());
    let _ = unlinkat(dir, ASKED, AtFlags::empty());
    let heard = heard.map_err(GateError::from_fault)?;
    match heard.failure {
        Some(failure) => Err(GateError::Failed(failure)),
        None if heard.ready => Ok(()),
        None => Err(GateError::from_fault(Fault::refused(
            "the process ended before its program ran",
        ))),
    }
}

/// Why a program did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateError {
    /// None waits: it has been started, or has ended.
    NotWaiting,
    /// It could not be executed, or a hook before it failed. Its process has ended.
    Failed(StepFailure),
}

impl GateError {
    fn from_fault(fault: Fault) -> GateError {
        GateError::Failed(fault.of_step(Step::Exec))
    }
}

/// The waiting side: returns once the start is requested. A signal that would end a program ends this
/// process too. As PID 1 of a namespace it would otherwise ignore signals without a handler
/// (pid_namespaces(7)), and a created container could not be stopped.
pub(super) fn wait(gate: BorrowedFd<'_>) -> Result<Report, Fault> {
    let signals = sys::all_signals().fault("signalfd4")?;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(gate, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut fds, None)).fault("poll")?;
        let [asked, signalled] = fds.map(|fd| !fd.revents().is_empty());
        if signalled {
            let signal = sys::read_signal(signals.as_fd()).fault("read")?;
            if !DO_NOT_END.contains(&signal) {
                sys::exit_now(128 + signal);
            }
        }
        if asked {
            break;
        }
    }
    sys::set_signal_mask(0).fault("rt_sigprocmask")?;
    retry_on_intr(|| accept_with(gate, SocketFlags::CLOEXEC))
        .map(Report::from)
        .fault_at("accept4", NAME)
}

fn socket() -> Result<OwnedFd, Fault> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    socket_with(family, kind, SocketFlags::CLOEXEC, None).fault("socket")
}

/// The directory is named by its descriptor: a socket's path has at most 107 bytes (unix(7)).
fn address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix, Fault> {
    let path = format!("/proc/self/fd/{}/{NAME}", dir.as_fd().as_raw_fd());
    SocketAddrUnix::new(path.as_str()).fault_at("bind", NAME)
}
