//! Paths inside a container's root.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::faults::Defence;

/// The most symbolic-link races that one resolution bears.
const ATTEMPTS: u32 = 256;

/// Opens a path as a process would whose root is `root`: absolute links and `..` stay inside.
///
/// The kernel answers `EAGAIN` when something is renamed during the walk and it cannot be sure
/// (openat2(2)); that is tried again a bounded number of times.
pub(super) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // As a relative path it begins at `root`, whatever the flags are.
    let start = path.iter().take_while(|byte| **byte == b'/').count();
    let path = match &path[start..] {
        b"" => b".",
        relative => relative,
    };
    let resolve = match Defence::FilesInRoot.stands() {
        true => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        false => ResolveFlags::empty(),
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if attempt < ATTEMPTS => {}
            result => return result,
        }
    }
}
