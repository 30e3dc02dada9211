//! A program in the foreground: signals go to it, its terminal is the caller's, and this process
//! ends as it did.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

use littlebox_helper::sys;
use littlebox_protocol::TerminalSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Doing, Result};
use crate::relay::Relay;

const SIGCHLD: i32 = Signal::CHILD.as_raw();
const SIGWINCH: i32 = Signal::WINCH.as_raw();

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

/// Whether what a program prints on its terminal is shown on one of the caller's.
pub fn is_shown() -> bool {
    std::io::stdout().is_terminal()
}

/// The size of the caller's terminal; `None`: it has none.
pub fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some(TerminalSize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// Waits for the program, a child of this process, and returns its code; 128 and the number of the
/// signal that ended it.
pub fn wait(pidfd: &OwnedFd, master: Option<OwnedFd>, signals: &Signals) -> Result<u8> {
    let _raw = master.as_ref().and_then(|_| RawTerminal::enter());
    let mut relay = master.map(Relay::new).transpose()?;
    let mut code = None;
    loop {
        if code.is_none() {
            code = ended(pidfd)?;
        }
        if let Some(code) = code {
            let is_done = relay.as_mut().is_none_or(Relay::finish);
            if is_done {
                return Ok(code);
            }
        }
        match (wait_for_news(signals, relay.as_mut())?, code, &relay) {
            (None | Some(SIGCHLD), ..) => {}
            (Some(SIGWINCH), _, Some(relay)) => relay.resize(),
            // Only its output is left, which nobody reads.
            (Some(_), Some(code), _) => return Ok(code),
            (Some(signal), None, _) => {
                // It may have ended in this moment: then SIGCHLD follows.
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), signal);
            }
        }
    }
}

/// Waits for a signal, and moves what can be moved meanwhile; the signal, if one came.
fn wait_for_news(signals: &Signals, mut relay: Option<&mut Relay>) -> Result<Option<i32>> {
    let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN)];
    let asked = relay.as_ref().map(|relay| relay.ask(&mut fds));
    retry_on_intr(|| poll(&mut fds, None)).doing(|| "poll".to_owned())?;
    let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    if let (Some(relay), Some(asked)) = (&mut relay, asked) {
        relay.serve(&asked, &ready);
    }
    Ok(if ready[0].is_empty() {
        None
    } else {
        signals.next()
    })
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
