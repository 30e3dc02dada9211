//! The order in which the end of a container is written down, undone and told; and a start whose daemon
//! has gone.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::hierarchies::Hierarchies;
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::signals::{libc_signal, signal};
use littlebox_protocol::{Event, ExistingCgroup, First, LaunchPlan, ProcessExit};

/// A process of the host.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_exit_record_is_there_before_the_cgroup_goes() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let plan = bed.plan("exec sleep 1000");
    let (mut helper, launched) = zygote.launch(&plan);
    let cgroup = hierarchies.unified(plan.cgroup.path.as_ref().unwrap());
    // As long as its output is open, all is killed and nothing is settled.
    let path = format!("/proc/{}/fd/1", launched.pid);
    let output = std::fs::File::options().write(true).open(path).unwrap();
    helper.done(signal(libc_signal::KILL, false));
    let procs = cgroup.join("cgroup.procs");
    eventually("PID 1 has left", || {
        std::fs::read_to_string(&procs).unwrap().is_empty()
    });
    // Who comes into the cgroup before the helper has killed what is in it is killed too.
    eventually("it is reaped", || helper.children().is_empty());
    helper.status();
    let stays = Sleeper::start();
    std::fs::write(&procs, stays.0.id().to_string()).unwrap();
    drop(output);
    let record = bed.run_dir().join("exit.json");
    eventually("the record is there", || record.exists());
    assert!(cgroup.exists() && helper.is_silent_for(Duration::ZERO));
    drop(stays);
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
    assert!(!cgroup.exists(), "it was not waited for");
}

/// A start that gets stuck until its cgroup, the second, is thawed.
fn stuck_launch(
    hierarchies: &Hierarchies,
    plan: &mut LaunchPlan,
    zygote: &Zygote,
) -> (Helper, PathBuf) {
    plan.cgroup.existing = ExistingCgroup::Use;
    let cgroup = hierarchies.unified(plan.cgroup.path.as_ref().unwrap());
    std::fs::create_dir_all(&cgroup).unwrap();
    std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    let helper = zygote.fork();
    helper.send_first(&First::Launch(Box::new(plan.clone())), Vec::new());
    let procs = cgroup.join("cgroup.procs");
    eventually("its child is there", || {
        !std::fs::read_to_string(&procs).unwrap().is_empty()
    });
    (helper, cgroup)
}

#[test]
fn a_start_whose_daemon_has_gone_is_finished_and_found_by_the_next() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("echo runs; exec sleep 1000");
    let (helper, cgroup) = stuck_launch(&hierarchies, &mut plan, &zygote);
    let pid = helper.pid;
    drop(helper);
    // It listens before it builds, and answers when it has built.
    let mut next = Helper::connect(&bed.run_dir());
    std::fs::write(cgroup.join("cgroup.freeze"), "0").unwrap();
    let status = next.status();
    assert_eq!((status.launched.helper_pid, status.exit), (pid, None));
    eventually("its program runs", || bed.output() == b"runs\n");
    next.done(signal(libc_signal::KILL, true));
    assert!(matches!(next.event(), Event::Exited(_)));
    eventually("nothing is left", || !cgroup.exists());
}

#[test]
fn a_start_that_is_never_finished_is_undone_without_its_daemon() {
    let hierarchies = Hierarchies::ensure();
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("true");
    plan.start_timeout_ms = Some(1000);
    let (mut helper, cgroup) = stuck_launch(&hierarchies, &mut plan, &zygote);
    helper.hang_up();
    eventually("the helper has ended", || helper.has_ended());
    assert!(!bed.run_dir().join("helper.sock").exists());
    assert!(!cgroup.exists());
}
