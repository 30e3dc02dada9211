//! The container's cgroup through one small interface, on v2, hybrid and v1 hosts.
//!
//! A container has the same path in every hierarchy that is used for it: always the v2 one where
//! there is one (it kills, freezes and is born into, even without a controller), the v1 ones of
//! `pids`, `memory` and `cpuacct`, and those that a limit asks for.

mod below;
mod device_filter;
mod device_rules;
mod directories;
mod file;
mod killing;
mod oom;
mod processes;
mod update;
mod write;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

pub use killing::Kill;
pub use oom::OomWatch;
#[cfg(test)]
pub(crate) use processes::tests::unwilling;

use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::cgroup::settings::{self, Setting};
use littlebox_protocol::cgroup::{DEFAULT_V2, Hierarchy, Layout};
use littlebox_protocol::{CgroupPlan, DeviceRule, ExistingCgroup, ResourcePlan, Step, StepFailure};

/// The directories of one container in every hierarchy that is used. Dropping it removes nothing.
#[derive(Debug, Default)]
pub struct Cgroup {
    /// Below each hierarchy's root.
    path: PathBuf,
    dirs: Vec<CgroupDir>,
}

/// A cgroup below the container's.
#[derive(Debug, Clone)]
pub struct Below<'a> {
    /// Of which hierarchies; empty: of all in which it is there.
    pub controllers: &'a [&'a str],
    /// Relative to the container's.
    pub path: &'a Path,
}

/// The container's directory in one hierarchy.
#[derive(Debug)]
struct CgroupDir {
    hierarchy: Hierarchy,
    path: PathBuf,
    /// v2: the directory. v1: its `tasks`, opened for writing.
    fd: Option<OwnedFd>,
    /// It was made for the container.
    is_new: bool,
}

impl Cgroup {
    /// Makes the directories, writes the limits and sets the device filter.
    ///
    /// # Errors
    ///
    /// A limit whose controller the host does not have, or that the kernel refuses. What was
    /// made is removed again; what was there before stays. With `best_effort` that is a warning instead.
    pub fn create(plan: &CgroupPlan, warnings: &mut Vec<String>) -> Result<Cgroup, StepFailure> {
        Self::create_in(plan, Layout::detect(), warnings)
            .map_err(|fault| fault.of_step(Step::Cgroup))
    }

    fn create_in(
        plan: &CgroupPlan,
        layout: &Layout,
        warnings: &mut Vec<String>,
    ) -> Result<Cgroup, Fault> {
        let Some(path) = &plan.path else {
            return if plan.resources.is_empty() {
                Ok(Cgroup::default())
            } else {
                Err(Fault::refused("limits need a cgroup"))
            };
        };
        let mut cgroup = Cgroup {
            path: path.clone(),
            dirs: Vec::new(),
        };
        let made = cgroup.fill(layout, plan, warnings);
        match made {
            Ok(()) => Ok(cgroup),
            Err(fault) => {
                // The first error is the one to tell.
                let _ = cgroup.remove_new();
                if plan.best_effort && directories::is_out_of_reach(&fault) {
                    warnings.push(format!(
                        "the container has no control group, so no limits, no device filter, no \
                         pause and no count of its memory: {}",
                        fault.sentence()
                    ));
                    return Ok(Cgroup::default());
                }
                Err(fault)
            }
        }
    }

