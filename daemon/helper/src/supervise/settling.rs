//! Programs that have ended: the exit record is made durable before anyone is notified.

use std::io;
use std::time::{Duration, Instant};

use super::event_loop::Supervisor;
use super::program::{Kind, Program};
use super::record;
use littlebox_protocol::{Event, ExitRecord};

/// How often the writing of an exit record is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Writes the records of what has ended, and tells. The container's comes last.
    pub(super) fn settle_ended(&mut self) {
        if !self.programs.iter().any(Program::is_drained) || self.exit.is_some() {
            return;
        }
        let kills = self.oom.look(&self.built.cgroup);
        self.tell_oom(kills);
        let oom = &mut self.oom;
        let mut ended = Vec::new();
        self.programs.retain_mut(|program| match &program.kind {
            Kind::Container => true,
            kind @ Kind::Exec { .. } => match program.exit_record(oom) {
                Some(record) => {
                    ended.push((kind.clone(), record, program.take_cgroup()));
                    false
                }
                None => true,
            },
        });
        for (kind, record, own) in ended {
            self.settle(kind, record);
            self.released.extend(own);
        }
        if let [container] = &self.programs[..]
            && let Some(record) = container.exit_record(&mut self.oom)
        {
            self.settle_container(record);
        }
    }

    /// The record first: a cgroup that is left when this process is killed can be found by its name, and
    /// how the container ended only in the record. Told last: whoever hears of the end may start the
    /// container again, in a cgroup of the same name.
    fn settle_container(&mut self, record: ExitRecord) {
        let stored = self.store(&Kind::Container, &record);
        if let Err(error) = self.built.cgroup.remove() {
            self.complain("removal of the cgroup", &error);
        }
        self.exit = Some(record.clone());
        self.tell_end(Kind::Container, record, stored);
    }

    /// Makes an exit record durable, then tells every connection.
    fn settle(&mut self, kind: Kind, record: ExitRecord) {
        let stored = self.store(&kind, &record);
        self.tell_end(kind, record, stored);
    }

    fn tell_end(&mut self, kind: Kind, record: ExitRecord, stored: bool) {
        self.tell_all(&event_of(&kind, &record));
        if !stored && self.connections.is_empty() {
            self.unsettled.push((kind, record));
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// Writes a record; `false` where that is to be tried again.
    fn store(&self, kind: &Kind, record: &ExitRecord) -> bool {
        let written = match kind {
            Kind::Container => self.run_dir.write_exit_record(record),
            Kind::Exec { exit_record, .. } => record::write_at(exit_record, record),
        };
        match written {
            Ok(()) => true,
            Err(error) => {
                self.complain("exit record", &error);
                // Without its directory nobody can ever ask for it.
                error.kind() == io::ErrorKind::NotFound
            }
        }
    }

    /// Tries again to write what could not be written.
    pub(super) fn retry_unsettled(&mut self) {
        let unsettled = std::mem::take(&mut self.unsettled);
        for (kind, record) in unsettled {
            if !self.store(&kind, &record) {
                self.unsettled.push((kind, record));
            }
        }
        if !self.unsettled.is_empty() {
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
    }

    /// Tells a daemon that has come back what could neither be written nor told before.
    pub(super) fn tell_unsettled(&mut self) {
        for (kind, record) in std::mem::take(&mut self.unsettled) {
            self.tell_all(&event_of(&kind, &record));
        }
    }
}

fn event_of(kind: &Kind, record: &ExitRecord) -> Event {
    match kind {
        Kind::Container => Event::Exited(record.clone()),
        Kind::Exec { id, .. } => Event::ExecExited {
            id: id.clone(),
            record: record.clone(),
        },
    }
}
