//! What the time limit of an exec ends: its process and all that came of it, also what has left its
//! session or lost its parent.
//!
//! For that such an exec has a cgroup of its own below the container's. What is left in it when the
//! exec ends in time belongs to the container from then on.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::build;
use crate::cgroup::Cgroup;
use crate::sys;
use littlebox_protocol::ExecPlan;

/// The cgroup of an exec with a time limit, or a warning of what its absence means.
pub fn prepare(container: &Cgroup, plan: &ExecPlan) -> (Option<Cgroup>, Option<String>) {
    if plan.timeout_ms.is_none() {
        return (None, None);
    }
    match container.make_below(&format!("exec-{}", plan.id)) {
        Ok(cgroup) => (Some(cgroup), None),
        Err(fault) => (
            None,
            Some(format!(
                "the time limit may miss processes of the exec that have lost their parent: {}",
                fault.sentence()
            )),
        ),
    }
}

/// How often descendants are looked for.
const LOOKS: usize = 10;

/// How often it is tried to remove the cgroup of an exec that has ended, and at what intervals.
const TRIES: u32 = 50;
const AGAIN: Duration = Duration::from_millis(100);

/// The cgroups of execs that have ended, until the last process in them is moved or dead.
#[derive(Debug, Default)]
pub struct Released {
    /// With how often it was tried.
    cgroups: Vec<(Cgroup, u32)>,
    again_at: Option<Instant>,
}

impl Released {
    /// An exec is over; its cgroup goes, now or in a moment.
    pub fn extend(&mut self, own: Option<Cgroup>) {
        if let Some(own) = own {
            // The others wait for their own time: their tries are counted.
            if !is_dissolved(&own) {
                self.cgroups.push((own, 1));
                self.again_at.get_or_insert_with(|| Instant::now() + AGAIN);
            }
        }
    }

    /// When to try again.
    pub fn due(&self) -> Option<Instant> {
        self.again_at
    }

    /// Tries again when it is time to.
    pub fn on_time(&mut self, now: Instant) {
        if self.again_at.take_if(|at| *at <= now).is_some() {
            self.dissolve();
        }
    }

    fn dissolve(&mut self) {
        self.cgroups.retain_mut(|(own, tries)| {
            *tries += 1;
            // What cannot be dissolved goes with the container's.
            !is_dissolved(own) && *tries < TRIES
        });
        self.again_at = (!self.cgroups.is_empty()).then(|| Instant::now() + AGAIN);
    }
}

fn is_dissolved(own: &Cgroup) -> bool {
    own.dissolve().unwrap_or(false)
}

/// Ends a process and its descendants, as far as they can be seen from it and found within the time.
/// It must be a child of this process that was not reaped.
///
/// They are stopped first: then none forks, and no parent reaps.
pub fn kill_descendants(root: u32, patience: Duration) {
    let until = Instant::now() + patience;
    let mut known = Vec::new();
    // One that forks while it is stopped is found by the next look.
    for _ in 0..LOOKS {
        let seen = stop_descendants(root, until);
        let grown = seen.len() > known.len();
        known = seen;
        if !grown || Instant::now() >= until {
            break;
        }
    }
    for process in known {
        process.signal(libc::SIGKILL);
    }
}

fn stop_descendants(root: u32, until: Instant) -> Vec<Process> {
    let mut found = Vec::new();
    let mut left: Vec<Process> = Process::now(root).into_iter().collect();
    while let Some(process) = left.pop() {
        if Instant::now() < until && process.signal(libc::SIGSTOP) {
            left.extend(process.children());
        }
        found.push(process);
    }
    found
}

/// A process by its number and start time, which no other process has together. Not by a pidfd: there
/// may be more of them than this process may have descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    start_time: u64,
}

impl Process {
    /// The process that has this number now.
    fn now(pid: u32) -> Option<Process> {
        let start_time = build::start_time(pid)?;
        Some(Process { pid, start_time })
    }

    /// Sends a signal to this process and no other: whose number it is, is looked at when the
    /// descriptor is held. `false`: it has ended.
    fn signal(self, signal: i32) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        pidfd.is_some_and(|pidfd| {
            Process::now(self.pid) == Some(self)
                && sys::pidfd_send_signal(pidfd.as_fd(), signal).is_ok()
        })
    }

    /// Its children. A number that was given to another process since it was listed is none of them.
    fn children(self) -> Vec<Process> {
        let listed = build::children(self.pid).into_iter();
        let children: Vec<Process> = listed
            .filter_map(Process::now)
            .filter(|child| build::parent(child.pid) == Some(self.pid))
            .filter(|child| Process::now(child.pid) == Some(*child))
            .collect();
        // The number was its own all the time, or they are another's.
        if Process::now(self.pid) == Some(self) {
            children
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use littlebox_protocol::CgroupPlan;

    #[test]
    fn a_signal_reaches_no_other_process_with_the_same_number() {
        let mut other = Command::new("sleep").arg("100").spawn().unwrap();
        let it = Process::now(other.id()).unwrap();
        let start_time = it.start_time - 1;
        assert!(!Process { start_time, ..it }.signal(libc::SIGKILL));
        assert_eq!(other.try_wait().unwrap(), None);
        assert!(it.signal(libc::SIGKILL));
        assert_eq!(other.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn an_exec_that_ends_does_not_use_up_the_tries_of_another() {
        let plan = CgroupPlan {
            path: Some(format!("/littlebox-unit-{}", std::process::id()).into()),
            ..CgroupPlan::default()
        };
        let stays = Cgroup::create(&plan, &mut Vec::new()).unwrap();
        let paths = stays.paths();
        let (_, dir) = paths.first().expect("this host has a cgroup tree");
        // A cgroup with another below it cannot be removed.
        fs::create_dir(dir.join("below")).unwrap();
        let mut released = Released::default();
        released.extend(Some(stays));
        for _ in 0..2 * TRIES {
            released.extend(Some(Cgroup::default()));
        }
        fs::remove_dir(dir.join("below")).unwrap();
        released.on_time(released.due().expect("it is tried again"));
        assert_eq!(released.due(), None);
        assert!(!dir.exists());
    }

    #[test]
    fn without_time_to_look_for_descendants_the_process_itself_ends() {
        let mut root = Command::new("sleep").arg("100").spawn().unwrap();
        kill_descendants(root.id(), Duration::ZERO);
        assert_eq!(root.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn descendants_end_also_those_in_other_sessions() {
        let script = "setsid sh -c 'echo $$; sleep 100 & echo $!; wait' & wait";
        let mut root = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(root.stdout.take().unwrap());
        let below: Vec<String> = output.lines().take(2).map(Result::unwrap).collect();
        kill_descendants(root.id(), Duration::from_secs(30));
        assert_eq!(root.wait().unwrap().signal(), Some(libc::SIGKILL));
        let lives = |pid: &String| {
            let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        for _ in 0..1000 {
            if !below.iter().any(lives) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{below:?} live");
    }
}