    fn fill(
        &mut self,
        layout: &Layout,
        plan: &CgroupPlan,
        warnings: &mut Vec<String>,
    ) -> Result<(), Fault> {
        if layout.all().next().is_none() {
            return Err(Fault::refused(
                "no cgroup tree is mounted on this host (see cgroups(7)): mount cgroup2 on \
                 /sys/fs/cgroup",
            )
            .with_errno(Errno::NOENT));
        }
        let CgroupPlan {
            resources,
            existing,
            best_effort,
            ..
        } = plan;
        let (existing, best_effort) = (*existing, *best_effort);
        let unified = |controller: &str| layout.is_unified(controller);
        let settings = settings::settings(resources, &unified)
            .map_err(|settings::Inexpressible(what)| Fault::refused(what))?;
        let rules = resources.devices.as_deref().filter(|rules| {
            // A new cgroup allows what the one above it allows.
            !device_rules::allow_everything(rules)
        });
        let (settings, missing): (Vec<Setting>, Vec<Setting>) = settings
            .into_iter()
            .partition(|s| layout.with(&s.controller).is_some());
        for setting in missing {
            let fault = no_controller(&setting);
            if !best_effort {
                return Err(fault);
            }
            warnings.push(fault.sentence());
        }
        for hierarchy in layout.used(&settings, rules.is_some(), plan.every_hierarchy) {
            self.add_hierarchy(hierarchy, existing)?;
        }
        if existing == ExistingCgroup::UseEmpty {
            self.refuse_frozen()?;
        }
        self.write_each(&settings, best_effort, warnings)?;
        self.dirs.iter_mut().try_for_each(CgroupDir::open)?;
        match rules {
            Some(rules) => match self.filter_devices(rules) {
                Err(fault) if best_effort => {
                    warnings.push(fault.sentence());
                    Ok(())
                }
                other => other,
            },
            None => Ok(()),
        }
    }

    /// In a frozen cgroup, and below one, the container's first process would stand still before it is
    /// one, and everybody with it who waits for it.
    fn refuse_frozen(&self) -> Result<(), Fault> {
        let path = self.path.display();
        if !self.is_frozen_anywhere().fault_at("read", path)? {
            return Ok(());
        }
        Err(
            Fault::refused("the container's cgroup is frozen, or one above it is: thaw it first")
                .at(self.path.display()),
        )
    }

    /// Allows the devices of the rules and no others: by the v1 controller where it is mounted,
    /// else by a program on the v2 cgroup.
    fn filter_devices(&self, rules: &[DeviceRule]) -> Result<(), Fault> {
        if let Some(dir) = self.dirs.iter().find(|d| d.hierarchy.has("devices")) {
            let writes = device_rules::v1_writes(rules)
                .map_err(|why| Fault::refused(format!("device rules: {why}")))?;
            for (file, value) in writes {
                let path = dir.path.join(file);
                file::write_file(&path, &value)
                    .fault_at("write", path.display())
                    .map_err(|f| f.because(format!("device rules: the kernel refuses {value}")))?;
            }
            return Ok(());
        }
        let cgroup = self.clone_fd().ok_or_else(|| {
            Fault::refused(
                "devices cannot be filtered: this host has neither the devices controller nor \
                 cgroup v2 mounted",
            )
        })?;
        let why = "devices cannot be filtered: the kernel refuses a BPF program on the cgroup";
        let program = sys::load_device_filter(&device_filter::program(rules))
            .fault("bpf")
            .map_err(|fault| fault.because(why))?;
        sys::attach_device_filter(cgroup, program.as_fd())
            .fault("bpf")
            .map_err(|fault| fault.because(why))
    }

    /// The directories that exist under the plan's path, whoever made them: for ending and
    /// removing a cgroup that an earlier helper left.
    pub fn open(plan: &CgroupPlan) -> io::Result<Cgroup> {
        let Some(path) = &plan.path else {
            return Ok(Cgroup::default());
        };
        let of = |hierarchy: &Hierarchy| {
            let (path, hierarchy) = (directories::of(hierarchy, path), hierarchy.clone());
            path.is_dir().then_some(CgroupDir {
                hierarchy,
                path,
                fd: None,
                is_new: false,
            })
        };
        Ok(Cgroup {
            path: path.clone(),
            dirs: Layout::detect().all().filter_map(of).collect(),
        })
    }

