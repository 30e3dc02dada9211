//! Execs on their way: what holds one up holds nobody else up.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::hierarchies::{ForeignFreezer, Hierarchies, freeze_v1, thaw_v1};
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::signals::signal_to;
use littlebox_protocol::{Call, Launched, ProcessExit, Reply, Target};

/// The exec is asked for again until the container has caught its process before the program ran; then
/// the request is still open.
pub fn stuck_exec(bed: &Bed, helper: &mut Helper, start_timeout_ms: u64) -> u64 {
    for n in 0..100 {
        let mut plan = bed.exec_plan(&format!("stuck{n}"), "exec sleep 1000");
        plan.start_timeout_ms = Some(start_timeout_ms);
        let seq = helper.ask(Call::Exec(Box::new(plan)));
        // A busy machine is silent as well.
        if helper.is_silent_for(Duration::from_millis(300)) && helper.newest_child_is_stopped() {
            return seq;
        }
        helper.reply(seq);
    }
    panic!("no process was ever caught")
}

/// PID 1 stops everything that comes into its PID namespace.
pub const STOPPER: &str = "while :; do kill -STOP -1; done 2>/dev/null";

#[test]
fn a_container_that_stops_an_exec_on_its_way_holds_nobody_up() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan(STOPPER));
    let seq = stuck_exec(&bed, &mut helper, 2000);
    let mut other = Helper::connect(&bed.run_dir());
    assert_eq!(other.status().exit, None);
    let failure = helper.refusal(seq);
    assert_eq!(failure.errno, libc::ETIMEDOUT);
    let detail = failure.detail.unwrap();
    assert!(detail.contains("not started within 2 s"), "{detail}");
    assert!(detail.contains(failure.step.name()), "{detail}");
    assert!(detail.contains("a signal has stopped"), "{detail}");
    drop(other);
    // Stopped programs of execs that did start may be left; none that did not.
    let running = helper.status().running_execs.len();
    eventually("the process is reaped", || {
        helper.children().len() == running + 1
    });
    assert!(helper.children().contains(&launched.pid));
    helper.end();
}

#[test]
fn the_containers_end_answers_an_exec_on_its_way() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan(STOPPER));
    let seq = stuck_exec(&bed, &mut helper, 600_000);
    let mut other = Helper::connect(&bed.run_dir());
    assert_eq!(other.status().exit, None);
    assert!(helper.is_silent_for(Duration::ZERO), "it was held up");
    other.done(signal_to(Target::Container, libc::SIGKILL));
    helper.refusal(seq);
    eventually("the helper has ended", || helper.has_ended());
}

#[test]
fn an_exec_on_its_way_ends_with_the_connection_that_asked_for_it() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan(STOPPER));
    let mut other = Helper::connect(&bed.run_dir());
    stuck_exec(&bed, &mut other, 600_000);
    drop(other);
    let running = helper.status().running_execs.len();
    eventually("the process is reaped", || {
        helper.children().len() == running + 1
    });
    helper.end();
}

#[test]
fn an_exec_that_does_not_die_holds_nobody_up_and_is_reaped_later() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan(STOPPER));
    let freezer = ForeignFreezer::make(&hierarchies, &launched.pid.to_string());
    let seq = stuck_exec(&bed, &mut helper, 1500);
    let is_stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ")
    };
    // The newest; older ones are of execs that did start.
    let stuck = helper.children().into_iter().filter(is_stopped).max();
    freezer.freeze(stuck.unwrap());
    assert_eq!(helper.refusal(seq).errno, libc::ETIMEDOUT);
    assert_eq!(helper.status().exit, None);
    assert!(helper.children().contains(&stuck.unwrap()), "it is dead");
    freezer.thaw();
    let running = helper.status().running_execs.len();
    eventually("it is reaped", || helper.children().len() == running + 1);
    helper.end();
}

/// A container whose execs get stuck before they have joined it, and the directory of the freezer that
/// holds them: of v1, where the helper does not look when it has v2.
pub fn holding(
    hierarchies: &Hierarchies,
    bed: &Bed,
    zygote: &Zygote,
) -> (Helper, Launched, PathBuf) {
    let mut plan = bed.plan("exec sleep 1000");
    plan.stdin = true;
    plan.cgroup.every_hierarchy = true;
    let (helper, launched) = zygote.launch(&plan);
    let dir = hierarchies.freezer(plan.cgroup.path.as_ref().unwrap());
    freeze_v1(&dir);
    (helper, launched, dir)
}

