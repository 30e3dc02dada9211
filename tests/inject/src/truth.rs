//! Whether the engine and the kernel tell the same after something went wrong.

use std::fs;
use std::path::Path;

use littlebox_tests::oracle;
use littlebox_tests::prelude::*;
use littlebox_types::{Container, ContainerState};

/// Waits until what the API says of every container is so; what is not, after ten seconds.
///
/// # Errors
/// The difference.
pub fn holds(t: &Bed) -> Result<(), String> {
    let mut difference = None;
    for _ in 0..200 {
        difference = t.list().iter().find_map(|container| {
            let c = container.id.to_string();
            // It may have gone by itself.
            let answer = t.get(&format!("/v1/containers/{c}"));
            (answer.status() == 200).then(|| difference_of(t, &answer.json()))?
        });
        if difference.is_none() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(difference.unwrap_or_default())
}

/// A container that nothing was done to still runs.
///
/// # Errors
/// It does not.
pub fn lives(t: &Bed, bystander: &Container) -> Result<(), String> {
    let (c, pid) = (id(bystander), pid1(bystander));
    let now = t.inspect(&c);
    if now.summary.state == ContainerState::Running
        && now.summary.pid == Some(pid)
        && proc::alive(pid)
    {
        return Ok(());
    }
    Err(format!(
        "a container that nothing was done to is {:?}",
        now.summary
    ))
}

fn difference_of(t: &Bed, container: &Container) -> Option<String> {
    let c = id(container);
    let inside = processes_in_cgroup(t, &c);
    match container.summary.state {
        ContainerState::Running | ContainerState::Paused => {
            let lives = container.summary.pid.is_some_and(proc::alive);
            (!lives).then(|| format!("{c} is said to run and does not"))
        }
        ContainerState::Created | ContainerState::Exited | ContainerState::Failed => (inside > 0)
            .then(|| {
                let state = container.summary.state;
                format!("{c} is {state:?} and {inside} processes of it live")
            }),
        other => Some(format!("{c} stays {other:?}")),
    }
}

/// How many live processes are in a container's cgroups, those of execs below included.
fn processes_in_cgroup(t: &Bed, container: &str) -> usize {
    let instances = oracle::instance_cgroups(&t.subject);
    let pids: BTreeSet<u32> = instances
        .iter()
        .flat_map(|instance| processes_below(&instance.join(container)))
        .collect();
    pids.into_iter().filter(|pid| proc::alive(*pid)).count()
}

fn processes_below(cgroup: &Path) -> Vec<u32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes_below(&entry.path()));
        }
    }
    pids
}
