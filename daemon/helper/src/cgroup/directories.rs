//! Making the container's directories, and those above them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod, mkdir, rmdir};
use rustix::io::Errno;

use super::file::write_file;
use super::{Cgroup, CgroupDir, DEFAULT_V2, Hierarchy};
use crate::fault::{Fault, OrFault};
use littlebox_protocol::ExistingCgroup;

impl Cgroup {
    /// Makes the directory in one hierarchy.
    pub(super) fn add_hierarchy(
        &mut self,
        hierarchy: &Hierarchy,
        existing: ExistingCgroup,
    ) -> Result<(), Fault> {
        let path = self.path.clone();
        let dir = of(hierarchy, &path);
        let is_new = make_directory(hierarchy, &path, &dir, existing)?;
        // Known from now on, so that a failure below removes it.
        self.dirs.push(CgroupDir {
            hierarchy: hierarchy.clone(),
            path: dir,
            fd: None,
            is_new,
        });
        if !hierarchy.is_unified() && hierarchy.has("cpuset") {
            inherit_cpuset(hierarchy, &path)?;
        }
        Ok(())
    }
}

/// The directory of a cgroup in a hierarchy.
pub(super) fn of(hierarchy: &Hierarchy, path: &Path) -> PathBuf {
    hierarchy
        .mount()
        .join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether the cgroup tree as a whole cannot be used: not mounted, read-only, somebody else's.
pub(super) fn is_out_of_reach(fault: &Fault) -> bool {
    let reasons = [Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::NOENT];
    reasons.into_iter().any(|errno| fault.is(errno))
}

/// Makes one directory that everybody may walk through, whatever our umask is (0077 in the service):
/// a container in a user namespace has to get at its own cgroup (cgroup_namespaces(7)).
fn make(dir: &Path) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    mkdir(dir, mode)?;
    chmod(dir, mode).inspect_err(|_| {
        // Nobody else knows of it yet.
        let _ = rmdir(dir);
    })
}

/// How often a directory above is made again that somebody removed because it was empty.
const TRIES: usize = 16;

/// Makes a directory and those above it that are missing. An empty one above can go at any moment
/// (systemd tidies slices, another engine its parent) until the next level is in it.
fn make_all(hierarchy: &Hierarchy, path: &Path) -> rustix::io::Result<()> {
    let mut levels: Vec<&Path> = path.ancestors().collect();
    levels.reverse();
    let make_each = || {
        levels
            .iter()
            .try_for_each(|level| match make(&of(hierarchy, level)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            })
    };
    let mut made = make_each();
    for _ in 1..TRIES {
        if made != Err(Errno::NOENT) {
            break;
        }
        made = make_each();
    }
    made
}

/// Makes the container's directory, and those above it when they are missing. `false`: it was there.
fn make_directory(
    hierarchy: &Hierarchy,
    path: &Path,
    dir: &Path,
    existing: ExistingCgroup,
) -> Result<bool, Fault> {
    match make(dir) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => {}
        Err(Errno::EXIST) if existing == ExistingCgroup::Use => return Ok(false),
        Err(Errno::EXIST) if existing == ExistingCgroup::UseEmpty => {
            return check_empty(dir).map(|()| false);
        }
        Err(Errno::EXIST) => {
            // Left by a helper that died: whatever still runs in it is nobody's.
            let left = CgroupDir {
                hierarchy: hierarchy.clone(),
                path: dir.to_owned(),
                fd: None,
                is_new: false,
            };
            let left = Cgroup {
                path: path.to_owned(),
                dirs: vec![left],
            };
            left.kill_all()
                .and_then(|()| left.remove())
                .fault_at("rmdir", dir.display())?;
            return make(dir)
                .map(|()| true)
                .map_err(|errno| unmade(errno, hierarchy, dir));
        }
        Err(errno) => return Err(unmade(errno, hierarchy, dir)),
    }
    make_all(hierarchy, path).map_err(|errno| unmade(errno, hierarchy, dir))?;
    if hierarchy.is_unified() {
        let on = DEFAULT_V2
            .into_iter()
            .filter(|c| hierarchy.has(c))
            .collect::<Vec<_>>();
        // Without a limit, a controller that cannot be had (a process in a directory above) only
        // means less to count; a limit that needs it tries again and says so.
        for controller in on {
            let _ = enable_above(hierarchy, path, controller);
        }
    }
    Ok(true)
}

/// A limit or a kill of the new container must not meet a process of somebody else.
fn check_empty(dir: &Path) -> Result<(), Fault> {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).fault_at("read", dir.display())?;
    match procs.lines().count() {
        0 => Ok(()),
        n => Err(Fault::refused(format!(
            "the container's cgroup is not empty: {n} processes are in it"
        ))
        .at(dir.display())),
    }
}

