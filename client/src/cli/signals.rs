//! Signals that reach lbctl while a program runs in the foreground.

use std::io;

use littlebox_types::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// A signal that was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// The terminal's size changed (SIGWINCH).
    Resized,
    /// A signal for the program, or for us.
    Signal(Signal),
}

/// Whether it asks for an end.
pub fn asks_to_end(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::TERM)
}

/// The signals that are caught from now on.
#[derive(Debug)]
pub struct Signals {
    winch: unix::Signal,
    hup: unix::Signal,
    int: unix::Signal,
    quit: unix::Signal,
    usr1: unix::Signal,
    usr2: unix::Signal,
    term: unix::Signal,
}

impl Signals {
    /// Catches them; they do not end the process any more.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            winch: signal(SignalKind::window_change())?,
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            term: signal(SignalKind::terminate())?,
        })
    }

    /// The next one that tells us to end.
    pub async fn told_to_end(&mut self) -> Signal {
        loop {
            if let Caught::Signal(signal) = self.next().await
                && (asks_to_end(signal) || signal == Signal::HUP)
            {
                return signal;
            }
        }
    }

    /// Lets a request that makes something come to its end: one signal is kept in `early`, for what
    /// it makes; a second one gives up.
    pub async fn uninterrupted<T>(
        &mut self,
        early: &mut Option<Signal>,
        request: impl Future<Output = T>,
    ) -> Result<T, Signal> {
        let mut request = std::pin::pin!(request);
        loop {
            tokio::select! {
                biased;
                result = &mut request => return Ok(result),
                caught = self.next() => match (caught, &early) {
                    (Caught::Resized, _) => {}
                    (Caught::Signal(signal), None) => *early = Some(signal),
                    (Caught::Signal(signal), Some(_)) => return Err(signal),
                },
            }
        }
    }

    /// The next one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Caught {
        Caught::Signal(tokio::select! {
            _ = self.winch.recv() => return Caught::Resized,
            _ = self.hup.recv() => Signal::HUP,
            _ = self.int.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.usr1.recv() => Signal::USR1,
            _ = self.usr2.recv() => Signal::USR2,
            _ = self.term.recv() => Signal::TERM,
        })
    }
}
