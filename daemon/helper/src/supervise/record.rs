//! Exit records on disk, written before anybody is told.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use littlebox_protocol::ExitRecord;

/// Writes a record under an absolute path: temporary file, fsync, rename.
///
/// # Errors
/// The step that failed; a record that was there before is then untouched.
pub fn write_at(path: &Path, record: &ExitRecord) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty())?;
    write_in(dir.as_fd(), Path::new(name), record)
}

/// Writes a record into a directory.
///
/// # Errors
/// As [`write_at`].
pub fn write_in(dir: BorrowedFd<'_>, name: &Path, record: &ExitRecord) -> io::Result<()> {
    let mut temporary = name.as_os_str().to_owned();
    temporary.push(".tmp");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(file);
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    rustix::fs::renameat(dir, &temporary, dir, name)?;
    Ok(())
}
