//! A program in the foreground: signals go to it, its terminal is the caller's, and this process
//! ends as it did.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use littlebox_helper::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::{Doing, Result};

/// Every signal of this process, as a descriptor; made before the program is.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Takes all signals. The program starts with none blocked.
    pub fn take() -> Result<Signals> {
        sys::all_signals()
            .map(Signals)
            .doing(|| "signalfd".to_owned())
    }

    fn next(&self) -> Option<i32> {
        sys::read_signal(self.0.as_fd()).ok()
    }
}

/// The caller's terminal, raw as long as this lives.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<RawTerminal> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may have gone away.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Waits for the program, a child of this process, and returns its code; 128 and the number of the
/// signal that ended it.
pub fn wait(pidfd: &OwnedFd, master: Option<OwnedFd>, signals: &Signals) -> Result<u8> {
    let raw = master.as_ref().and_then(|_| RawTerminal::enter());
    if let Some(master) = &master {
        resize(master);
    }
    let mut relay = master.map(Relay::new);
    loop {
        let ready = wait_for_news(signals, relay.as_ref())?;
        if ready.signal
            && let Some(signal) = signals.next()
        {
            on_signal(signal, pidfd, relay.as_ref());
        }
        if let Some(relay) = &mut relay {
            relay.serve(&ready);
        }
        if let Some(code) = ended(pidfd)? {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            drop(raw);
            return Ok(code);
        }
    }
}

#[derive(Debug, Default)]
struct Ready {
    signal: bool,
    input: bool,
    output: bool,
}

fn wait_for_news(signals: &Signals, relay: Option<&Relay>) -> Result<Ready> {
    let stdin = std::io::stdin();
    let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN)];
    let (mut input, mut output) = (None, None);
    if let Some(relay) = relay {
        if relay.reads_input {
            input = Some(fds.len());
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        if !relay.hung_up {
            output = Some(fds.len());
            fds.push(PollFd::new(&relay.master, PollFlags::IN));
        }
    }
    loop {
        match poll(&mut fds, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(|| "poll".to_owned()),
        }
    }
    let is = |index: Option<usize>| index.is_some_and(|i| !fds[i].revents().is_empty());
    Ok(Ready {
        signal: is(Some(0)),
        input: is(input),
        output: is(output),
    })
}

fn on_signal(signal: i32, pidfd: &OwnedFd, relay: Option<&Relay>) {
    if signal == Signal::CHILD.as_raw() {
        return;
    }
    if signal == Signal::WINCH.as_raw()
        && let Some(relay) = relay
    {
        resize(&relay.master);
        return;
    }
    // It may have ended in this moment: then SIGCHLD follows.
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), signal);
}

fn ended(pidfd: &OwnedFd) -> Result<Option<u8>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options)
        .doing(|| "wait for the program".to_owned())?;
    let code = |status: rustix::process::WaitIdStatus| {
        let code = status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        u8::try_from(code.unwrap_or(255)).unwrap_or(255)
    };
    Ok(status.map(code))
}

fn resize(master: &OwnedFd) {
    // Without a terminal of its own the caller has no size to pass on.
    if let Ok(size) = tcgetwinsize(std::io::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Bytes between the caller's stdio and a terminal.
struct Relay {
    master: OwnedFd,
    reads_input: bool,
    hung_up: bool,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(master: OwnedFd) -> Relay {
        Relay {
            master,
            reads_input: true,
            hung_up: false,
            buffer: vec![0; 16 * 1024],
        }
    }

    fn serve(&mut self, ready: &Ready) {
        if ready.input {
            match std::io::stdin().lock().read(&mut self.buffer) {
                Ok(0) | Err(_) => self.reads_input = false,
                Ok(n) => write_all(self.master.as_fd(), &self.buffer[..n]),
            }
        }
        if ready.output {
            self.pass_output();
        }
    }

    /// Tells whether there may be more.
    fn pass_output(&mut self) -> bool {
        match rustix::io::read(&self.master, &mut self.buffer) {
            Ok(n) if n > 0 => {
                let mut stdout = std::io::stdout().lock();
                // A caller that reads no more loses the output, as with any program.
                let _ = stdout
                    .write_all(&self.buffer[..n])
                    .and_then(|()| stdout.flush());
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // EIO: the last process that had it is gone (pty(7)).
            Ok(_) | Err(_) => {
                self.hung_up = true;
                false
            }
        }
    }

    /// What was printed before the end.
    fn drain(&mut self) {
        while self.pass_output() {}
    }
}

/// The master does not block: a program that reads nothing is waited for.
fn write_all(master: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(master, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(master, PollFlags::OUT)];
                if poll(&mut fds, None).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
