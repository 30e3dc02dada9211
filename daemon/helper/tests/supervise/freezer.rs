//! Containers that are frozen, by the helper or by somebody else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use crate::support::bed::Bed;
use crate::support::process::{ForeignFreezer, Zygote, eventually};
use crate::support::signals::{libc_signal, signal};
use littlebox_helper::protocol::{Call, ProcessExit, Reply, Target};

#[test]
fn freezing_stops_the_program_and_thawing_lets_it_go_on() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("while :; do echo tick; usleep 10000; done"));
    eventually("it ticks", || !bed.output().is_empty());
    helper.done(Call::Freeze { frozen: true });
    assert!(helper.status().frozen);
    std::thread::sleep(Duration::from_millis(50));
    let frozen = bed.output().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bed.output().len(), frozen);
    helper.done(Call::Freeze { frozen: false });
    eventually("it ticks again", || bed.output().len() > frozen);
    helper.done(Call::Freeze { frozen: true });
    helper.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: false,
    });
    assert_eq!(helper.exit().status, ProcessExit::Signal(9));
}

/// The container's v2 directory.
fn unified(launched: &littlebox_helper::protocol::Launched) -> Option<std::path::PathBuf> {
    let mut cgroups = launched.cgroups.iter();
    let (_, dir) = cgroups.find(|(name, _)| name == "unified")?;
    Some(dir.clone())
}

#[test]
fn a_container_that_somebody_else_froze_is_shown_as_frozen_and_ends_all_the_same() {
    for all in [false, true] {
        let (bed, zygote) = (Bed::new(), Zygote::start());
        let (mut helper, launched) = zygote.launch(&bed.plan("sleep 100"));
        let Some(dir) = unified(&launched) else {
            return helper.end();
        };
        std::fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        eventually("it is frozen", || helper.status().frozen);
        let plan = bed.exec_plan("paused", "true");
        let (Reply::Failed(failure), _) = helper.call(Call::Exec(Box::new(plan))) else {
            panic!("it started")
        };
        assert_eq!(failure.detail.as_deref(), Some("the container is paused"));
        helper.done(signal(libc_signal::TERM, false));
        helper.done(signal(libc_signal::KILL, all));
        assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
        assert!(!dir.exists());
    }
}

#[test]
fn a_container_below_a_frozen_cgroup_is_not_resumed_and_ends_all_the_same() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("sleep 100");
    let above = format!("littlebox/test-{}", plan.id);
    plan.cgroup.path = Some(format!("/{above}/leaf").into());
    let (mut helper, launched) = zygote.launch(&plan);
    let Some(dir) = unified(&launched) else {
        return helper.end();
    };
    let parent = dir.parent().unwrap();
    std::fs::write(parent.join("cgroup.freeze"), "1").unwrap();
    eventually("it is frozen", || helper.status().frozen);
    let asked = Instant::now();
    let (Reply::Failed(failure), _) = helper.call(Call::Freeze { frozen: false }) else {
        panic!("resumed")
    };
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert!(failure.detail.unwrap().contains("above the container's"));
    helper.done(signal(libc_signal::KILL, false));
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
    for hierarchy in littlebox_helper::cgroup::Layout::detect().all() {
        let _ = std::fs::remove_dir(hierarchy.mount().join(&above));
    }
}

#[test]
fn a_container_in_a_frozen_v1_cgroup_of_somebody_else_ends_when_it_is_killed() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan("exec sleep 100"));
    let Some(freezer) = ForeignFreezer::make(&launched.pid.to_string()) else {
        return helper.end();
    };
    freezer.freeze(launched.pid);
    helper.done(signal(libc_signal::KILL, false));
    let killed = Instant::now();
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
    assert!(killed.elapsed() < Duration::from_secs(5));
}
