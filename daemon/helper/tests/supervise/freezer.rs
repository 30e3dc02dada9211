//! Containers that are frozen, by the helper or by somebody else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use crate::starting::{STOPPER, ask_held_up, holding, stuck_exec};
use crate::support::bed::Bed;
use crate::support::hierarchies::{ForeignFreezer, Hierarchies, thaw_v1};
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::signals::{libc_signal, signal};
use littlebox_protocol::{Call, ProcessExit, Reply, Step, Target};

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

#[test]
fn a_container_that_somebody_else_froze_is_shown_as_frozen_and_ends_all_the_same() {
    let hierarchies = Hierarchies::ensure();
    for all in [false, true] {
        let (bed, zygote) = (Bed::new(), Zygote::start());
        let plan = bed.plan("sleep 100");
        let (mut helper, _) = zygote.launch(&plan);
        let dir = hierarchies.unified(plan.cgroup.path.as_ref().unwrap());
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
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("sleep 100");
    let above = format!("littlebox/test-{}", plan.id);
    plan.cgroup.path = Some(format!("/{above}/leaf").into());
    let (mut helper, _) = zygote.launch(&plan);
    let parent = hierarchies.unified(std::path::Path::new(&format!("/{above}")));
    std::fs::write(parent.join("cgroup.freeze"), "1").unwrap();
    eventually("it is frozen", || helper.status().frozen);
    let failure = helper.refused(Call::Freeze { frozen: false });
    assert!(failure.detail.unwrap().contains("above the container's"));
    helper.done(signal(libc_signal::KILL, false));
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
    for hierarchy in littlebox_protocol::cgroup::Layout::detect().all() {
        let _ = std::fs::remove_dir(hierarchy.mount().join(&above));
    }
}

#[test]
fn a_container_in_a_frozen_v1_cgroup_of_somebody_else_ends_when_it_is_killed() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan("exec sleep 100"));
    let freezer = ForeignFreezer::make(&hierarchies, &launched.pid.to_string());
    freezer.freeze(launched.pid);
    helper.done(signal(libc_signal::KILL, false));
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
}

/// A container that cannot be frozen: its program is in a frozen v1 cgroup of somebody else, and the
/// kernel of v2 waits for it to stop (with the freezer that lets it go on).
fn unfreezable(hierarchies: &Hierarchies, bed: &Bed, zygote: &Zygote) -> (Helper, ForeignFreezer) {
    let (helper, launched) = zygote.launch(&bed.plan("exec sleep 1000"));
    let freezer = ForeignFreezer::make(hierarchies, &launched.pid.to_string());
    freezer.freeze(launched.pid);
    (helper, freezer)
}

#[test]
fn a_freeze_that_takes_its_time_holds_nobody_up() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, freezer) = unfreezable(&hierarchies, &bed, &zygote);
    let seq = helper.ask(Call::Freeze { frozen: true });
    let mut other = Helper::connect(&bed.run_dir());
    assert!(!other.status().frozen);
    assert!(helper.is_silent_for(Duration::ZERO), "it is answered first");
    let plan = bed.exec_plan("late", "true");
    let failure = other.refused(Call::Exec(Box::new(plan)));
    assert_eq!(failure.detail.as_deref(), Some("the container is paused"));
    freezer.thaw();
    assert_eq!(helper.reply(seq).0, Reply::Done);
    assert!(other.status().frozen);
    helper.end();
}

#[test]
fn a_freeze_that_does_not_come_about_is_taken_back() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, freezer) = unfreezable(&hierarchies, &bed, &zygote);
    let failure = helper.refused(Call::Freeze { frozen: true });
    assert_eq!(failure.step, Step::Cgroup);
    freezer.thaw();
    helper.exec(&bed.exec_plan("goes on", "true"));
    helper.exec_exit("goes on");
    helper.end();
}

#[test]
fn a_thaw_overtakes_a_freeze_on_its_way() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, freezer) = unfreezable(&hierarchies, &bed, &zygote);
    let seq = helper.ask(Call::Freeze { frozen: true });
    let mut other = Helper::connect(&bed.run_dir());
    other.done(Call::Freeze { frozen: false });
    let failure = helper.refusal(seq);
    assert!(failure.detail.unwrap().contains("the opposite"));
    freezer.thaw();
    assert!(!other.status().frozen);
    helper.end();
}

#[test]
fn an_exec_on_its_way_starts_before_the_container_is_frozen() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _, dir) = holding(&hierarchies, &bed, &zygote);
    let (exec, _) = ask_held_up(&bed, &mut helper, "echo started; exec sleep 1000");
    let mut other = Helper::connect(&bed.run_dir());
    let freeze = other.ask(Call::Freeze { frozen: true });
    // No other exec begins meanwhile, and everybody else is served.
    let mut third = Helper::connect(&bed.run_dir());
    let failure = third.refused(Call::Exec(Box::new(bed.exec_plan("late", "true"))));
    assert_eq!(failure.detail.as_deref(), Some("the container is paused"));
    assert!(other.is_silent_for(Duration::ZERO), "it is answered first");
    thaw_v1(&dir);
    assert!(matches!(helper.reply(exec).0, Reply::ExecStarted { .. }));
    assert_eq!(other.reply(freeze).0, Reply::Done);
    assert!(third.status().frozen);
    third.done(Call::Freeze { frozen: false });
    eventually("it goes on", || bed.exec_output("held") == b"started\n");
    helper.end();
}

#[test]
fn an_exec_that_does_not_start_holds_no_freeze_up_for_long() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan(STOPPER));
    stuck_exec(&bed, &mut helper, 600_000);
    let mut other = Helper::connect(&bed.run_dir());
    other.done(Call::Freeze { frozen: true });
    assert!(other.status().frozen);
    helper.end();
}
