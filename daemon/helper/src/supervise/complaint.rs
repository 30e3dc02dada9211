//! Failures that no client is waiting for, written to standard error. That is inherited from the daemon
//! and outlives it: a pipe or a terminal that may have no reader.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// The most a pipe is sure to take without blocking once it is writable (pipe(7), `PIPE_BUF`).
const LIMIT: usize = 4096;

/// At the file's own position, which pipes do not have (pwritev2(2)).
const HERE: u64 = u64::MAX;

/// Writes a line, unless that would block. Not by `eprintln!`, which panics without a reader.
pub fn write(stderr: BorrowedFd<'_>, line: &str) {
    let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    let now = Timespec::default();
    if !matches!(poll(&mut fds, Some(&now)), Ok(1..)) {
        return;
    }
    let line = &line.as_bytes()[..line.len().min(LIMIT)];
    // Another helper may have filled it meanwhile.
    let written = pwritev2(stderr, &[IoSlice::new(line)], HERE, ReadWriteFlags::NOWAIT);
    if let Err(Errno::OPNOTSUPP | Errno::NOSYS) = written {
        let _ = rustix::io::write(stderr, line);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_complaint_does_not_wait_for_a_reader() {
        let (read, full) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        write(full.as_fd(), "heard\n");
        let mut heard = [0; 64];
        assert_eq!(rustix::io::read(&read, &mut heard).unwrap(), 6);
        while rustix::io::write(&full, &[0; LIMIT]) != Err(Errno::AGAIN) {}
        // From here on a write would wait.
        rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::empty()).unwrap();
        write(full.as_fd(), "not heard\n");
        drop(read);
        write(full.as_fd(), "no reader\n");
    }
}