/// Why a directory could not be made, and what to do.
fn unmade(errno: Errno, hierarchy: &Hierarchy, dir: &Path) -> Fault {
    let fault = Fault::of("mkdir", errno).at(dir.display());
    let mount = hierarchy.mount().display();
    match errno {
        Errno::ROFS => fault.because(format!(
            "the cgroup tree {mount} is mounted read-only: mount it writable (in a container: give \
             it a cgroup namespace of its own and a writable {mount})"
        )),
        Errno::ACCESS | Errno::PERM => fault.because(format!(
            "littlebox may not make control groups below {mount}: have a part of the tree \
             delegated and name it as cgroup_parent"
        )),
        Errno::AGAIN => fault.because(format!(
            "a limit on the number or depth of control groups is reached above {} \
             (cgroup.max.descendants, cgroup.max.depth)",
            dir.display()
        )),
        _ => fault,
    }
}

/// Switches a v2 controller on from the hierarchy's root down to the parent of `path`.
pub(super) fn enable_above(
    hierarchy: &Hierarchy,
    path: &Path,
    controller: &str,
) -> Result<(), Fault> {
    let value = format!("+{controller}");
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for ancestor in above {
        let dir = of(hierarchy, ancestor);
        let file = dir.join("cgroup.subtree_control");
        write_file(&file, &value)
            .fault_at("write", file.display())
            .map_err(|fault| not_enabled(fault, &dir, controller))?;
    }
    Ok(())
}

fn not_enabled(fault: Fault, dir: &Path, controller: &str) -> Fault {
    let dir = dir.display();
    // With a threaded controller switched on already (pids, cpu) its processes make it a thread root,
    // and the kernel says EOPNOTSUPP instead of EBUSY.
    if fault.is(Errno::BUSY) || fault.is(Errno::OPNOTSUPP) {
        return fault.because(format!(
            "the {controller} controller cannot be had below {dir}, because that control group has \
             processes of its own (cgroups(7), \"no internal processes\"): move them into one \
             below it, or set cgroup_parent to one without processes"
        ));
    }
    if fault.is(Errno::NOENT) {
        return fault.because(format!(
            "{dir} has no {controller} controller to hand down: have it delegated"
        ));
    }
    fault
}

/// A new v1 cpuset has no CPUs and no memory, and no process can enter it: each level takes what
/// the one above has.
fn inherit_cpuset(hierarchy: &Hierarchy, path: &Path) -> Result<(), Fault> {
    let mut levels: Vec<&Path> = path.ancestors().collect();
    levels.reverse();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut above = String::new();
        for level in &levels {
            let file = of(hierarchy, level).join(file);
            let own = fs::read_to_string(&file).fault_at("read", file.display())?;
            if own.trim().is_empty() {
                write_file(&file, &above).fault_at("write", file.display())?;
            } else {
                above = own.trim().to_owned();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::super::Layout;
    use super::*;

    #[test]
    fn directories_above_that_others_remove_are_made_again() {
        let mount = std::env::temp_dir().join(format!("lb-directories-{}", std::process::id()));
        fs::create_dir(&mount).unwrap();
        let line = format!(
            "31 23 0:28 / {} rw - cgroup cgroup rw,pids",
            mount.display()
        );
        let layout = Layout::parse(&line);
        let hierarchy = layout.with("pids").unwrap();
        let done = AtomicBool::new(false);
        // Fewer for each making than it has tries: on a busy machine one may lose every race.
        let may_remove = AtomicUsize::new(0);
        let mut taken_away = 0;
        thread::scope(|scope| {
            let tidying = scope.spawn(|| {
                let mut removed = 0;
                while !done.load(Ordering::Relaxed) {
                    let may = may_remove.load(Ordering::SeqCst) > 0;
                    if may && rmdir(mount.join("above")).is_ok() {
                        removed += 1;
                        may_remove.fetch_sub(1, Ordering::SeqCst);
                    }
                }
                removed
            });
            let all_made = (0..500).all(|_| {
                may_remove.store(TRIES / 2, Ordering::SeqCst);
                make_all(hierarchy, Path::new("/above/own")).is_ok()
                    && rmdir(mount.join("above/own")).is_ok()
            });
            done.store(true, Ordering::Relaxed);
            taken_away = tidying.join().unwrap();
            assert!(all_made);
        });
        fs::remove_dir_all(&mount).unwrap();
        assert!(taken_away > 0);
    }
}
