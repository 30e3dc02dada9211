//! What is done to all processes of a cgroup: freeze, signal, and the end of it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::file::write_file;
use super::{Cgroup, CgroupDir, Hierarchy, Layout};
use crate::sys;
use littlebox_protocol::bounds;

/// After which time killed processes that are still there are looked at: somebody may have frozen
/// them.
const SUSPICION: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Freezes or thaws, and waits until it is so, for a bounded time.
    ///
    /// # Errors
    /// As [`Cgroup::freeze_step`]; `TimedOut` when processes did not stop. Then they go on.
    pub fn set_frozen(&self, frozen: bool, patience: Duration) -> io::Result<()> {
        let done = wait_until(Instant::now() + patience, |_| self.freeze_step(frozen));
        if frozen && done.is_err() {
            self.take_freeze_back();
        }
        done
    }

    /// Requests a freeze or a thaw and returns whether it has taken effect, without waiting. To be
    /// called until it has: on v1 the kernel gives up when a process forks during a freeze. A caller
    /// that stops before then undoes the freeze by [`Cgroup::take_freeze_back`].
    ///
    /// # Errors
    /// `Unsupported` where the host has no freezer, `ResourceBusy` when the processes cannot go on
    /// because a cgroup above is frozen.
    pub fn freeze_step(&self, frozen: bool) -> io::Result<bool> {
        let dir = self.freezer().ok_or(ErrorKind::Unsupported)?;
        write_state(dir, frozen)?;
        if !frozen && is_frozen_above(dir)? {
            let why = "a control group above the container's is frozen";
            return Err(io::Error::new(ErrorKind::ResourceBusy, why));
        }
        Ok(is_frozen(dir)? == frozen)
    }

    /// What is half frozen would freeze some time later, when nobody expects it any more.
    pub fn take_freeze_back(&self) {
        // The error that brought us here is the one to tell.
        let _ = self.thaw();
    }

    /// Lets the processes go on, without waiting until they do.
    ///
    /// # Errors
    /// The file cannot be written. Without a freezer or a cgroup there is nothing to do.
    pub fn thaw(&self) -> io::Result<()> {
        match self.freezer().map(|dir| write_state(dir, false)) {
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether it is frozen, by whomever.
    pub fn is_frozen(&self) -> io::Result<bool> {
        self.freezer().map_or(Ok(false), is_frozen)
    }

    /// Whether a process could not begin in it: it is frozen, or a cgroup above it, in any hierarchy.
    pub(super) fn is_frozen_anywhere(&self) -> io::Result<bool> {
        let freezes = |dir: &&CgroupDir| dir.hierarchy.is_unified() || dir.hierarchy.has("freezer");
        let mut dirs = self.dirs.iter().filter(freezes);
        dirs.try_fold(false, |frozen, dir| Ok(frozen || is_frozen(dir)?))
    }

    /// Sends a signal to every process in it and below. They are frozen meanwhile, so that no
    /// PID can be given to another process between reading it and using it.
    pub fn signal_all(&self, signal: i32) -> io::Result<()> {
        let thaw = self.freezer().is_some() && !self.is_frozen()?;
        if thaw {
            self.set_frozen(true, bounds::FREEZE_ON_THE_SPOT)?;
        }
        let sent = self.signal_each(signal);
        if thaw {
            self.thaw()?;
        }
        sent.map(drop)
    }

    /// Removes the directories and everything below them, with bounded retries while the processes,
    /// all of which were killed, leave; those that somebody has frozen are let out to die. What is
    /// already gone is no error.
    pub fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + bounds::REMOVE;
        match self.remove_until(Instant::now() + SUSPICION) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            other => return other,
        }
        let let_out = self.leave_foreign_freezers(None);
        let removed = self.remove_until(until);
        let_out.and(removed)
    }

    /// As [`Cgroup::remove`], of the directories that were made for it, in which nothing was put yet.
    pub(super) fn remove_new(mut self) -> io::Result<()> {
        self.dirs.retain(|dir| dir.is_new);
        self.remove_until(Instant::now() + bounds::REMOVE)
    }

    fn remove_until(&self, until: Instant) -> io::Result<()> {
        let mut result = Ok(());
        for dir in &self.dirs {
            // One that stays does not keep the others.
            result = result.and(wait_until(until, |_| remove_tree(&dir.path, until)));
        }
        result
    }

    /// Takes the processes in it and `first` out of frozen v1 freezers that are not this cgroup's:
    /// somebody else may have put them there, and there a killed process does not end. The others in
    /// such a freezer stay as they are.
    ///
    /// # Errors
    /// One cannot be moved.
    pub fn leave_foreign_freezers(&self, first: Option<u32>) -> io::Result<()> {
        let layout = Layout::detect();
        let Some(freezer) = layout.all().find(|h| !h.is_unified() && h.has("freezer")) else {
            return Ok(());
        };
        let root = freezer.mount().join("cgroup.procs");
        for pid in self.processes()?.into_iter().chain(first) {
            match is_in_frozen(pid, freezer) {
                Ok(false) => continue,
                Ok(true) => {}
                // It has ended, maybe between opening and reading (proc(5)).
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => continue,
                Err(error) => return Err(error),
            }
            match write_file(&root, &pid.to_string()) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The PIDs of every process in it and below, in ascending order.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.any() {
            for_each_process(&dir.path, &mut |pid| {
                pids.push(pid);
                Ok(())
            })?;
        }
        pids.sort_unstable();
        Ok(pids)
    }

    pub(super) fn any(&self) -> Option<&CgroupDir> {
        self.freezer().or(self.dirs.first())
    }

    /// Sends a signal to each process that is listed, and returns how many are.
    pub(super) fn signal_each(&self, signal: i32) -> io::Result<usize> {
        let Some(dir) = self.any() else { return Ok(0) };
        let (mut listed, mut result) = (0, Ok(()));
        for_each_process(&dir.path, &mut |pid| {
            listed += 1;
            match sys::kill(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                // The others still get it.
                Err(errno) => result = Err(errno.into()),
            }
            Ok(())
        })?;
        result.map(|()| listed)
    }
}

