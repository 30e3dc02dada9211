//! Room on the disk that is kept for removals: whoever wants to make room on a full disk must be able
//! to, and a removal is a row before it is anything else.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Enough for the log of some dozens of removals.
const SIZE: u32 = 1 << 20;

/// A file whose blocks can be given up.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    restoring: AtomicBool,
}

impl Reserve {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            restoring: AtomicBool::new(false),
        }
    }

    /// Whether the room is there.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.blocks() * 512 >= u64::from(SIZE))
    }

    /// Takes the room, when there is some.
    ///
    /// # Errors
    /// None of it is taken then.
    pub fn take(&self) -> io::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        allocate(&self.path).inspect_err(|_| {
            let _ = fs::remove_file(&self.path);
        })
    }

    /// Gives the room up. `false`: there was none.
    pub fn give_up(&self) -> bool {
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%error, path = %self.path.display(), "cannot give up the room");
                }
                false
            }
        }
    }

    /// `true` for the one caller that is to take it back.
    pub fn begin_restoring(&self) -> bool {
        !self.is_there() && !self.restoring.swap(true, Ordering::Relaxed)
    }

    pub fn end_restoring(&self) {
        self.restoring.store(false, Ordering::Relaxed);
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.create(true).write(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, u64::from(SIZE)) {
        // Not every file system can (fallocate(2)).
        Err(Errno::OPNOTSUPP) => {
            let zeros = [0; 1 << 16];
            let times = usize::try_from(SIZE).unwrap_or(0) / zeros.len();
            (0..times).try_for_each(|_| file.write_all(&zeros))?;
            file.sync_all()
        }
        other => Ok(other?),
    }
}
