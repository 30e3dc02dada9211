//! What the helper of a run tells, as changes of its container.

use std::sync::Arc;

use littlebox_protocol::Event;
use littlebox_types::ContainerState;

use crate::engine::{Engine, Handle};
use crate::supervisor::{Incoming, Listener};

impl Engine {
    /// Drives a helper's connection. Not tracked: it ends with the helper, not with the daemon.
    pub(super) fn listen(self: &Arc<Self>, handle: &Arc<Handle>, incoming: Incoming) {
        let run = handle.live().run;
        tokio::spawn(incoming.run(self.listener(handle, run)));
    }

    /// Turns what the helper of a run tells into changes of its container.
    pub(in crate::engine) fn listener(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        run: u64,
    ) -> impl Listener + use<> {
        ContainerListener {
            engine: self.clone(),
            handle: handle.clone(),
            run,
        }
    }
}

/// Turns a helper's word into changes of its container.
struct ContainerListener {
    engine: Arc<Engine>,
    handle: Arc<Handle>,
    run: u64,
}

impl Listener for ContainerListener {
    fn event(&self, event: Event) {
        match event {
            Event::OomKilled { kills } => self.engine.oom_killed(&self.handle, self.run, kills),
            Event::Exited(record) => self.engine.exited(&self.handle, self.run, &record),
            Event::ExecExited { id, record } => {
                self.engine.exec_exited(&self.handle, &id, &record);
            }
        }
    }

    fn lost(&self) {
        let state = {
            let live = self.handle.live();
            if live.run != self.run {
                return;
            }
            live.record.state
        };
        match state {
            ContainerState::Running | ContainerState::Paused | ContainerState::Stopping => {
                let engine = self.engine.clone();
                let handle = self.handle.clone();
                let run = self.run;
                tokio::spawn(async move { engine.helper_lost(&handle, run).await });
            }
            ContainerState::Created
            | ContainerState::Starting
            | ContainerState::Exited
            | ContainerState::Failed
            | ContainerState::Removing => {}
        }
    }
}
