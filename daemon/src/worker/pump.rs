//! Passing input from the daemon to a program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use super::feed::PIECE;

/// How long to wait before writing again to a terminal that no process has open.
const AGAIN: Duration = Duration::from_millis(20);

/// Writes every message from a socket to a descriptor in non-blocking mode, until either end is closed. When the
/// daemon shuts the socket down for writing, calls `written` once everything has been written, and keeps the
/// descriptor open until the daemon closes the socket, so that the helper can close its own first.
pub(super) fn pump(from: OwnedFd, to: OwnedFd, written: impl FnOnce()) -> io::Result<()> {
    let (mut from, to) = (File::from(from), File::from(to));
    let mut chunk = vec![0; PIECE];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => write_all(&to, &chunk[..n], &from)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    written();
    wait(&mut [PollFd::new(&from, PollFlags::empty())])
}

fn write_all(mut to: &File, mut bytes: &[u8], from: &File) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => make_room(to, from)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until there may be room; an error once the daemon has closed the socket.
fn make_room(to: &File, from: &File) -> io::Result<()> {
    let mut polled = [
        PollFd::new(to, PollFlags::OUT),
        PollFd::new(from, PollFlags::empty()),
    ];
    wait(&mut polled)?;
    if polled[1].revents().contains(PollFlags::HUP) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    if !polled[0].revents().contains(PollFlags::OUT) {
        // While no process has the terminal open, poll(2) returns at once with POLLHUP.
        sleep(AGAIN);
    }
    Ok(())
}

fn wait(polled: &mut [PollFd<'_>]) -> io::Result<()> {
    retry_on_intr(|| poll(polled, None))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::mpsc;

    use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    struct Pumped {
        from: File,
        to: File,
        told: mpsc::Receiver<&'static str>,
    }

    fn pumped() -> Pumped {
        let kind = SocketType::SEQPACKET;
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let (from, theirs) = pair.unwrap();
        let (to, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let written = tell.clone();
            let result = pump(theirs, pipe, || written.send("written").unwrap());
            tell.send(if result.is_ok() { "closed" } else { "broken" })
        });
        let (from, to) = (from.into(), to.into());
        Pumped { from, to, told }
    }

    #[test]
    fn everything_arrives_and_the_pipe_stays_open_until_the_daemon_closes() {
        let mut pumped = pumped();
        let bytes = vec![7; 1024 * 1024];
        let mut arrived = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for piece in bytes.chunks(PIECE) {
                    (&pumped.from).write_all(piece).unwrap();
                }
            });
            pumped.to.read_exact(&mut arrived).unwrap();
        });
        assert_eq!(arrived, bytes);
        shutdown(&pumped.from, Shutdown::Write).unwrap();
        assert_eq!(pumped.told.recv().unwrap(), "written");
        rustix::io::ioctl_fionbio(&pumped.to, true).unwrap();
        let open = pumped.to.read(&mut arrived).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        drop(pumped.from);
        assert_eq!(pumped.told.recv().unwrap(), "closed");
        assert_eq!(pumped.to.read(&mut arrived).unwrap(), 0);
    }

    #[test]
    fn a_program_that_does_not_read_is_left_when_the_daemon_leaves() {
        let pumped = pumped();
        for _ in 0..2 {
            (&pumped.from).write_all(&[7; PIECE]).unwrap();
        }
        drop(pumped.from);
        assert_eq!(pumped.told.recv().unwrap(), "broken");
    }

    #[test]
    fn a_program_that_reads_no_more_is_left() {
        let pumped = pumped();
        drop(pumped.to);
        (&pumped.from).write_all(b"x").unwrap();
        assert_eq!(pumped.told.recv().unwrap(), "broken");
    }
}
