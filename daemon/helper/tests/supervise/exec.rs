//! Processes started inside a running container.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use crate::support::bed::{Bed, read_record};
use crate::support::process::{ForeignFreezer, Helper, Zygote, eventually};
use littlebox_helper::protocol::{
    Call, Event, ExecPlan, ProcessExit, Reply, Step, Target, TerminalSize,
};

/// A container that sleeps, and its helper.
fn sleeper() -> (Bed, Zygote, Helper) {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (helper, _) = zygote.launch(&bed.plan("sleep 1000"));
    (bed, zygote, helper)
}

fn end(mut helper: Helper) {
    helper.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: false,
    });
    helper.exit();
}

fn refusal(helper: &mut Helper, plan: &ExecPlan) -> littlebox_helper::protocol::StepFailure {
    match helper.call(Call::Exec(Box::new(plan.clone()))) {
        (Reply::Failed(failure), _) => failure,
        (other, _) => panic!("not refused: {other:?}"),
    }
}

#[test]
fn exit_codes_and_output_of_execs_are_true() {
    let (bed, _zygote, mut helper) = sleeper();
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 137, 254, 255] {
        let id = format!("code{code}");
        helper.exec(&bed.exec_plan(&id, &format!("echo {code}; exit {code}")));
        let record = helper.exec_exit(&id);
        assert_eq!(record.status, ProcessExit::Code(code));
        assert_eq!(read_record(&bed.exec_record(&id)), record);
        assert_eq!(bed.exec_output(&id), format!("{code}\n").as_bytes());
    }
    end(helper);
}

#[test]
fn signals_end_execs() {
    let (bed, _zygote, mut helper) = sleeper();
    for signal in [1, 2, 9, 15, 34, 64] {
        let id = format!("signal{signal}");
        helper.exec(&bed.exec_plan(&id, "exec sleep 1000"));
        let target = Target::Exec(id.clone());
        helper.done(Call::Signal {
            target,
            signal,
            all: false,
        });
        assert_eq!(helper.exec_exit(&id).status, ProcessExit::Signal(signal));
    }
    for signal in [0, 65, -1] {
        let target = Target::Container;
        let reply = helper
            .call(Call::Signal {
                target,
                signal,
                all: false,
            })
            .0;
        assert!(matches!(reply, Reply::Failed(_)), "{signal} is no signal");
    }
    end(helper);
}

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
    end(helper);
}

#[test]
fn a_background_child_that_keeps_stdout_does_not_hold_an_exec() {
    let (bed, _zygote, mut helper) = sleeper();
    let begun = Instant::now();
    helper.exec(&bed.exec_plan("quiet", "sleep 1000 & echo done"));
    let record = helper.exec_exit("quiet");
    assert!(record.output_truncated, "{record:?}");
    helper.exec(&bed.exec_plan("loud", "yes & exit 6"));
    let record = helper.exec_exit("loud");
    assert_eq!(record.status, ProcessExit::Code(6));
    assert!(record.output_truncated, "{record:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(bed.exec_output("quiet"), b"done\n");
    end(helper);
}

#[test]
fn stdin_of_an_exec_is_written_and_closed() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("cat", "cat");
    plan.stdin = true;
    helper.exec(&plan);
    let target = Target::Exec("cat".to_owned());
    let stdin = helper
        .done(Call::OpenStdin {
            target: target.clone(),
        })
        .remove(0);
    rustix::io::write(&stdin, b"to the exec").unwrap();
    drop(stdin);
    assert_eq!(helper.status().running_execs, ["cat"]);
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exec_exit("cat").status, ProcessExit::Code(0));
    assert_eq!(bed.exec_output("cat"), b"to the exec");
    assert!(helper.status().running_execs.is_empty());
    end(helper);
}

