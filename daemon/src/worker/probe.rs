//! Asking a file system whether it answers.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, OFlags, StatxFlags, statx};

use super::protocol::Probe;

/// The most bytes that are read of a file.
const CONTENT: u64 = 4 * 1024 * 1024;
/// The most entries that are looked at below a directory, and how deep.
const ENTRIES: usize = 16 * 1024;
const DEPTH: usize = 16;

/// Does with a path what the daemon will do with it. What it finds does not matter, only that it
/// comes back.
pub(super) fn look(probe: &Probe) {
    match probe {
        Probe::Path(path) => status(path),
        Probe::Content(path) => {
            status(path);
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            let file = File::options().read(true).custom_flags(flags).open(path);
            let is_file = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file());
            if let Ok(file) = file
                && is_file(&file)
            {
                let _read = file.take(CONTENT).read_to_end(&mut Vec::new());
            }
        }
        Probe::Tree(path) => {
            status(path);
            tree(path, DEPTH, &mut 0);
        }
    }
}

/// Asks the file system itself, whatever the kernel remembers of it (`AT_STATX_FORCE_SYNC`, statx(2)).
fn status(path: &Path) {
    let asked = AtFlags::STATX_FORCE_SYNC;
    let found = statx(CWD, path, asked, StatxFlags::BASIC_STATS);
    let is_directory = |mode: u16| FileType::from_raw_mode(mode.into()) == FileType::Directory;
    if found.is_ok_and(|status| is_directory(status.stx_mode)) {
        let _first = std::fs::read_dir(path).map(|mut entries| entries.next());
    }
}

fn tree(path: &Path, depth: usize, seen: &mut usize) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        *seen += 1;
        if *seen > ENTRIES {
            return;
        }
        let is_directory = entry.metadata().is_ok_and(|meta| meta.is_dir());
        if is_directory && depth > 0 {
            tree(&entry.path(), depth - 1, seen);
        }
    }
}
