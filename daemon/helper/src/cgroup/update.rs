//! Changing the limits of a container that runs.

use std::fs;
use std::io;

use super::{Cgroup, CgroupDir, Hierarchy, Layout, no_controller};
use crate::fault::{Fault, OrFault};
use littlebox_protocol::cgroup::settings::{self, Setting};
use littlebox_protocol::{ExistingCgroup, ResourcePlan, Step, StepFailure, bounds};

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
        self.check_memory(plan)?;
        let unified = |controller: &str| layout.is_unified(controller);
        let settings = settings::settings(&self.complete(plan)?, &unified)
            .map_err(|settings::Inexpressible(what)| Fault::refused(what))?;
        self.join_hierarchies(&settings, layout)?;
        self.write_all(&settings)
    }

    /// Adds what is not to change and yet must be written: v2 takes a quota and its period as one
    /// value, and counts swap alone; v1 has no memory without a limit below a limit of memory and
    /// swap.
    fn complete(&self, plan: &ResourcePlan) -> Result<ResourcePlan, Fault> {
        let mut plan = plan.clone();
        if plan.cpu_period_us.is_some() && plan.cpu_quota_us.is_none() {
            plan.cpu_quota_us = self.v2_number("cpu", "cpu.max")?;
        }
        let swap = plan.memory_and_swap.filter(|total| *total != u64::MAX);
        if swap.is_some() && plan.memory.is_none() {
            plan.memory = self.v2_number("memory", "memory.max")?;
            if plan.memory == Some(u64::MAX) {
                return Err(Fault::refused(
                    "memory_swap: a limit of memory and swap together needs a limit of memory",
                ));
            }
        }
        if plan.memory == Some(u64::MAX) && plan.memory_and_swap.is_none() && self.limits_swap() {
            plan.memory_and_swap = Some(u64::MAX);
        }
        Ok(plan)
    }

    /// The first word of a v2 file; `None` on v1, or where the controller is not switched on.
    fn v2_number(&self, controller: &str, file: &str) -> Result<Option<u64>, Fault> {
        let Some(dir) = self.dir_of(controller) else {
            return Ok(None);
        };
        if !dir.hierarchy.is_unified() {
            return Ok(None);
        }
        let path = dir.path.join(file);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.fault_at("read", path.display())?,
        };
        let word = text.split_whitespace().next().unwrap_or_default();
        Ok(match word {
            "max" => Some(u64::MAX),
            number => number.parse().ok(),
        })
    }

    fn limits_swap(&self) -> bool {
        let Some(dir) = self.dir_of("memory") else {
            return false;
        };
        let files = ["memory.swap.max", "memory.memsw.limit_in_bytes"];
        files.iter().any(|file| dir.path.join(file).exists())
    }

    fn dir_of(&self, controller: &str) -> Option<&CgroupDir> {
        self.dirs.iter().find(|dir| dir.hierarchy.has(controller))
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
        let dir = self.dir_of("memory")?;
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
            self.set_frozen(true, bounds::FREEZE_ON_THE_SPOT)
                .fault("freeze")?;
        }
        let moved = self.move_into_last();
        if thaw {
            self.thaw().fault("thaw")?;
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
