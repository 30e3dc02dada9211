//! Processes started inside a running container.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use crate::support::bed::{Bed, read_record};
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::sleeper;
use littlebox_protocol::{Call, Event, ProcessExit, Reply, Step, Target, TerminalSize};

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
    helper.finish();
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
    helper.finish();
}

#[test]
fn a_background_child_that_keeps_stdout_does_not_hold_an_exec() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.exec(&bed.exec_plan("quiet", "sleep 1000 & echo done"));
    let record = helper.exec_exit("quiet");
    assert!(record.output_truncated, "{record:?}");
    helper.exec(&bed.exec_plan("loud", "yes & exit 6"));
    let record = helper.exec_exit("loud");
    assert_eq!(record.status, ProcessExit::Code(6));
    assert!(record.output_truncated, "{record:?}");
    assert_eq!(bed.exec_output("quiet"), b"done\n");
    helper.finish();
}

#[test]
fn stdin_of_an_exec_is_written_and_closed() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("cat", "cat");
    plan.stdin = true;
    helper.exec(&plan);
    let target = Target::Exec("cat".to_owned());
    let stdin = helper.open_stdin(&target);
    rustix::io::write(&stdin, b"to the exec").unwrap();
    drop(stdin);
    assert_eq!(helper.status().running_execs, ["cat"]);
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exec_exit("cat").status, ProcessExit::Code(0));
    assert_eq!(bed.exec_output("cat"), b"to the exec");
    assert!(helper.status().running_execs.is_empty());
    helper.finish();
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
    let stdin = helper.open_stdin(&target);
    rustix::io::write(&stdin, b"hi\n").unwrap();
    assert_eq!(helper.exec_exit("tty").status, ProcessExit::Code(0));
    assert_eq!(
        bed.exec_output("tty"),
        b"10 20\r\nhi\r\ngot hi\r\n30 40\r\n"
    );
    helper.finish();
}

#[test]
fn an_exec_that_cannot_start_is_refused_with_its_step() {
    let (bed, _zygote, mut helper) = sleeper();
    let mut plan = bed.exec_plan("missing", "");
    plan.process.args = vec!["no-such-program".to_owned()];
    let failure = helper.refused(Call::Exec(Box::new(plan)));
    assert_eq!((failure.step, failure.errno), (Step::Exec, 2));
    let twice = bed.exec_plan("twice", "sleep 1000");
    helper.exec(&twice);
    let failure = helper.refused(Call::Exec(Box::new(twice)));
    assert!(failure.detail.unwrap().contains("runs already"));
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
    helper.finish();
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
    Helper::connect(&bed.run_dir()).finish();
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
    helper.finish();
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
    helper.finish();
    // The container's own program had memory enough.
    assert!(!bed.exit_record().oom_killed);
}

#[test]
fn an_exec_in_a_paused_container_is_refused() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.done(Call::Freeze { frozen: true });
    let failure = helper.refused(Call::Exec(Box::new(bed.exec_plan("paused", "true"))));
    assert_eq!(failure.detail.as_deref(), Some("the container is paused"));
    helper.done(Call::Freeze { frozen: false });
    helper.exec(&bed.exec_plan("resumed", "true"));
    assert_eq!(helper.exec_exit("resumed").status, ProcessExit::Code(0));
    helper.finish();
}

#[test]
fn an_exec_that_has_ended_cannot_be_signalled() {
    let (bed, _zygote, mut helper) = sleeper();
    helper.exec(&bed.exec_plan("short", "exit 3"));
    helper.exec_exit("short");
    let failure = helper.refused(Call::Signal {
        target: Target::Exec("short".to_owned()),
        signal: 15,
        all: false,
    });
    assert_eq!(failure.errno, libc::ESRCH);
    helper.finish();
}
