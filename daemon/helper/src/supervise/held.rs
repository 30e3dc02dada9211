//! Requests about an exec on its way. Its start is answered when it runs; a signal that came before
//! that, from another client, waits for the same.

use std::time::Instant;

use super::calls::{done, refused};
use super::event_loop::Supervisor;
use littlebox_protocol::{Call, Request, StepFailure, Target, bounds};

/// A request that is kept until its exec has started, or never will.
pub(super) struct Held {
    connection: u64,
    request: Request,
    exec: String,
    until: Instant,
}

impl Held {
    /// When the request is refused if the exec has still not started.
    pub(super) fn due(&self) -> Instant {
        self.until
    }
}

impl Supervisor {
    /// Keeps a request about an exec on its way; gives back any other. A kill does not wait: it ends
    /// the start.
    pub(super) fn hold(&mut self, connection: u64, request: Request) -> Option<Request> {
        let Some(Target::Exec(id)) = request.call.target() else {
            return Some(request);
        };
        if !self.starting.iter().any(|starting| starting.id() == id) {
            return Some(request);
        }
        let exec = id.clone();
        if let Call::Signal { signal, .. } = request.call
            && signal == libc::SIGKILL
        {
            self.kill_starting(&exec);
            self.reply(connection, request.seq, done());
            return None;
        }
        self.held.push(Held {
            connection,
            request,
            exec,
            until: Instant::now() + bounds::EXEC_ON_ITS_WAY,
        });
        None
    }

    /// Serves what was kept for execs that are not on their way any more.
    pub(super) fn serve_held(&mut self) {
        let starting = &self.starting;
        let is_settled = |held: &mut Held| !starting.iter().any(|s| s.id() == held.exec);
        let settled: Vec<Held> = self.held.extract_if(.., is_settled).collect();
        for held in settled {
            self.handle(held.connection, held.request);
        }
    }

    /// Refuses what was kept for too long.
    pub(super) fn refuse_held(&mut self, now: Instant) {
        let is_late = |held: &mut Held| held.until <= now;
        let late: Vec<Held> = self.held.extract_if(.., is_late).collect();
        for held in late {
            let failure = StepFailure {
                errno: libc::EAGAIN,
                ..refused("the exec has not started yet")
            };
            self.reply(held.connection, held.request.seq, Err(failure));
        }
    }

    /// What a lost connection has asked for.
    pub(super) fn drop_held_of(&mut self, connection: u64) {
        self.held.retain(|held| held.connection != connection);
    }
}