/// Asks for an exec, and waits until its process is there and stuck.
pub fn ask_held_up(bed: &Bed, helper: &mut Helper, script: &str) -> (u64, u32) {
    let before = helper.children();
    let plan = bed.exec_plan("held", script);
    let seq = helper.ask(Call::Exec(Box::new(plan)));
    let mut stuck = None;
    eventually("its process is there", || {
        let new = |pid: &u32| !before.contains(pid);
        stuck = helper.children().into_iter().find(new);
        stuck.is_some_and(is_frozen)
    });
    (seq, stuck.unwrap())
}

/// Whether the v1 freezer holds a process.
fn is_frozen(pid: u32) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let is_of_test = |line: &str| line.contains("freezer:/littlebox/test/");
    table.lines().any(is_of_test)
}

/// What the descriptors of a process are, from the third on.
fn open_by(pid: u32) -> HashSet<PathBuf> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let fds = fds.map(|fd| fd.unwrap().path());
    let fds = fds.filter(|fd| {
        fd.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 2
    });
    fds.filter_map(|fd| std::fs::read_link(fd).ok()).collect()
}

#[test]
fn an_exec_on_its_way_keeps_nothing_open_of_the_helpers() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched, dir) = holding(&hierarchies, &bed, &zygote);
    let stdin = std::fs::read_link(format!("/proc/{}/fd/0", launched.pid)).unwrap();
    assert!(open_by(helper.pid).contains(&stdin), "its write end");
    let (seq, stuck) = ask_held_up(&bed, &mut helper, "true");
    let is_socket = |path: &&PathBuf| path.to_str().unwrap().starts_with("socket:");
    let (helpers, execs) = (open_by(helper.pid), open_by(stuck));
    let shared: Vec<_> = helpers.intersection(&execs).filter(is_socket).collect();
    assert_eq!(shared, Vec::<&PathBuf>::new());
    assert!(!execs.contains(&stdin));
    thaw_v1(&dir);
    assert!(matches!(helper.reply(seq).0, Reply::ExecStarted { .. }));
    helper.exec_exit("held");
    helper.end();
}

#[test]
fn a_signal_to_an_exec_on_its_way_reaches_its_program() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _, dir) = holding(&hierarchies, &bed, &zygote);
    let (seq, _) = ask_held_up(&bed, &mut helper, "exec sleep 1000");
    let mut other = Helper::connect(&bed.run_dir());
    let signalled = other.ask(signal_to(Target::Exec("held".to_owned()), libc::SIGTERM));
    // The signal was read when the next request is answered.
    let mut third = Helper::connect(&bed.run_dir());
    third.status();
    assert!(other.is_silent_for(Duration::ZERO));
    thaw_v1(&dir);
    assert!(matches!(helper.reply(seq).0, Reply::ExecStarted { .. }));
    assert_eq!(other.reply(signalled).0, Reply::Done);
    let record = helper.exec_exit("held");
    assert_eq!(record.status, ProcessExit::Signal(libc::SIGTERM));
    helper.end();
}

#[test]
fn a_kill_of_an_exec_on_its_way_ends_its_start() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched, dir) = holding(&hierarchies, &bed, &zygote);
    let (seq, _) = ask_held_up(&bed, &mut helper, "exec sleep 1000");
    let mut other = Helper::connect(&bed.run_dir());
    other.done(signal_to(Target::Exec("held".to_owned()), libc::SIGKILL));
    let failure = helper.refusal(seq);
    assert!(
        failure
            .detail
            .unwrap()
            .contains("killed before its program")
    );
    thaw_v1(&dir);
    eventually("it is reaped", || helper.children() == [launched.pid]);
    helper.end();
}

#[test]
fn a_signal_to_an_exec_that_does_not_start_is_answered() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _, dir) = holding(&hierarchies, &bed, &zygote);
    let (seq, _) = ask_held_up(&bed, &mut helper, "true");
    let mut other = Helper::connect(&bed.run_dir());
    let failure = other.refused(signal_to(Target::Exec("held".to_owned()), libc::SIGTERM));
    assert_eq!(failure.errno, libc::EAGAIN);
    assert_eq!(
        failure.detail.as_deref(),
        Some("the exec has not started yet")
    );
    thaw_v1(&dir);
    assert!(matches!(helper.reply(seq).0, Reply::ExecStarted { .. }));
    helper.exec_exit("held");
    helper.end();
}