#[test]
fn an_exec_with_a_terminal() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("tty", "stty size; read line; echo got $line; stty size");
    plan.stdin = true;
    plan.process.terminal = Some(TerminalSize { rows: 10, cols: 20 });
    helper.exec(&plan);
    eventually("it has its size", || bed.exec_output("tty") == b"10 20\r\n");
    let target = Target::Exec("tty".to_owned());
    let size = TerminalSize { rows: 30, cols: 40 };
    helper.done(Call::Resize {
        target: target.clone(),
        size,
    });
    let stdin = helper.done(Call::OpenStdin { target }).remove(0);
    rustix::io::write(&stdin, b"hi\n").unwrap();
    assert_eq!(helper.exec_exit("tty").status, ProcessExit::Code(0));
    assert_eq!(
        bed.exec_output("tty"),
        b"10 20\r\nhi\r\ngot hi\r\n30 40\r\n"
    );
    end(helper);
}

#[test]
fn an_exec_that_cannot_start_is_refused_with_its_step() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("missing", "");
    plan.process.args = vec!["no-such-program".to_owned()];
    let failure = refusal(&mut helper, &plan);
    assert_eq!((failure.step, failure.errno), (Step::Exec, 2));
    let twice = bed.exec_plan("twice", "sleep 1000");
    helper.exec(&twice);
    assert!(
        refusal(&mut helper, &twice)
            .detail
            .unwrap()
            .contains("runs already")
    );
    helper.done(Call::Signal {
        target: Target::Exec("twice".to_owned()),
        signal: 9,
        all: false,
    });
    helper.exec_exit("twice");
    let target = Target::Exec("twice".to_owned());
    let reply = helper
        .call(Call::Signal {
            target,
            signal: 9,
            all: false,
        })
        .0;
    assert!(matches!(reply, Reply::Failed(_)));
    end(helper);
}

#[test]
fn execs_end_with_the_container_each_with_its_record() {
    let (bed, _zygote, mut helper) = sleeper();
    let ids = ["one", "two", "three"];
    for id in ids {
        helper.exec(&bed.exec_plan(id, "exec sleep 1000"));
    }
    helper.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: false,
    });
    let mut ended = Vec::new();
    for _ in ids {
        let Event::ExecExited { id, record } = helper.event() else {
            panic!("the container's end comes last")
        };
        assert_eq!(record.status, ProcessExit::Signal(9));
        assert_eq!(read_record(&bed.exec_record(&id)), record);
        ended.push(id);
    }
    ended.sort();
    assert_eq!(ended, ["one", "three", "two"]);
    assert_eq!(helper.exit().status, ProcessExit::Signal(9));
}

#[test]
fn an_exec_that_ends_while_the_daemon_is_away_leaves_its_record() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.exec(&bed.exec_plan("alone", "sleep 0.3; echo late; exit 9"));
    drop(helper);
    eventually("the record is there", || bed.exec_record("alone").exists());
    assert_eq!(
        read_record(&bed.exec_record("alone")).status,
        ProcessExit::Code(9)
    );
    assert_eq!(bed.exec_output("alone"), b"late\n");
    end(Helper::connect(&bed.run_dir()));
}

#[test]
fn many_execs_one_after_the_other_leave_no_descriptor() {
    let (bed, _zygote, mut helper) = sleeper();
    let fds = |pid| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    // A descriptor beside a message is closed just after it was sent.
    std::thread::sleep(Duration::from_millis(200));
    let before = fds(helper.pid);
    for n in 0..20 {
        let id = format!("n{n}");
        helper.exec(&bed.exec_plan(&id, "true"));
        assert_eq!(helper.exec_exit(&id).status, ProcessExit::Code(0));
    }
    eventually("no descriptor is left", || fds(helper.pid) == before);
    end(helper);
}

#[test]
fn an_exec_over_the_memory_limit_is_told_as_such_and_the_next_one_is_not() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("sleep 1000");
    plan.cgroup.resources.memory = Some(32 << 20);
    plan.cgroup.resources.memory_and_swap = Some(32 << 20);
    let (mut helper, _) = zygote.launch(&plan);
    let greedy = "exec dd if=/dev/zero of=/dev/null bs=100M count=1";
    helper.exec(&bed.exec_plan("greedy", greedy));
    let record = helper.exec_exit("greedy");
    assert_eq!(record.status, ProcessExit::Signal(9));
    assert!(record.oom_killed);
    helper.exec(&bed.exec_plan("killed", "kill -9 $$"));
    let record = helper.exec_exit("killed");
    assert_eq!(record.status, ProcessExit::Signal(9));
    assert!(!record.oom_killed);
    end(helper);
    // The container's own program had memory enough.
    assert!(!bed.exit_record().oom_killed);
}

