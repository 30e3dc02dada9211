//! The container's cgroup through one small interface, on v2, hybrid and v1 hosts.
//!
//! A container has the same path in every hierarchy that is used for it: always the v2 one where
//! there is one (it kills, freezes and is born into, even without a controller), the v1 ones of
//! `pids`, `memory` and `cpuacct`, and those that a limit asks for.

mod layout;
mod limits;
mod processes;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdir, open};
use rustix::io::Errno;

pub use layout::{Hierarchy, Layout};
use limits::Setting;

use crate::fault::{Fault, OrFault};
use crate::protocol::{CgroupPlan, ExistingCgroup, ResourcePlan, Step, StepFailure};

/// v1 controllers that are used without being asked for: a limit of processes can be set later,
/// and memory and CPU time are counted. The freezer is for hosts without v2, where it is the
/// only way to pause and to kill safely.
const DEFAULT_V1: [&str; 3] = ["pids", "memory", "cpuacct"];

/// v2 controllers that are switched on for every container.
const DEFAULT_V2: [&str; 3] = ["cpu", "memory", "pids"];

/// The directories of one container in every hierarchy that is used. Dropping it removes nothing.
#[derive(Debug, Default)]
pub struct Cgroup {
    dirs: Vec<CgroupDir>,
}

/// The container's directory in one hierarchy.
#[derive(Debug)]
struct CgroupDir {
    hierarchy: Hierarchy,
    path: PathBuf,
    /// v2: the directory. v1: its `tasks`, opened for writing.
    fd: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the directories and writes the limits.
    ///
    /// # Errors
    ///
    /// A limit whose controller the host does not have, or that the kernel refuses. What was
    /// made is removed again.
    pub fn create(plan: &CgroupPlan) -> Result<Cgroup, StepFailure> {
        Self::create_in(plan, Layout::detect()).map_err(|fault| fault.of_step(Step::Cgroup))
    }

    fn create_in(plan: &CgroupPlan, layout: &Layout) -> Result<Cgroup, Fault> {
        let Some(path) = &plan.path else {
            return if plan.resources == ResourcePlan::default() {
                Ok(Cgroup::default())
            } else {
                Err(Fault::refused("limits need a cgroup"))
            };
        };
        let unified = |controller: &str| {
            layout
                .with(controller)
                .or(layout.unified())
                .is_some_and(Hierarchy::is_unified)
        };
        let settings = limits::settings(&plan.resources, unified)
            .map_err(|limits::Inexpressible(what)| Fault::refused(what))?;
        let mut cgroup = Cgroup::default();
        match cgroup.fill(path, plan.existing, layout, &settings) {
            Ok(()) => Ok(cgroup),
            Err(fault) => {
                // The first error is the one to tell.
                let _ = cgroup.remove();
                Err(fault)
            }
        }
    }

    fn fill(
        &mut self,
        path: &Path,
        existing: ExistingCgroup,
        layout: &Layout,
        settings: &[Setting],
    ) -> Result<(), Fault> {
        for hierarchy in used(layout, settings)? {
            let dir = directory(hierarchy, path);
            make_directory(hierarchy, path, &dir, existing)?;
            // Known from now on, so that a failure below removes it.
            self.dirs.push(CgroupDir {
                hierarchy: hierarchy.clone(),
                path: dir,
                fd: None,
            });
            if !hierarchy.is_unified() && hierarchy.has("cpuset") {
                inherit_cpuset(hierarchy, path)?;
            }
        }
        for setting in settings {
            self.apply(path, setting)?;
        }
        self.dirs.iter_mut().try_for_each(CgroupDir::open)
    }

    fn apply(&self, path: &Path, setting: &Setting) -> Result<(), Fault> {
        let dir = self
            .dirs
            .iter()
            .find(|dir| dir.hierarchy.has(setting.controller));
        let dir = dir.ok_or_else(|| no_controller(setting.controller))?;
        let file = dir.path.join(setting.file);
        match write_file(&file, &setting.value) {
            // The file is there only when the controller is on in all directories above.
            Err(Errno::NOENT) if dir.hierarchy.is_unified() => {
                enable_above(&dir.hierarchy, path, &[setting.controller])?;
                write_file(&file, &setting.value)
            }
            other => other,
        }
        .fault_at("write", file.display())
        .map_err(|fault| explain(fault, setting))
    }

    /// The directories that exist under the plan's path, whoever made them: for ending and
    /// removing a cgroup that an earlier helper left.
    pub fn open(plan: &CgroupPlan) -> io::Result<Cgroup> {
        let Some(path) = &plan.path else {
            return Ok(Cgroup::default());
        };
        let of = |hierarchy: &Hierarchy| {
            let (path, hierarchy) = (directory(hierarchy, path), hierarchy.clone());
            path.is_dir().then_some(CgroupDir {
                hierarchy,
                path,
                fd: None,
            })
        };
        Ok(Cgroup {
            dirs: Layout::detect().all().filter_map(of).collect(),
        })
    }

