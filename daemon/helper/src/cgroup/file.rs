//! One file of a cgroup.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// Writes a value in one write(2), as cgroup files want it.
pub(super) fn write_file(file: &Path, value: &str) -> rustix::io::Result<()> {
    let fd = open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(fd)
        .write_all(value.as_bytes())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
