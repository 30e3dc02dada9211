//! What the time limit of an exec ends: its process and all that came of it, also what has left its
//! session or lost its parent.
//!
//! For that such an exec has a cgroup of its own below the container's. What is left in it when the
//! exec ends in time belongs to the container from then on.

use std::fs;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::protocol::ExecPlan;
use crate::sys;

/// The most processes that are looked for without a cgroup.
const MOST: usize = 100_000;
/// How often they are looked for: one that forks while it is stopped is found by the next look.
const LOOKS: usize = 10;

/// The cgroup of an exec with a time limit, and what is to be warned of where it has none.
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
            self.cgroups.push((own, 0));
            self.dissolve();
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
            !own.dissolve().unwrap_or(false) && *tries < TRIES
        });
        self.again_at = (!self.cgroups.is_empty()).then(|| Instant::now() + AGAIN);
    }
}

/// Ends a process and its descendants, as far as they can be seen from it. It must be a child of this
/// process that was not reaped.
///
/// They are stopped first. Then no parent reaps, and the numbers stay their own until they are killed.
pub fn kill_descendants(root: u32) {
    let mut known = Vec::new();
    for _ in 0..LOOKS {
        let seen = stop_descendants(root);
        let grown = seen.len() > known.len();
        known = seen;
        if !grown {
            break;
        }
    }
    for pid in known {
        // It may have ended by itself.
        let _ = sys::kill(pid, libc::SIGKILL);
    }
}

fn stop_descendants(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(pid) = left.pop()
        && found.len() < MOST
    {
        let _ = sys::kill(pid, libc::SIGSTOP);
        left.extend(children(pid));
        found.push(pid);
    }
    found
}

/// The children of all threads of a process (proc_pid_task(5), "children").
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

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
        kill_descendants(root.id());
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