    /// The same, for a process that is to be put into them, or into cgroups below.
    ///
    /// # Errors
    /// [`Step::CgroupAttach`]: a directory that cannot be opened, a controller that the container is
    /// not in, a path that leads out of the container's cgroup.
    pub fn enter(plan: &CgroupPlan, below: &[Below<'_>]) -> Result<Cgroup, StepFailure> {
        let enter = || {
            let mut cgroup = Cgroup::open(plan).fault("open")?;
            below.iter().try_for_each(|below| cgroup.descend(below))?;
            cgroup.dirs.iter_mut().try_for_each(CgroupDir::open)?;
            Ok(cgroup)
        };
        enter().map_err(|fault: Fault| fault.of_step(Step::CgroupAttach))
    }

    fn descend(&mut self, below: &Below<'_>) -> Result<(), Fault> {
        let relative = below.path.strip_prefix("/").unwrap_or(below.path);
        let is_below = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(is_below) {
            let why = "bad sub cgroup path: `..` components are not allowed";
            return Err(Fault::refused(why).at(below.path.display()));
        }
        let known = |name: &&str| self.dirs.iter().any(|dir| dir.hierarchy.has(name));
        if let Some(unknown) = below.controllers.iter().find(|name| !known(name)) {
            return Err(Fault::refused(format!(
                "unknown controller {unknown:?}: the container is in no cgroup of it"
            )));
        }
        let root = self.path.clone();
        let mut found = false;
        for dir in &mut self.dirs {
            let named = below.controllers.iter().any(|c| dir.hierarchy.has(c));
            let path = directories::of(&dir.hierarchy, &root).join(relative);
            if named || (below.controllers.is_empty() && path.is_dir()) {
                dir.path = path;
                found = true;
            }
        }
        if found {
            return Ok(());
        }
        Err(Fault::of("open", Errno::NOENT).at(self.path.join(relative).display()))
    }

    /// The rules of its device filter that count, in words; `None`: there is no filter, because there
    /// is no cgroup, or none was asked for.
    pub fn device_filter(&self, limits: &ResourcePlan) -> Option<Vec<String>> {
        let rules = limits.devices.as_ref().filter(|_| !self.dirs.is_empty())?;
        Some(device_rules::in_words(rules))
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

    /// The container's directory in each hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|dir| dir.path.as_path())
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

    /// What it holds open, for a process that is to be put into it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dirs
            .iter()
            .filter_map(|dir| dir.fd.as_ref().map(AsFd::as_fd))
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
        let v1 = || self.dirs.iter().find(|dir| dir.hierarchy.has("freezer"));
        self.unified().or_else(v1)
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

fn no_controller(setting: &Setting) -> Fault {
    let (field, controller) = (setting.field, &setting.controller);
    Fault::refused(format!(
        "{field}: this host has no {controller} controller to enforce the limit with"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command};

    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
    };

    use super::*;
    use littlebox_protocol::{ExistingCgroup, ResourcePlan, bounds};

    /// This host's v1 freezer and nothing else. Where it is not mounted it is mounted here, in a mount
    /// namespace of this thread's own.
    fn v1_freezer() -> (Layout, Option<tempfile::TempDir>) {
        let find = || {
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let of_freezer = |line: &&str| {
                let (_, of_type) = line.split_once(" - ").unwrap();
                of_type.starts_with("cgroup ") && of_type.ends_with("freezer")
            };
            table.lines().find(of_freezer).map(Layout::parse)
        };
        if let Some(layout) = find() {
            return (layout, None);
        }
        sys::unshare_mount_namespace().unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let flags = MountFlags::empty();
        mount(c"none", dir.path(), c"cgroup", flags, c"freezer")
            .expect("this kernel has the freezer of v1");
        (find().unwrap(), Some(dir))
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
        let (layout, mounted) = v1_freezer();
        let name = format!("littlebox-unit-{}", std::process::id());
        let plan = CgroupPlan {
            path: Some(Path::new("/").join(&name).join("leaf")),
            existing: ExistingCgroup::Replace,
            ..CgroupPlan::default()
        };
        let cgroup = Cgroup::create_in(&plan, &layout, &mut Vec::new()).unwrap();
        assert!(cgroup.unified().is_none() && cgroup.has_v1());
        let mut child = sleeper_in(&cgroup);
        cgroup.set_frozen(true, bounds::FREEZE).unwrap();
        assert!(cgroup.is_frozen().unwrap());
        cgroup.kill_all().unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        let leaf = &cgroup.dirs[0].path;
        assert!(!leaf.exists());
        fs::remove_dir(leaf.parent().unwrap()).unwrap();
        if let Some(mounted) = mounted {
            unmount(mounted.path(), UnmountFlags::DETACH).unwrap();
        }
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
            ..CgroupPlan::default()
        };
        let only_pids = "31 23 0:28 / /nowhere rw - cgroup cgroup rw,pids";
        let layout = Layout::parse(only_pids);
        let fault = Cgroup::create_in(&plan, &layout, &mut Vec::new()).unwrap_err();
        assert!(fault.detail.unwrap().starts_with("memory: "));
    }
}