/// Every process in a cgroup and below, as it is now.
pub(super) fn for_each_process(
    path: &Path,
    work: &mut dyn FnMut(u32) -> io::Result<()>,
) -> io::Result<()> {
    for_each_directory(path, &mut |dir| {
        let procs = match fs::read_to_string(dir.join("cgroup.procs")) {
            // One below, which the container has removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && dir != path => return Ok(()),
            // A threaded one: its processes are listed in the one above (cgroups(7)).
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => return Ok(()),
            procs => procs?,
        };
        let mut pids = procs.lines().filter_map(|line| line.parse().ok());
        pids.try_for_each(&mut *work)
    })
}

fn freezer_file(dir: &CgroupDir) -> &'static str {
    if dir.hierarchy.is_unified() {
        "cgroup.freeze"
    } else {
        "freezer.state"
    }
}

fn write_state(dir: &CgroupDir, frozen: bool) -> io::Result<()> {
    let value = match (dir.hierarchy.is_unified(), frozen) {
        (true, true) => "1",
        (true, false) => "0",
        (false, true) => "FROZEN",
        (false, false) => "THAWED",
    };
    Ok(write_file(&dir.path.join(freezer_file(dir)), value)?)
}

/// Whether one of the cgroups above is frozen, and this one with it.
fn is_frozen_above(dir: &CgroupDir) -> io::Result<bool> {
    if !dir.hierarchy.is_unified() {
        let above = fs::read_to_string(dir.path.join("freezer.parent_freezing"))?;
        return Ok(above.trim() == "1");
    }
    let mount = dir.hierarchy.mount();
    let above = dir.path.ancestors().skip(1);
    // The root cannot be frozen.
    let above = above.take_while(|path| path.starts_with(mount) && *path != mount);
    Ok(above
        .map(|path| fs::read_to_string(path.join("cgroup.freeze")))
        .any(|state| state.is_ok_and(|state| state.trim() == "1")))
}