    /// The same, for a process that is to be put into them.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn enter(plan: &CgroupPlan) -> io::Result<Cgroup> {
        let mut cgroup = Cgroup::open(plan)?;
        let opened = cgroup.dirs.iter_mut().try_for_each(CgroupDir::open);
        opened.map_err(|fault| io::Error::from_raw_os_error(fault.errno))?;
        Ok(cgroup)
    }

    /// Absolute directories by controller (`unified`, `memory`...).
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        let named = |dir: &CgroupDir| {
            let names = if dir.hierarchy.is_unified() {
                vec!["unified".to_owned()]
            } else {
                dir.hierarchy.controllers().to_vec()
            };
            names
                .into_iter()
                .map(|name| (name, dir.path.clone()))
                .collect::<Vec<_>>()
        };
        self.dirs.iter().flat_map(named).collect()
    }

    /// The hierarchies in which the container has a directory.
    pub fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.dirs.iter().map(|dir| &dir.hierarchy)
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`, where there is a v2 hierarchy.
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified()
            .and_then(|dir| dir.fd.as_ref())
            .map(AsFd::as_fd)
    }

    /// Puts the calling process into the v1 directories, through descriptors that were opened
    /// when they were made: it may be in other namespaces by now. `0` is the writer itself.
    pub fn attach_self_v1(&self) -> Result<(), Fault> {
        for dir in self.dirs.iter().filter(|dir| !dir.hierarchy.is_unified()) {
            if let Some(tasks) = &dir.fd {
                rustix::io::write(tasks, b"0").fault_at("write", dir.path.display())?;
            }
        }
        Ok(())
    }

    /// Whether a child must still be put into directories: it is born in the v2 one only.
    pub fn has_v1(&self) -> bool {
        self.dirs.iter().any(|dir| !dir.hierarchy.is_unified())
    }

    fn unified(&self) -> Option<&CgroupDir> {
        self.dirs.iter().find(|dir| dir.hierarchy.is_unified())
    }

    fn freezer(&self) -> Option<&CgroupDir> {
        self.dirs
            .iter()
            .find(|dir| dir.hierarchy.is_unified() || dir.hierarchy.has("freezer"))
    }

    /// How many processes the OOM killer has ended in it so far; 0 without a memory controller.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dirs.iter().find(|dir| dir.hierarchy.has("memory")) else {
            return 0;
        };
        let unified = dir.hierarchy.is_unified();
        let file = if unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(dir.path.join(file)).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        value.unwrap_or(0)
    }
}

impl CgroupDir {
    fn open(&mut self) -> Result<(), Fault> {
        let (path, flags) = if self.hierarchy.is_unified() {
            (self.path.clone(), OFlags::PATH | OFlags::DIRECTORY)
        } else {
            // Not `cgroup.procs`: a process with one thread that writes 0 to `tasks` moves itself
            // whole, and the kernel (since 5.19) takes no global lock for it, where every write to
            // `cgroup.procs` waits for an RCU grace period.
            (self.path.join("tasks"), OFlags::WRONLY)
        };
        let fd = open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        self.fd = Some(fd.fault_at("open", path.display())?);
        Ok(())
    }
}

/// The hierarchies that a container with these limits has a directory in.
fn used<'l>(layout: &'l Layout, settings: &[Setting]) -> Result<Vec<&'l Hierarchy>, Fault> {
    if let Some(missing) = settings
        .iter()
        .find(|s| layout.with(s.controller).is_none())
    {
        return Err(no_controller(missing.controller));
    }
    let wanted = |controller: &str| {
        DEFAULT_V1.contains(&controller)
            || settings.iter().any(|s| s.controller == controller)
            || (controller == "freezer" && layout.unified().is_none())
    };
    let used = |h: &&Hierarchy| h.is_unified() || h.controllers().iter().any(|c| wanted(c));
    Ok(layout.all().filter(used).collect())
}

fn no_controller(controller: &str) -> Fault {
    Fault::refused(format!(
        "this host has no {controller} controller to enforce the limit with"
    ))
}

fn explain(fault: Fault, setting: &Setting) -> Fault {
    let (file, value) = (setting.file, &setting.value);
    if fault.is(Errno::NOENT) {
        fault.because(format!(
            "this kernel cannot enforce the limit: it has no {file}"
        ))
    } else {
        fault.because(format!("the kernel refuses {value} for {file}"))
    }
}

fn directory(hierarchy: &Hierarchy, path: &Path) -> PathBuf {
    hierarchy
        .mount()
        .join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes the container's directory, and those above it when they are missing.
fn make_directory(
    hierarchy: &Hierarchy,
    path: &Path,
    dir: &Path,
    existing: ExistingCgroup,
) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(0o755);
    match mkdir(dir, mode) {
        Ok(()) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(Errno::EXIST) if existing == ExistingCgroup::Use => return Ok(()),
        Err(Errno::EXIST) if existing == ExistingCgroup::UseEmpty => return check_empty(dir),
        Err(Errno::EXIST) => {
            // Left by a helper that died: whatever still runs in it is nobody's.
            let left = CgroupDir {
                hierarchy: hierarchy.clone(),
                path: dir.to_owned(),
                fd: None,
            };
            let left = Cgroup { dirs: vec![left] };
            left.kill_all()
                .and_then(|()| left.remove())
                .fault_at("rmdir", dir.display())?;
            return mkdir(dir, mode).fault_at("mkdir", dir.display());
        }
        Err(errno) => return Err(Fault::of("mkdir", errno).at(dir.display())),
    }
    fs::create_dir_all(dir).fault_at("mkdir", dir.display())?;
    if hierarchy.is_unified() {
        let on = DEFAULT_V2
            .into_iter()
            .filter(|c| hierarchy.has(c))
            .collect::<Vec<_>>();
        // Without a limit, a controller that cannot be had (a process in a directory above) only
        // means less to count; a limit that needs it tries again and says so.
        let _ = enable_above(hierarchy, path, &on);
    }
    Ok(())
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

/// Switches v2 controllers on from the hierarchy's root down to the parent of `path`.
fn enable_above(hierarchy: &Hierarchy, path: &Path, controllers: &[&str]) -> Result<(), Fault> {
    if controllers.is_empty() {
        return Ok(());
    }
    let value = controllers
        .iter()
        .map(|c| format!("+{c}"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for ancestor in above {
        let file = directory(hierarchy, ancestor).join("cgroup.subtree_control");
        write_file(&file, &value).fault_at("write", file.display())?;
    }
    Ok(())
}

/// A new v1 cpuset has no CPUs and no memory, and no process can enter it: each level takes what
/// the one above has.
fn inherit_cpuset(hierarchy: &Hierarchy, path: &Path) -> Result<(), Fault> {
    let mut levels: Vec<&Path> = path.ancestors().collect();
    levels.reverse();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut above = String::new();
        for level in &levels {
            let file = directory(hierarchy, level).join(file);
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

fn write_file(file: &Path, value: &str) -> rustix::io::Result<()> {
    let fd = open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fs::File::from(fd)
        .write_all(value.as_bytes())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// This host without its v2 tree.
    fn v1_layout() -> Layout {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v1 = table.lines().filter(|line| !line.contains(" - cgroup2 "));
        Layout::parse(&v1.collect::<Vec<_>>().join("\n"))
    }

    fn sleeper_in(cgroup: &Cgroup) -> Child {
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        for dir in &cgroup.dirs {
            fs::write(dir.path.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child
    }

    #[test]
    fn on_v1_the_freezer_pauses_and_kills() {
        let layout = v1_layout();
        if layout.with("freezer").is_none() {
            // A pure v2 host has nothing of what this proves.
            return;
        }
        let name = format!("littlebox-unit-{}", std::process::id());
        let plan = CgroupPlan {
            path: Some(Path::new("/").join(&name).join("leaf")),
            resources: ResourcePlan {
                pids: Some(10),
                ..ResourcePlan::default()
            },
            existing: ExistingCgroup::Replace,
        };
        let cgroup = Cgroup::create_in(&plan, &layout).unwrap();
        assert!(cgroup.unified().is_none() && cgroup.has_v1());
        let mut child = sleeper_in(&cgroup);
        cgroup.set_frozen(true).unwrap();
        assert!(cgroup.is_frozen().unwrap());
        cgroup.kill_all().unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        let parent = CgroupPlan {
            path: Some(Path::new("/").join(&name)),
            ..plan
        };
        Cgroup::open(&parent).unwrap().remove().unwrap();
        assert!(Cgroup::open(&parent).unwrap().dirs.is_empty());
    }

    #[test]
    fn a_limit_without_its_controller_is_refused() {
        let resources = ResourcePlan {
            memory: Some(1 << 30),
            ..ResourcePlan::default()
        };
        let plan = CgroupPlan {
            path: Some("/x".into()),
            resources,
            existing: ExistingCgroup::Replace,
        };
        let fault = Cgroup::create_in(&plan, &Layout::default()).unwrap_err();
        assert!(fault.detail.unwrap().contains("memory"));
    }
}
