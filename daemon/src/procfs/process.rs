//! Reading one process, or finding them all.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::parse::{ProcessStat, parse_stat};

/// The most bytes read of any file in `/proc` (a mount table may be long).
const LIMIT: u64 = 16 * 1024 * 1024;

/// A process, also when its PID has become another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its PID.
    pub pid: u32,
    /// When it was started, clock ticks since boot (`/proc/PID/stat` field 22, proc(5)).
    pub start_time: u64,
}

/// `/proc/PID` held open: everything read through it is of the same process, and `ESRCH` once
/// that is gone, whoever has its PID by then.
#[derive(Debug)]
pub(crate) struct ProcDir {
    fd: OwnedFd,
}

impl ProcDir {
    /// Opens `/proc/PID`.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Self::open_path(&format!("/proc/{pid}"))
    }

    /// Opens the daemon's own.
    pub(crate) fn own() -> io::Result<Self> {
        Self::open_path("/proc/self")
    }

    fn open_path(path: &str) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// A whole file below it; bytes outside UTF-8 become U+FFFD.
    pub(crate) fn read(&self, name: &str) -> io::Result<String> {
        self.read_at_most(name, LIMIT)
    }

    /// The first `limit` bytes of a file below it.
    pub(crate) fn read_at_most(&self, name: &str, limit: u64) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        read_open(
            rustix::fs::openat(&self.fd, name, flags, Mode::empty())?,
            limit,
        )
    }

    /// `stat`, parsed.
    pub(crate) fn stat(&self) -> io::Result<ProcessStat> {
        parse_stat(&self.read("stat")?).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The inode of one of its namespaces, by its name in `ns`; `None` when the kernel has none.
    pub(crate) fn namespace(&self, name: &str) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.fd, format!("ns/{name}"), AtFlags::empty()) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// argv joined by spaces, at most 4 KiB of it; empty for kernel threads and zombies. Blocks
    /// while the process' memory map is locked, which the process can prolong.
    pub(crate) fn command_line(&self) -> io::Result<String> {
        const SHOWN: u64 = 4096;
        let text = self.read_at_most("cmdline", SHOWN)?;
        Ok(text.trim_end_matches('\0').replace('\0', " "))
    }
}

/// A whole file, bounded; bytes outside UTF-8 become U+FFFD.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    read_open(File::open(path)?, LIMIT)
}

fn read_open(file: impl Into<File>, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(2048);
    file.into().take(limit).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// All processes that `/proc` shows.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(pids)
}

/// Start time of a process in clock ticks since boot (`/proc/PID/stat` field 22, proc(5)).
///
/// # Errors
/// `ENOENT`/`ESRCH` when there is no such process.
pub fn start_time(pid: u32) -> io::Result<u64> {
    Ok(ProcDir::open(pid)?.stat()?.start_time)
}

/// The id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(read_text("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}