#[test]
fn an_exec_in_a_paused_container_is_refused() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.done(Call::Freeze { frozen: true });
    let failure = refusal(&mut helper, &bed.exec_plan("paused", "true"));
    assert_eq!(failure.detail.as_deref(), Some("the container is paused"));
    helper.done(Call::Freeze { frozen: false });
    helper.exec(&bed.exec_plan("resumed", "true"));
    assert_eq!(helper.exec_exit("resumed").status, ProcessExit::Code(0));
    end(helper);
}

/// The children of a helper.
fn children(helper: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{helper}/task/{helper}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// The exec is asked for again until the container has caught its process before the program ran; then
/// the request is still open.
fn stuck_exec(bed: &Bed, helper: &mut Helper, start_timeout_ms: u64) -> u64 {
    for n in 0..100 {
        let mut plan = bed.exec_plan(&format!("stuck{n}"), "exec sleep 1000");
        plan.start_timeout_ms = Some(start_timeout_ms);
        let seq = helper.ask(Call::Exec(Box::new(plan)));
        if helper.is_silent_for(Duration::from_millis(300)) {
            return seq;
        }
        helper.reply(seq);
    }
    panic!("no process was ever caught")
}

/// PID 1 stops everything that comes into its PID namespace.
const STOPPER: &str = "while :; do kill -STOP -1; done 2>/dev/null";

#[test]
fn a_container_that_stops_an_exec_on_its_way_holds_nobody_up() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan(STOPPER));
    let begun = Instant::now();
    let seq = stuck_exec(&bed, &mut helper, 2000);
    let mut other = Helper::connect(&bed.run_dir());
    let asked = Instant::now();
    assert_eq!(other.status().exit, None);
    assert!(asked.elapsed() < Duration::from_millis(500));
    let (Reply::Failed(failure), _) = helper.reply(seq) else {
        panic!("it started")
    };
    assert_eq!(failure.errno, libc::ETIMEDOUT);
    let detail = failure.detail.unwrap();
    assert!(detail.contains("not started within 2 s"), "{detail}");
    assert!(detail.contains(failure.step.name()), "{detail}");
    assert!(detail.contains("a signal has stopped"), "{detail}");
    assert!(begun.elapsed() < Duration::from_secs(50));
    drop(other);
    // Stopped programs of execs that did start may be left; none that did not.
    let running = helper.status().running_execs.len();
    eventually("the process is reaped", || {
        children(helper.pid).len() == running + 1
    });
    assert!(children(helper.pid).contains(&launched.pid));
    helper.end();
}

#[test]
fn the_containers_end_answers_an_exec_on_its_way() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan(STOPPER));
    let seq = stuck_exec(&bed, &mut helper, 600_000);
    let mut other = Helper::connect(&bed.run_dir());
    other.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: false,
    });
    assert!(matches!(helper.reply(seq), (Reply::Failed(_), _)));
    eventually("the helper has ended", || helper.has_ended());
}

#[test]
fn an_exec_on_its_way_ends_with_the_connection_that_asked_for_it() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan(STOPPER));
    let mut other = Helper::connect(&bed.run_dir());
    stuck_exec(&bed, &mut other, 600_000);
    drop(other);
    let running = helper.status().running_execs.len();
    eventually("the process is reaped", || {
        children(launched.helper_pid).len() == running + 1
    });
    helper.end();
}

