//! Changing the limits of a container that runs.

use std::fs;
use std::io;

use super::settings::{self, Setting};
use super::{Cgroup, CgroupDir, Hierarchy, Layout, no_controller};
use crate::fault::{Fault, OrFault};
use crate::protocol::{ExistingCgroup, ResourcePlan, Step, StepFailure};

impl Cgroup {
    /// Writes the limits that `plan` names, all of them or none.
    ///
    /// # Errors
    ///
    /// [`Step::Cgroup`]: the first limit that cannot be set; the limits are then as they were.
    pub fn update(&mut self, plan: &ResourcePlan) -> Result<(), StepFailure> {
        self.update_in(plan, Layout::detect())
            .map_err(|fault| fault.of_step(Step::Cgroup))
    }

    fn update_in(&mut self, plan: &ResourcePlan, layout: &Layout) -> Result<(), Fault> {
        if self.dirs.is_empty() {
            return Err(Fault::refused(
                "the container has no control group to set limits in; see its warnings",
            ));
        }
        let unified = |controller: &str| layout.is_unified(controller);
        let settings = settings::settings(plan, &unified)
            .map_err(|settings::Inexpressible(what)| Fault::refused(what))?;
        self.check_memory(plan)?;
        self.join_hierarchies(&settings, layout)?;
        self.write_all(&settings)
    }

    /// A limit below what cannot be dropped would not limit but kill.
    fn check_memory(&self, plan: &ResourcePlan) -> Result<(), Fault> {
        let Some(limit) = plan.memory else {
            return Ok(());
        };
        let Some(used) = self.memory_used() else {
            return Ok(());
        };
        let used = if plan.memory_check_before_update {
            used.total
        } else {
            used.total.saturating_sub(used.cache)
        };
        if limit >= used {
            return Ok(());
        }
        Err(Fault::refused(format!(
            "memory: the container uses {used} bytes, more than the new limit of {limit} bytes"
        )))
    }

    fn memory_used(&self) -> Option<MemoryUsed> {
        let dir = self.dirs.iter().find(|dir| dir.hierarchy.has("memory"))?;
        let (file, prefix) = if dir.hierarchy.is_unified() {
            ("memory.current", "")
        } else {
            ("memory.usage_in_bytes", "total_")
        };
        let total = fs::read_to_string(dir.path.join(file)).ok()?;
        let stat = fs::read_to_string(dir.path.join("memory.stat")).ok()?;
        let value = |name: &str| -> Option<u64> {
            let name = format!("{prefix}{name} ");
            let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
            line.parse().ok()
        };
        Some(MemoryUsed {
            total: total.trim().parse().ok()?,
            cache: value("inactive_file")?.saturating_add(value("active_file")?),
        })
    }

    /// Takes the container into the hierarchies that only a new limit asks for.
    fn join_hierarchies(&mut self, settings: &[Setting], layout: &Layout) -> Result<(), Fault> {
        for setting in settings {
            if self
                .dirs
                .iter()
                .any(|dir| dir.hierarchy.has(&setting.controller))
            {
                continue;
            }
            let hierarchy = layout
                .with(&setting.controller)
                .ok_or_else(|| no_controller(setting))?;
            self.join_late(hierarchy)?;
        }
        Ok(())
    }

    /// Makes the directory and moves every process into it. They are frozen meanwhile: none can
    /// fork past the list. The directory stays when a later step fails; it limits nothing.
    fn join_late(&mut self, hierarchy: &Hierarchy) -> Result<(), Fault> {
        self.add_hierarchy(hierarchy, ExistingCgroup::Use)?;
        let thaw = !self.is_frozen().fault("read")?;
        if thaw {
            self.set_frozen(true).fault("freeze")?;
        }
        let moved = self.move_into_last();
        if thaw {
            self.set_frozen(false).fault("thaw")?;
        }
        moved.fault("write")?;
        self.dirs.last_mut().map_or(Ok(()), CgroupDir::open)
    }

    fn move_into_last(&self) -> io::Result<()> {
        let [known @ .., new] = &self.dirs[..] else {
            return Ok(());
        };
        let Some(known) = known.first() else {
            return Ok(());
        };
        let target = new.path.join("cgroup.procs");
        super::processes::for_each_process(&known.path, &mut |pid| {
            match super::file::write_file(&target, &pid.to_string()) {
                // It has ended.
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        })
    }
}

struct MemoryUsed {
    total: u64,
    /// Of files, which can be read again.
    cache: u64,
}
