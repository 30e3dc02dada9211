//! Time limits of execs, and what they end.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use crate::support::bed::Bed;
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::sleeper;
use littlebox_protocol::{Call, ProcessExit, Reply, Target};

#[test]
fn an_exec_whose_time_is_up_is_killed() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("slow", "echo begun; exec sleep 1000");
    plan.timeout_ms = Some(300);
    let begun = Instant::now();
    helper.exec(&plan);
    let record = helper.exec_exit("slow");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(record.status, ProcessExit::Signal(9));
    assert!(record.timed_out && !record.oom_killed);
    assert_eq!(bed.exec_output("slow"), b"begun\n");
    helper.finish();
}

/// The processes on this host whose command line ends with these words.
fn running(command: &str) -> Vec<String> {
    let wanted: Vec<u8> = command
        .bytes()
        .map(|b| if b == b' ' { 0 } else { b })
        .collect();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let matches = |pid: &String| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.strip_suffix(b"\0")
                .is_some_and(|line| line.ends_with(&wanted))
        })
    };
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(matches)
        .collect()
}

/// A number for sleep that no other test run has.
fn unique(n: u32) -> u32 {
    1_000_000 + std::process::id() * 10 + n
}

/// Runs an exec under a time limit that grows until as many programs as wanted have said a line before
/// it is up. The warnings of its start.
fn outrun(bed: &Bed, helper: &mut Helper, script: &str, lines: usize) -> Vec<String> {
    for timeout_ms in (0..8).map(|n| 250 << n) {
        let mut plan = bed.exec_plan(&format!("slow{timeout_ms}"), script);
        plan.timeout_ms = Some(timeout_ms);
        let (reply, _) = helper.call(Call::Exec(Box::new(plan.clone())));
        let Reply::ExecStarted { warnings, .. } = reply else {
            panic!("{reply:?}")
        };
        let record = helper.exec_exit(&plan.id);
        assert!(record.timed_out && !record.output_truncated, "{record:?}");
        let output = bed.exec_output(&plan.id);
        if output.iter().filter(|byte| **byte == b'\n').count() == lines {
            return warnings;
        }
    }
    panic!("they never all ran")
}

#[test]
fn a_time_limit_ends_all_that_the_exec_has_started() {
    let (bed, _zygote, mut helper) = sleeper();
    let [a, b, c, d] = [1, 2, 3, 4].map(unique);
    let script = format!(
        "busybox setsid sh -c 'echo a; exec sleep {a}' & sh -c 'echo b; exec sleep {b}' & \
         sh -c 'busybox setsid sh -c \"echo c; exec sleep {c}\" &'; echo d; exec sleep {d}"
    );
    let warnings = outrun(&bed, &mut helper, &script, 4);
    assert_eq!(warnings, Vec::<String>::new());
    eventually("all have ended", || {
        let mut all = [a, b, c, d].into_iter();
        all.all(|n| running(&format!("sleep {n}")).is_empty())
    });
    eventually("its cgroup is gone", || own_cgroups(&mut helper).is_empty());
    assert_eq!(helper.status().exit, None);
    helper.finish();
}

/// The cgroups of execs of the helper's container.
fn own_cgroups(helper: &mut Helper) -> Vec<std::path::PathBuf> {
    let cgroups = helper.status().launched.cgroups;
    let below = cgroups
        .iter()
        .flat_map(|(_, dir)| std::fs::read_dir(dir).unwrap());
    let dirs = below
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    dirs.collect()
}

#[test]
fn what_an_exec_in_time_leaves_behind_is_the_containers() {
    let (bed, _zygote, mut helper) = sleeper();
    let command = format!("sleep {}", unique(5));
    let script = format!("{command} </dev/null >/dev/null 2>&1 & cat");
    let mut plan = bed.exec_plan("quick", &script);
    plan.timeout_ms = Some(600_000);
    plan.stdin = true;
    helper.exec(&plan);
    eventually("it has a cgroup", || !own_cgroups(&mut helper).is_empty());
    eventually("it has started it", || !running(&command).is_empty());
    let target = Target::Exec("quick".to_owned());
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exec_exit("quick").status, ProcessExit::Code(0));
    eventually("that is gone", || own_cgroups(&mut helper).is_empty());
    assert_eq!(running(&command).len(), 1);
    helper.finish();
    eventually("it ends with the container", || {
        running(&command).is_empty()
    });
}

#[test]
fn without_a_cgroup_a_time_limit_ends_descendants_and_says_what_it_may_miss() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("sleep 1000");
    plan.cgroup.path = None;
    let (mut helper, _) = zygote.launch(&plan);
    let [a, b] = [6, 7].map(unique);
    let script = format!("busybox setsid sh -c 'echo a; exec sleep {a}' & echo b; exec sleep {b}");
    let warnings = outrun(&bed, &mut helper, &script, 2);
    assert!(warnings[0].contains("time limit"), "{warnings:?}");
    eventually("all have ended", || {
        let mut all = [a, b].into_iter();
        all.all(|n| running(&format!("sleep {n}")).is_empty())
    });
    helper.finish();
}