#[test]
fn an_exec_that_does_not_die_holds_nobody_up_and_is_reaped_later() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, launched) = zygote.launch(&bed.plan(STOPPER));
    let Some(freezer) = ForeignFreezer::make(&launched.pid.to_string()) else {
        return helper.end();
    };
    let seq = stuck_exec(&bed, &mut helper, 1500);
    let is_stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ")
    };
    // The newest; older ones are of execs that did start.
    let stuck = children(helper.pid).into_iter().filter(is_stopped).max();
    freezer.freeze(stuck.unwrap());
    let asked = Instant::now();
    let (Reply::Failed(failure), _) = helper.reply(seq) else {
        panic!("it started")
    };
    assert_eq!(failure.errno, libc::ETIMEDOUT);
    assert!(asked.elapsed() < Duration::from_secs(4));
    let asked = Instant::now();
    assert_eq!(helper.status().exit, None);
    assert!(asked.elapsed() < Duration::from_millis(500));
    assert!(children(helper.pid).contains(&stuck.unwrap()), "it is dead");
    freezer.thaw();
    let running = helper.status().running_execs.len();
    eventually("it is reaped", || children(helper.pid).len() == running + 1);
    helper.end();
}

#[test]
fn an_exec_that_has_ended_cannot_be_signalled() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.exec(&bed.exec_plan("short", "exit 3"));
    helper.exec_exit("short");
    let reply = helper.call(Call::Signal {
        target: Target::Exec("short".to_owned()),
        signal: 15,
        all: false,
    });
    let (Reply::Failed(failure), _) = reply else {
        panic!("signalled")
    };
    assert_eq!(failure.errno, libc::ESRCH);
    end(helper);
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

#[test]
fn a_time_limit_ends_all_that_the_exec_has_started() {
    let (bed, _zygote, mut helper) = sleeper();
    let [a, b, c, d] = [1, 2, 3, 4].map(unique);
    let script = format!(
        "busybox setsid sleep {a} & sleep {b} & sh -c 'busybox setsid sleep {c} &'; echo on; sleep {d}"
    );
    let mut plan = bed.exec_plan("slow", &script);
    plan.timeout_ms = Some(1500);
    let (reply, _) = helper.call(Call::Exec(Box::new(plan)));
    let Reply::ExecStarted { warnings, .. } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(warnings, Vec::<String>::new());
    eventually("they run", || {
        [a, b, c, d]
            .iter()
            .all(|n| !running(&format!("sleep {n}")).is_empty())
    });
    let record = helper.exec_exit("slow");
    assert!(record.timed_out && !record.output_truncated, "{record:?}");
    eventually("all have ended", || {
        [a, b, c, d]
            .iter()
            .all(|n| running(&format!("sleep {n}")).is_empty())
    });
    eventually("its cgroup is gone", || own_cgroups(&mut helper).is_empty());
    assert_eq!(helper.status().exit, None);
    end(helper);
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
    let mut plan = bed.exec_plan(
        "quick",
        &format!("{command} >/dev/null 2>&1 & echo $!; sleep 1"),
    );
    plan.timeout_ms = Some(60_000);
    helper.exec(&plan);
    eventually("it has a cgroup", || !own_cgroups(&mut helper).is_empty());
    assert_eq!(helper.exec_exit("quick").status, ProcessExit::Code(0));
    eventually("that is gone", || own_cgroups(&mut helper).is_empty());
    assert_eq!(running(&command).len(), 1);
    end(helper);
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
    let script = format!("busybox setsid sleep {a} & sleep {b}");
    let mut plan = bed.exec_plan("slow", &script);
    plan.timeout_ms = Some(1000);
    let (reply, _) = helper.call(Call::Exec(Box::new(plan)));
    let Reply::ExecStarted { warnings, .. } = reply else {
        panic!("{reply:?}")
    };
    assert!(warnings[0].contains("time limit"), "{warnings:?}");
    eventually("they run", || {
        [a, b]
            .iter()
            .all(|n| !running(&format!("sleep {n}")).is_empty())
    });
    assert!(helper.exec_exit("slow").timed_out);
    eventually("all have ended", || {
        [a, b]
            .iter()
            .all(|n| running(&format!("sleep {n}")).is_empty())
    });
    end(helper);
}
