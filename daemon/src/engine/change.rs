//! The one way in which containers and execs change: under their lock, in memory and in the store alike.

use littlebox_types::ExecId;
use serde_json::Value;

use super::Engine;
use super::handle::{ExecHandle, Handle, Live};
use super::record::{ExecRecord, Record};
use crate::lifecycle;
use crate::store::{NewEvent, Queued, Write};

/// What a change writes to the store beside the record, in one transaction.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// A container's first config, as JSON: makes its row.
    pub config: Option<String>,
    /// A container's last start, as JSON.
    pub launched: Option<String>,
    /// Other rows.
    pub writes: Vec<Write>,
    /// The change must survive a power cut before it is acknowledged.
    pub durable: bool,
    events: Vec<(&'static str, Value)>,
}

impl Recording {
    /// Adds an event; events keep their order.
    pub(super) fn event(&mut self, kind: &'static str, data: Value) {
        self.events.push((kind, data));
    }
}

impl Engine {
    /// Changes a container. `change` alters it under its lock and notes what else is to be recorded.
    /// Row and events are queued before the lock is released, so they are written in the order of the
    /// changes. Then everybody who waits for this container is woken.
    ///
    /// # Errors
    /// `change`'s own; nothing is recorded then.
    pub(super) fn change<T, E>(
        &self,
        handle: &Handle,
        change: impl FnOnce(&mut Live, &mut Recording) -> Result<T, E>,
    ) -> Result<(T, Queued), E> {
        let mut recording = Recording::default();
        let changed = {
            let mut live = handle.live();
            let value = change(&mut live, &mut recording)?;
            let record = &live.record;
            let row = container_row(record, &mut recording);
            (
                value,
                self.queue(row, recording, |kind, data| event(record, kind, data)),
            )
        };
        handle.notify();
        Ok(changed)
    }

    /// Changes an exec, as [`Engine::change`] does a container; who waits for its end is woken, too.
    ///
    /// # Errors
    /// `change`'s own; nothing is recorded then.
    pub(super) fn change_exec<T, E>(
        &self,
        exec: &ExecHandle,
        change: impl FnOnce(&mut ExecRecord, &mut Recording) -> Result<T, E>,
    ) -> Result<(T, Queued), E> {
        let mut recording = Recording::default();
        let container = exec.container.live().record.name.to_string();
        let changed = {
            let mut record = exec.record();
            let value = change(&mut record, &mut recording)?;
            let about = |kind, data| exec_event(exec, &container, kind, data);
            let queued = self.queue(exec_row(exec.id, &record), recording, about);
            if lifecycle::exec::is_over(record.state) {
                exec.ended.send_replace(true);
            }
            (value, queued)
        };
        exec.container.notify();
        Ok(changed)
    }

    fn queue(
        &self,
        row: Write,
        recording: Recording,
        event: impl Fn(&'static str, Value) -> NewEvent,
    ) -> Queued {
        let events = recording.events.into_iter();
        let events = events.map(|(kind, data)| Write::Event(event(kind, data)));
        let writes = std::iter::once(row).chain(recording.writes).chain(events);
        self.store.submit(writes.collect(), recording.durable)
    }
}

fn container_row(record: &Record, recording: &mut Recording) -> Write {
    Write::Container {
        id: record.id,
        name: record.name.to_string(),
        state: record.state.name(),
        config: recording.config.take(),
        // A record is made of strings and numbers: serialising it cannot fail.
        detail: serde_json::to_string(record).unwrap_or_default(),
        launched: recording.launched.take(),
        generation: record.generation,
    }
}

fn exec_row(id: ExecId, record: &ExecRecord) -> Write {
    Write::Exec {
        id,
        container: record.container,
        state: lifecycle::exec::name(record.state),
        detail: serde_json::to_string(record).unwrap_or_default(),
    }
}

/// An event about a container.
pub(super) fn event(record: &Record, kind: &'static str, data: Value) -> NewEvent {
    NewEvent {
        kind,
        subject: record.id.to_string(),
        container: Some(record.id),
        name: Some(record.name.to_string()),
        data,
    }
}

fn exec_event(exec: &ExecHandle, container: &str, kind: &'static str, data: Value) -> NewEvent {
    NewEvent {
        kind,
        subject: exec.id.to_string(),
        container: Some(exec.container.id),
        name: Some(container.to_owned()),
        data,
    }
}
