//! The cgroup that a container is put into, and who is ended with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::frozen::Frozen;
use crate::support::{Bed, Ran, wait_until};
use serde_json::{Value, json};

#[test]
fn a_container_is_refused_in_a_frozen_cgroup_and_below_one_and_leaves_it_as_it_was() {
    for below in ["", "/below"] {
        let mut bed = Bed::new("true");
        let above = format!("littlebox-runtime-test/{}-frozen", bed.id);
        bed.config["linux"]["cgroupsPath"] = json!(format!("/{above}{below}"));
        let frozen = Frozen::make(&above);
        bed.write_config();
        let bundle = bed.bundle();
        let arguments = ["run", "--bundle", bundle.to_str().unwrap(), &bed.id];
        let mut runtime = bed.command(&arguments);
        let mut runtime = runtime.stderr(Stdio::piped()).spawn().unwrap();
        // One that is not refused stands still, until it is thawed.
        let ended = wait_until(|| runtime.try_wait().unwrap().is_some());
        frozen.thaw();
        let ran = runtime.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ended && ran.status.code() == Some(1), "{said}");
        assert!(
            said.contains("is frozen") && said.contains("thaw it"),
            "{said}"
        );
        // What was there before stays, and nothing else.
        let left = frozen.everywhere(below.trim_start_matches('/'));
        let expected = if below.is_empty() {
            vec![frozen.path()]
        } else {
            vec![]
        };
        assert_eq!(left, expected);
    }
}

#[test]
fn a_limit_of_no_processes_leaves_room_for_the_containers_own() {
    let mut bed = Bed::new("");
    bed.config["process"]["args"] = json!(["sleep", "100"]);
    bed.config["linux"]["resources"] = json!({"pids": {"limit": 0}});
    bed.create().ok();
    bed.start().ok();
    let stats = bed.run(&["events", "--stats", &bed.id]).ok();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 1);
}

/// A container in its caller's PID namespace, with two programs besides its own.
fn with_three_programs() -> (Bed, Vec<PathBuf>) {
    let mut bed = Bed::new("sleep 100 & sleep 100 & exec sleep 100");
    let namespaces = bed.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bed.create().ok();
    bed.start().ok();
    let list = || {
        let pids = bed.run(&["ps", "--format", "json", &bed.id]).ok();
        serde_json::from_str::<Vec<u32>>(&pids).unwrap()
    };
    assert!(wait_until(|| list().len() == 3));
    let processes = list().into_iter();
    let processes = processes.map(|pid| Path::new("/proc").join(pid.to_string()));
    let processes = processes.collect();
    (bed, processes)
}

/// Whether none of them runs any more. One that nobody has waited for yet has no memory.
fn all_ended(processes: &[PathBuf]) -> bool {
    let has_ended = |process: &PathBuf| {
        fs::read_to_string(process.join("statm")).is_err()
            || fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.is_empty())
    };
    wait_until(|| processes.iter().all(has_ended))
}

#[test]
fn a_kill_ends_every_process_of_a_container_without_a_pid_namespace() {
    let (bed, processes) = with_three_programs();
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    assert!(all_ended(&processes));
}

#[test]
fn a_kill_ends_what_has_outlived_the_first_process() {
    let (bed, processes) = with_three_programs();
    let first = rustix::process::Pid::from_raw(i32::try_from(bed.pid()).unwrap()).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    bed.wait_for("stopped");
    let list = || bed.run(&["ps", "--format", "json", &bed.id]).ok();
    assert_eq!(list().matches(',').count(), 1);
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    assert!(all_ended(&processes));
    assert!(wait_until(|| list() == "[]\n"));
    // Nothing is there to be killed any more.
    assert!(wait_until(|| {
        let again = bed.run(&["kill", &bed.id, "KILL"]);
        again.code == Some(1) && again.stderr.contains("container not running")
    }));
}

#[test]
fn a_container_without_a_cgroup_is_its_callers() {
    let bed = Bed::new("cat /proc/self/cgroup");
    let mut bare = bed.config.clone();
    let namespaces = bare["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    fs::write(bed.bundle().join("config.json"), bare.to_string()).unwrap();
    let bundle = bed.bundle();
    let arguments = ["--cgroup-manager", "disabled", "run", "--bundle"];
    let mut command = bed.command(&arguments);
    let ran: Ran = command.arg(bundle).arg(&bed.id).output().unwrap().into();
    // Its limit is not set, and that is told.
    assert!(ran.stderr.contains("level=warning"), "{ran:?}");
    assert_eq!(ran.ok(), fs::read_to_string("/proc/self/cgroup").unwrap());
}
