//! The ends of a program's terminal and pipes on which operations can block on the container.
//!
//! A process can be stuck reading or writing the slave, with its buffer on a file system that does not
//! respond. Until it continues, anyone who changes the terminal's settings or size, or closes the last
//! master (which hangs the terminal up, `tty_ldisc_hangup`), or a slave while somebody else hangs it up,
//! blocks in the kernel, and SIGKILL does not interrupt that wait. So a separate process performs these
//! operations.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

use super::deadline::Deadline;
use super::dying::{self, bury_later, ends_within};
use super::guard::Child;
use super::report::Report;
use super::spawn;
use crate::fault::Fault;
use crate::sys::{self, Forked};
use littlebox_protocol::bounds;

thread_local! {
    /// Descriptors still to be closed, because no process could be forked for it.
    static UNCLOSED: Cell<Vec<OwnedFd>> = const { Cell::new(Vec::new()) };
    /// The last process that was abandoned while it worked on a terminal.
    static STUCK: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// A program's terminal: its master, and the slave for as long as the program runs. A master without
/// an open slave reads EIO and drops what is typed (pty(7)), also when the program has merely closed its
/// terminal for a while.
#[derive(Debug)]
pub struct Terminal {
    master: Option<OwnedFd>,
    slave: Option<OwnedFd>,
}

impl Terminal {
    /// Takes both ends over.
    pub fn new(master: OwnedFd, slave: OwnedFd) -> Terminal {
        Terminal {
            master: Some(master),
            slave: Some(slave),
        }
    }

    /// The master, for callers that may block when they close it.
    pub fn into_master(mut self) -> OwnedFd {
        self.slave = None;
        self.master.take().expect("it is there until it is dropped")
    }

    /// Lets go of the slave: the master then reads EIO once nobody else has it.
    pub fn let_go(&mut self) {
        close_all_elsewhere(self.slave.take());
    }

    /// Types the end-of-file character (termios(3), VEOF).
    ///
    /// # Errors
    /// `TIMEDOUT` where the terminal's settings cannot be read now; `AGAIN` where nobody reads it.
    pub fn type_end_of_file(&self) -> rustix::io::Result<()> {
        let master = self.as_fd();
        in_stead(master, || {
            let settings = tcgetattr(master)?;
            let eof = settings.special_codes[SpecialCodeIndex::VEOF];
            rustix::io::write(master, &[eof]).map(drop)
        })
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// `TIMEDOUT` where a process of the container holds the terminal's lock.
    pub fn set_size(&self, size: Winsize) -> rustix::io::Result<()> {
        let master = self.as_fd();
        in_stead(master, || tcsetwinsize(master, size))
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master
            .as_ref()
            .expect("it is there until it is dropped")
            .as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        close_all_elsewhere(self.slave.take().into_iter().chain(self.master.take()));
    }
}

/// Closes descriptors, and those that could not be closed before; what is left is closed when this
/// process exits.
fn close_all_elsewhere(fds: impl IntoIterator<Item = OwnedFd>) {
    let closing = UNCLOSED.take().into_iter().chain(fds);
    let left = closing.filter_map(|fd| close_elsewhere(fd).err());
    UNCLOSED.set(left.collect());
}

/// The write end of a program's standard input. A process that is stuck reading the pipe holds its lock, and
/// then closing the last write end blocks.
#[derive(Debug)]
pub struct InputPipe(Option<OwnedFd>);

impl InputPipe {
    /// Closes it in this process, because another process still holds a duplicate.
    pub fn close_here(mut self) {
        drop(self.0.take());
    }
}

impl From<OwnedFd> for InputPipe {
    fn from(pipe: OwnedFd) -> InputPipe {
        InputPipe(Some(pipe))
    }
}

impl AsFd for InputPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
            .as_ref()
            .expect("it is there until it is dropped")
            .as_fd()
    }
}

impl Drop for InputPipe {
    fn drop(&mut self) {
        let Some(pipe) = self.0.take() else { return };
        if is_unread(&pipe) {
            return;
        }
        close_all_elsewhere([pipe]);
    }
}

/// Whether a pipe has no readers left (`POLLERR`, poll(2)).
fn is_unread(pipe: &OwnedFd) -> bool {
    // Errors are reported without being asked for.
    let ready = Deadline::now().wait(pipe.as_fd(), PollFlags::empty());
    ready.unwrap_or(false)
}

/// Closes this process' descriptor while another process holds a duplicate and closes the last one.
/// Returns the descriptor if no such process can be forked.
fn close_elsewhere(fd: OwnedFd) -> Result<(), OwnedFd> {
    match held_elsewhere(&fd) {
        Ok((child, ours)) => {
            // The other process goes on when this end is closed.
            drop((fd, ours));
            bury_later(child);
            Ok(())
        }
        Err(_) => Err(fd),
    }
}

/// Forks a process that holds the descriptor until the returned end of the pair is closed.
fn held_elsewhere(fd: &OwnedFd) -> Result<(Child, Report), Fault> {
    let (ours, theirs) = Report::pair()?;
    let child = match spawn::fork(0, None)? {
        Forked::Child => {
            // The helper still holds these descriptors, so closing them here hangs nothing up.
            let kept = [fd.as_fd(), theirs.as_fd()];
            if sys::close_all_but(kept, 3).is_ok() {
                let _ = theirs.go(None);
                let _ = theirs.wait_for_go();
            }
            sys::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    drop(theirs);
    let ready = Deadline::after(dying::patience()).wait(ours.as_fd(), PollFlags::IN);
    // Even a slow child has held the descriptor since its fork.
    let _ = ready;
    Ok((child, ours))
}

/// How long to wait for such a process. While one is stuck, others get less, so that requests are not
/// delayed over and over.
fn patience() -> Duration {
    let is_stuck = |process: &OwnedFd| !ends_within(process.as_fd(), Duration::ZERO);
    match STUCK.with_borrow(|stuck| stuck.as_ref().is_some_and(is_stuck)) {
        true => dying::patience(),
        false => bounds::REAP,
    }
}

/// Works on a terminal in another process, which may block for longer than this one waits.
fn in_stead(
    master: BorrowedFd<'_>,
    work: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let child = match spawn::fork(0, None).map_err(|fault| Errno::from_raw_os_error(fault.errno))? {
        Forked::Child => {
            let done = sys::close_all_but([master], 3).and_then(|()| work());
            // An errno is below 134 (errno(3)).
            sys::exit_now(done.map_or_else(Errno::raw_os_error, |()| 0))
        }
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
    };
    if !ends_within(child.pidfd(), patience()) {
        child.kill();
        STUCK.set(child.pidfd().try_clone_to_owned().ok());
        bury_later(child);
        return Err(Errno::TIMEDOUT);
    }
    let status = waitid(WaitId::PidFd(child.pidfd()), WaitIdOptions::EXITED)?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::CHILD),
    }
}
