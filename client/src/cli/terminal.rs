//! The user's terminal: size and raw mode.

use std::io::{self, IsTerminal};

use littlebox_types::TermSize;
use rustix::termios::{self, OptionalActions, Termios};

/// Whether stdin is a terminal.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal on stdout, else stderr, else stdin.
pub fn size() -> Option<TermSize> {
    let candidates = [
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
        rustix::stdio::stdin(),
    ];
    let winsize = candidates
        .into_iter()
        .find_map(|fd| termios::tcgetwinsize(fd).ok())?;
    let size = TermSize {
        rows: winsize.ws_row,
        cols: winsize.ws_col,
    };
    // A serial line and some wrappers do not know theirs.
    (size.rows > 0 && size.cols > 0).then_some(size)
}

/// The terminal on stdin in raw mode, until this is dropped: at the end, by an error, or when a
/// panic unwinds. Signals that would end the process are taken by `signals` meanwhile.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode.
    pub fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone. `Now`, not `Drain`: a terminal
        // whose output is stopped (Ctrl-S) must not keep us from ending.
        let stdin = rustix::stdio::stdin();
        let _ = termios::tcsetattr(stdin, OptionalActions::Now, &self.before);
    }
}
