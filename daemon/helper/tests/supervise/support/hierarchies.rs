//! The cgroup hierarchies that a test needs, on whatever host it runs.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use littlebox_protocol::cgroup::Layout;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tempfile::TempDir;

use super::process::{PATIENCE, eventually};

/// A v2 tree and a v1 freezer, as the zygotes see them that this thread starts from now on.
pub struct Hierarchies {
    unified: PathBuf,
    freezer: PathBuf,
    /// What the host has not mounted is mounted here, in a mount namespace of this thread's own.
    mounted: Vec<TempDir>,
}

impl Hierarchies {
    pub fn ensure() -> Self {
        let layout = layout();
        let mut mounted = Vec::new();
        if layout.unified().is_none() || freezer_of(&layout).is_none() {
            littlebox_helper::sys::unshare(libc::CLONE_NEWNS.unsigned_abs().into()).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
        }
        if layout.unified().is_none() {
            mounted.push(mount(c"cgroup2", c""));
        }
        if freezer_of(&layout).is_none() {
            mounted.push(mount(c"cgroup", c"freezer"));
        }
        let layout = self::layout();
        Self {
            unified: layout.unified().unwrap().mount().to_owned(),
            freezer: freezer_of(&layout).unwrap(),
            mounted,
        }
    }

    /// The v2 directory of a path of a plan.
    pub fn unified(&self, path: &Path) -> PathBuf {
        self.unified.join(path.strip_prefix("/").unwrap())
    }

    /// The v1 freezer's.
    pub fn freezer(&self, path: &Path) -> PathBuf {
        self.freezer.join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Hierarchies {
    fn drop(&mut self) {
        for dir in &self.mounted {
            let _ = rustix::mount::unmount(dir.path(), UnmountFlags::DETACH);
        }
    }
}

/// Of this thread's mount namespace.
fn layout() -> Layout {
    Layout::parse(&std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap())
}

fn freezer_of(layout: &Layout) -> Option<PathBuf> {
    let mut all = layout.all();
    let freezer = all.find(|h| !h.is_unified() && h.has("freezer"))?;
    Some(freezer.mount().to_owned())
}

fn mount(fstype: &CStr, options: &CStr) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let flags = MountFlags::empty();
    rustix::mount::mount(c"none", dir.path(), fstype, flags, options).unwrap_or_else(|errno| {
        panic!("this kernel has no {fstype:?} with {options:?}, which the test needs: {errno}")
    });
    dir
}

/// A cgroup of the v1 freezer that is not littlebox's.
pub struct ForeignFreezer(PathBuf);

impl ForeignFreezer {
    pub fn make(hierarchies: &Hierarchies, name: &str) -> Self {
        let dir = hierarchies.freezer.join(format!("littlebox-test-{name}"));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// Takes a process in and freezes it.
    pub fn freeze(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        freeze_v1(&self.0);
    }

    pub fn thaw(&self) {
        thaw_v1(&self.0);
    }
}

impl Drop for ForeignFreezer {
    fn drop(&mut self) {
        self.thaw();
        // A test that failed leaves its container to be ended after this.
        let procs = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = std::fs::write(self.0.join("../cgroup.procs"), pid);
        }
        let until = Instant::now() + PATIENCE;
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Freezes a cgroup of the v1 freezer.
pub fn freeze_v1(dir: &Path) {
    let state = dir.join("freezer.state");
    std::fs::write(&state, "FROZEN").unwrap();
    eventually("it is frozen", || {
        std::fs::read_to_string(&state).unwrap() == "FROZEN\n"
    });
}

/// Thaws it.
pub fn thaw_v1(dir: &Path) {
    std::fs::write(dir.join("freezer.state"), "THAWED").unwrap();
}
