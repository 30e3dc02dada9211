//! What the tests of the supervising half share.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(missing_docs, reason = "tests")]

pub mod bed;
pub mod hierarchies;
pub mod log;
pub mod process;
pub mod signals;

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// A tmpfs of a few pages, unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path) -> Self {
        rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=64k")
            .expect("this test mounts a tmpfs and must run as root");
        Self(at.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes room.
    pub fn grow(&self) {
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), c"size=1m").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A container that sleeps, and its helper.
pub fn sleeper() -> (bed::Bed, process::Zygote, process::Helper) {
    let (bed, zygote) = (bed::Bed::new(), process::Zygote::start());
    let (helper, _) = zygote.launch(&bed.plan("sleep 1000"));
    (bed, zygote, helper)
}
