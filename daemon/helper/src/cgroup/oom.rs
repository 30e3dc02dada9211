//! What the OOM killer does in a cgroup: how often, and a descriptor that tells when.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::file::write_file;
use super::{Cgroup, CgroupDir};

impl Cgroup {
    /// How many processes the OOM killer has ended in it so far; 0 without a memory controller.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.memory_dir() else {
            return 0;
        };
        let text = fs::read_to_string(dir.path.join(file_name(dir))).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        value.unwrap_or(0)
    }

    /// Watches for the OOM killer; `None` without a memory controller.
    ///
    /// # Errors
    /// No descriptor left, or a kernel without the notification.
    pub fn watch_oom(&self) -> io::Result<Option<OomWatch>> {
        let Some(dir) = self.memory_dir() else {
            return Ok(None);
        };
        let file = File::open(dir.path.join(file_name(dir)))?;
        if dir.hierarchy.is_unified() {
            let watch = OomWatch::Events(file);
            watch.rearm();
            return Ok(Some(watch));
        }
        let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let line = format!("{} {}", told.as_raw_fd(), file.as_raw_fd());
        write_file(&dir.path.join("cgroup.event_control"), &line)?;
        Ok(Some(OomWatch::Eventfd(told)))
    }

    fn memory_dir(&self) -> Option<&CgroupDir> {
        // A v2 root may offer the controller without it being on here.
        self.dirs
            .iter()
            .find(|dir| dir.hierarchy.has("memory") && dir.path.join(file_name(dir)).exists())
    }
}

fn file_name(dir: &CgroupDir) -> &'static str {
    if dir.hierarchy.is_unified() {
        "memory.events"
    } else {
        "memory.oom_control"
    }
}

/// A descriptor that is ready when there may be something new in [`Cgroup::oom_kills`].
#[derive(Debug)]
pub enum OomWatch {
    /// v1: an eventfd, written when a cgroup runs out of memory, shortly *before* the killer counts
    /// its victim.
    Eventfd(OwnedFd),
    /// v2: `memory.events`, whose changes poll(2) tells as an exceptional condition.
    Events(File),
}

impl OomWatch {
    /// What to wait for on it.
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            OomWatch::Eventfd(fd) => (fd.as_fd(), PollFlags::IN),
            OomWatch::Events(file) => (file.as_fd(), PollFlags::PRI),
        }
    }

    /// Takes note of what it has told, so that it tells the next.
    pub fn rearm(&self) {
        let mut scratch = [0u8; 512];
        // Nothing to learn from a failure: at worst it is ready again at once.
        let _ = match self {
            OomWatch::Eventfd(fd) => rustix::io::read(fd, &mut scratch[..8]).map_err(Into::into),
            OomWatch::Events(file) => file.read_at(&mut scratch, 0),
        };
    }
}
