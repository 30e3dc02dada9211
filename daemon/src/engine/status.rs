//! How the engine itself is: its health, and the numbers that it is watched by.

use std::collections::BTreeMap;

use littlebox_types::ContainerState;

use super::{Engine, Handle};

/// The engine's numbers at one moment.
#[derive(Debug)]
pub struct Status {
    /// The zygote's PID, also when it has just ended.
    pub zygote_pid: u32,
    /// Whether the zygote lives.
    pub zygote_up: bool,
    /// Containers by state.
    pub containers: BTreeMap<ContainerState, u64>,
    /// Containers whose helper cannot be asked.
    pub unreachable_helpers: usize,
    /// Containers that are gone or have exited and have left what cannot be removed yet.
    pub leftovers: usize,
    /// Number of the newest event.
    pub newest_event: u64,
}

impl Engine {
    /// The numbers now.
    pub async fn status(&self) -> Status {
        let mut containers = BTreeMap::new();
        for handle in self.all() {
            *containers.entry(handle.state()).or_insert(0) += 1;
        }
        Status {
            zygote_pid: self.supervisor.zygote_pid().await,
            zygote_up: self.supervisor.healthy().await,
            containers,
            unreachable_helpers: self.unreachable_helpers(),
            leftovers: self.leftovers(),
            newest_event: *self.newest_event().borrow(),
        }
    }

    /// What each part says of itself: `ok`, or what is wrong. Replaces a zygote that has ended.
    pub async fn health(&self) -> BTreeMap<String, String> {
        let database = match self.store.ping().await {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        let zygote = match self.supervisor.ensure_zygote().await {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("cannot be started: {error}"),
        };
        let helpers = match self.unreachable_helpers() {
            0 => "ok".to_owned(),
            n => format!("{n} do not answer; their containers keep running"),
        };
        BTreeMap::from([
            ("database".to_owned(), database),
            ("zygote".to_owned(), zygote),
            ("state_dir".to_owned(), self.state_dir_health()),
            ("helpers".to_owned(), helpers),
        ])
    }

    /// Whether containers can write and be removed.
    fn state_dir_health(&self) -> String {
        let space = match rustix::fs::statvfs(&self.paths.state) {
            Ok(space) => space,
            Err(errno) => return errno.to_string(),
        };
        // Some file systems make inodes as they need them, and count none.
        let no_inodes = space.f_files > 0 && space.f_ffree == 0;
        if space.f_bfree == 0 || no_inodes {
            return "the disk is full".to_owned();
        }
        if !self.store.has_reserve() {
            return "the space reserved for removals is used up: free space on the disk".to_owned();
        }
        "ok".to_owned()
    }

    fn unreachable_helpers(&self) -> usize {
        let unreachable = |h: &Handle| h.live().record.helper_condition.is_some();
        self.all().iter().filter(|h| unreachable(h)).count()
    }
}