fn is_frozen(dir: &CgroupDir) -> io::Result<bool> {
    if dir.hierarchy.is_unified() {
        let events = fs::read_to_string(dir.path.join("cgroup.events"))?;
        return Ok(events.lines().any(|line| line == "frozen 1"));
    }
    Ok(fs::read_to_string(dir.path.join("freezer.state"))?.trim() == "FROZEN")
}

/// Whether a process is in a frozen cgroup of the v1 freezer.
fn is_in_frozen(pid: u32, freezer: &Hierarchy) -> io::Result<bool> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = table.lines().find_map(|line| {
        // hierarchy:controllers:path (cgroups(7)).
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_freezer = controllers.split(',').any(|name| name == "freezer");
        is_freezer.then_some(path)
    });
    let Some(path) = path.filter(|path| *path != "/") else {
        return Ok(false);
    };
    let state = super::directories::of(freezer, Path::new(path)).join("freezer.state");
    Ok(fs::read_to_string(state)?.trim() != "THAWED")
}

/// Children first. `false`: something is still in it, or the time is up: a container may have made many.
fn remove_tree(path: &Path, until: Instant) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        // Dead processes that have not left yet, or directories that the container made.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
        Err(error) => return Err(error),
    }
    for child in children(path)? {
        if Instant::now() > until {
            break;
        }
        remove_tree(&child, until)?;
    }
    Ok(false)
}

fn for_each_directory(
    path: &Path,
    work: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    work(path)?;
    children(path)?
        .iter()
        .try_for_each(|child| for_each_directory(child, work))
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Asks until it is so, at growing intervals, and is told how long the last pause was.
pub(super) fn wait_until(
    until: Instant,
    mut done: impl FnMut(Duration) -> io::Result<bool>,
) -> io::Result<()> {
    let mut pause = Duration::ZERO;
    while !done(pause)? {
        if Instant::now() > until {
            return Err(ErrorKind::TimedOut.into());
        }
        pause = (pause * 2).clamp(Duration::from_micros(100), Duration::from_millis(20));
        std::thread::sleep(pause);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use littlebox_protocol::CgroupPlan;

    /// A cgroup of v2, of a kernel without `cgroup.kill`, that never says that it is frozen.
    pub(crate) fn unwilling(mount: &Path) -> Cgroup {
        let path = mount.join("container");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), "").unwrap();
        fs::write(path.join("cgroup.freeze"), "0").unwrap();
        fs::write(path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let line = format!("31 23 0:28 / {} rw - cgroup2 cgroup2 rw", mount.display());
        let hierarchy = Layout::parse(&line).unified().unwrap().clone();
        Cgroup {
            path: "/container".into(),
            dirs: vec![CgroupDir {
                hierarchy,
                path,
                fd: None,
                is_new: true,
            }],
        }
    }

    #[test]
    fn a_removal_ends_in_time_however_many_cgroups_the_container_has_made() {
        let plan = CgroupPlan {
            path: Some(format!("/littlebox-unit-{}", std::process::id()).into()),
            ..CgroupPlan::default()
        };
        let cgroup = Cgroup::create(&plan, &mut Vec::new()).unwrap();
        let dir = cgroup.dirs[0].path.clone();
        for n in 0..50 {
            fs::create_dir(dir.join(n.to_string())).unwrap();
        }
        let error = cgroup.remove_until(Instant::now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(children(&dir).unwrap().len() > 40, "the walk went on");
        cgroup.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_freeze_that_fails_is_taken_back() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = unwilling(mount.path());
        let patience = Duration::from_millis(50);
        let error = cgroup.set_frozen(true, patience).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let state = fs::read_to_string(mount.path().join("container/cgroup.freeze"));
        assert_eq!(state.unwrap(), "0");
    }
}
