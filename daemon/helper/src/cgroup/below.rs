//! A cgroup below a container's, for processes that are to end together.

use std::fs;
use std::io::{self, ErrorKind};

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;

use super::file::write_file;
use super::{Cgroup, CgroupDir};
use crate::fault::{Fault, OrFault};

/// How often the processes that are left are listed again: while they are moved, they fork.
const ROUNDS: usize = 3;

impl Cgroup {
    /// Makes a cgroup below this one, in the hierarchy that freezes and kills. It has no limits of
    /// its own, and no controller is switched on for it, so that this one may go on to have
    /// processes (cgroups(7), "no internal processes").
    ///
    /// # Errors
    /// There is no such hierarchy, or the kernel refuses (`cgroup.max.descendants`).
    pub fn make_below(&self, name: &str) -> Result<Cgroup, Fault> {
        let why = "the container has no control group to kill them by";
        let above = self.freezer().ok_or_else(|| Fault::refused(why))?;
        if !above.hierarchy.is_unified() && above.hierarchy.has("cpuset") {
            return Err(Fault::refused(
                "a new control group of the freezer would have no CPUs",
            ));
        }
        let mut dir = CgroupDir {
            hierarchy: above.hierarchy.clone(),
            path: above.path.join(name),
            fd: None,
            is_new: true,
        };
        mkdir(&dir.path, Mode::from_raw_mode(0o755)).fault_at("mkdir", dir.path.display())?;
        let opened = dir.open();
        let below = Cgroup {
            path: self.path.join(name),
            dirs: vec![dir],
        };
        match opened {
            Ok(()) => Ok(below),
            Err(fault) => {
                // The first error is the one to tell.
                let _ = below.remove_now();
                Err(fault)
            }
        }
    }

    /// Moves the processes that are left in it into the cgroup above, and removes it. `false`: some
    /// are still in it, or dying.
    ///
    /// # Errors
    /// One cannot be moved.
    pub fn dissolve(&self) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            if self.remove_now()? {
                return Ok(true);
            }
            for dir in &self.dirs {
                move_up(dir)?;
            }
        }
        self.remove_now()
    }

    /// Removes it if nothing is in it any more.
    ///
    /// # Errors
    /// Not that something is in it.
    pub fn remove_now(&self) -> io::Result<bool> {
        let mut gone = true;
        for dir in &self.dirs {
            match fs::remove_dir(&dir.path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::ResourceBusy => gone = false,
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}

fn move_up(dir: &CgroupDir) -> io::Result<()> {
    let Some(above) = dir.path.parent() else {
        return Ok(());
    };
    let target = above.join("cgroup.procs");
    let procs = fs::read_to_string(dir.path.join("cgroup.procs"))?;
    for pid in procs.lines() {
        match write_file(&target, pid) {
            // It has ended.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
