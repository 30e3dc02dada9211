//! Signals that reach lbctl while a program runs in the foreground.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// The terminal's size changed (SIGWINCH).
    Resized,
    /// A signal for the program, or for us.
    Signal(Sig),
}

/// A signal's number and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sig {
    /// As in signal(7).
    pub number: i32,
    /// `SIGINT` style.
    pub name: &'static str,
}

impl Sig {
    /// Whether it asks for an end.
    pub fn asks_to_end(self) -> bool {
        matches!(self.name, "SIGINT" | "SIGTERM")
    }

    /// The terminal has gone.
    pub fn is_hangup(self) -> bool {
        self.name == "SIGHUP"
    }

    /// The exit code of a program that it ended.
    pub fn exit_code(self) -> i32 {
        128 + self.number
    }
}

/// The signals that are caught from now on.
#[derive(Debug)]
pub struct Signals {
    winch: Signal,
    hup: Signal,
    int: Signal,
    quit: Signal,
    usr1: Signal,
    usr2: Signal,
    term: Signal,
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
    pub async fn told_to_end(&mut self) -> Sig {
        loop {
            if let Caught::Signal(sig) = self.next().await
                && (sig.asks_to_end() || sig.is_hangup())
            {
                return sig;
            }
        }
    }

    /// Lets a request that makes something come to its end: one signal is kept in `early`, for what
    /// it makes; a second one gives up.
    pub async fn uninterrupted<T>(
        &mut self,
        early: &mut Option<Sig>,
        request: impl Future<Output = T>,
    ) -> Result<T, Sig> {
        let mut request = std::pin::pin!(request);
        loop {
            tokio::select! {
                biased;
                result = &mut request => return Ok(result),
                caught = self.next() => match (caught, &early) {
                    (Caught::Resized, _) => {}
                    (Caught::Signal(sig), None) => *early = Some(sig),
                    (Caught::Signal(sig), Some(_)) => return Err(sig),
                },
            }
        }
    }

    /// The next one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Caught {
        let (kind, name) = tokio::select! {
            _ = self.winch.recv() => return Caught::Resized,
            _ = self.hup.recv() => (SignalKind::hangup(), "SIGHUP"),
            _ = self.int.recv() => (SignalKind::interrupt(), "SIGINT"),
            _ = self.quit.recv() => (SignalKind::quit(), "SIGQUIT"),
            _ = self.usr1.recv() => (SignalKind::user_defined1(), "SIGUSR1"),
            _ = self.usr2.recv() => (SignalKind::user_defined2(), "SIGUSR2"),
            _ = self.term.recv() => (SignalKind::terminate(), "SIGTERM"),
        };
        Caught::Signal(Sig {
            number: kind.as_raw_value(),
            name,
        })
    }
}
