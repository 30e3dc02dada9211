//! The kill of everything in a cgroup, step by step: an event loop need not wait for it.

use std::io::{self, ErrorKind};
use std::time::Instant;

use rustix::io::Errno;

use super::Cgroup;
use super::file::write_file;
use super::processes::wait_until;
use littlebox_protocol::bounds;

/// A kill in progress.
#[derive(Debug)]
pub struct Kill {
    until: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was done yet.
    Begun,
    /// The kernel cannot kill it as a whole. While it is frozen, nothing can fork and escape the list.
    Freezing { until: Instant },
    /// Something in it cannot be frozen (a process in an uninterruptible wait, vfork(2)): killing
    /// again and again catches up with most.
    Chasing,
}

impl Kill {
    /// Begins one; it has [`bounds::KILL`].
    pub fn begin() -> Kill {
        Kill {
            until: Instant::now() + bounds::KILL,
            phase: Phase::Begun,
        }
    }

    /// When to give it up.
    pub fn until(&self) -> Instant {
        self.until
    }
}

impl Cgroup {
    /// Kills everything in it and below (`cgroup.kill`; v1: freeze, kill, thaw). It is thawed
    /// afterwards. Does not wait until the processes are gone; [`Cgroup::remove`] does.
    ///
    /// # Errors
    /// As [`Cgroup::kill_step`]; `TimedOut` when processes go on forking.
    pub fn kill_all(&self) -> io::Result<()> {
        let mut kill = Kill::begin();
        let killed = wait_until(kill.until(), |_| self.kill_step(&mut kill));
        if killed.is_err() {
            self.take_freeze_back();
        }
        killed
    }

    /// Goes on with a kill and returns whether it is done, without waiting. To be called until it is,
    /// or [`Kill::until`]. A caller that stops earlier undoes its freeze by
    /// [`Cgroup::take_freeze_back`].
    ///
    /// # Errors
    /// The kernel refuses to kill or to thaw.
    pub fn kill_step(&self, kill: &mut Kill) -> io::Result<bool> {
        match kill.phase {
            Phase::Begun if self.kill_at_once()? => Ok(true),
            Phase::Begun if self.freezer().is_none() => {
                kill.phase = Phase::Chasing;
                self.chase()
            }
            Phase::Begun => {
                let until = Instant::now() + bounds::FREEZE_ON_THE_SPOT;
                kill.phase = Phase::Freezing { until };
                self.kill_step(kill)
            }
            Phase::Freezing { until } => {
                let frozen = self.freeze_step(true);
                if matches!(frozen, Ok(false)) && Instant::now() < until {
                    return Ok(false);
                }
                let killed = self.signal_each(libc::SIGKILL);
                // A process in a frozen cgroup must thaw to die.
                self.thaw()?;
                kill.phase = Phase::Chasing;
                match frozen {
                    Ok(true) => killed.map(|_| true),
                    Ok(false) | Err(_) => Ok(false),
                }
            }
            Phase::Chasing => self.chase(),
        }
    }

    /// By the kernel; `false`: it cannot.
    fn kill_at_once(&self) -> io::Result<bool> {
        if let Some(dir) = self.unified() {
            match write_file(&dir.path.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(true),
                // Before 5.14 there is no such file.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.any().is_none_or(|dir| !dir.path.exists()))
    }

    /// Kills what is there; `true`: nothing was.
    fn chase(&self) -> io::Result<bool> {
        match self.signal_each(libc::SIGKILL) {
            // It was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            signalled => signalled.map(|number| number == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::processes::tests::unwilling;
    use super::*;

    #[test]
    fn a_step_of_a_kill_does_not_wait_for_a_freeze() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = unwilling(mount.path());
        let mut kill = Kill::begin();
        let begun = Instant::now();
        assert!(!cgroup.kill_step(&mut kill).unwrap());
        assert!(!cgroup.kill_step(&mut kill).unwrap());
        assert!(begun.elapsed() < bounds::FREEZE_ON_THE_SPOT / 2);
    }

    #[test]
    fn what_cannot_be_frozen_is_killed_all_the_same_and_thawed() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = unwilling(mount.path());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let procs = mount.path().join("container/cgroup.procs");
        std::fs::write(&procs, format!("{}\n", child.id())).unwrap();
        let mut kill = Kill {
            until: Instant::now() + bounds::KILL,
            phase: Phase::Freezing {
                until: Instant::now(),
            },
        };
        assert!(!cgroup.kill_step(&mut kill).unwrap());
        child.wait().unwrap();
        let state = std::fs::read_to_string(mount.path().join("container/cgroup.freeze"));
        assert_eq!(state.unwrap(), "0");
        assert!(!cgroup.kill_step(&mut kill).unwrap(), "it is listed still");
        std::fs::write(&procs, "").unwrap();
        assert!(cgroup.kill_step(&mut kill).unwrap());
    }
}
