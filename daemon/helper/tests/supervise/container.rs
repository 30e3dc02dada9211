//! A container's program under supervision: its output, its end, its helper.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use crate::support::bed::Bed;
use crate::support::log::{output_of, read_log, read_rotated};
use crate::support::process::{Helper, Zygote, eventually};
use crate::support::signals::{libc_signal, signal};
use littlebox_protocol::{
    Call, First, GATE_WINDOW, LogPlan, LogStream, ProcessExit, Reply, Step, Target, TerminalSize,
    ZygoteEvent,
};

#[test]
fn a_program_that_ends_leaves_output_record_and_nothing_else() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let plan = bed.plan("echo out; echo err >&2; printf tail; exit 7");
    let (mut helper, launched) = zygote.launch(&plan);
    assert_eq!(launched.helper_pid, helper.pid);
    let record = helper.exit();
    assert_eq!(record.status, ProcessExit::Code(7));
    assert!(!record.oom_killed && !record.timed_out && !record.output_truncated);
    assert_eq!(record.lost_output_bytes, 0);
    assert_eq!(bed.exit_record(), record);
    let records = read_log(&bed.log());
    assert_eq!(output_of(&records, LogStream::Stdout), b"out\ntail");
    assert_eq!(output_of(&records, LogStream::Stderr), b"err\n");
    for (_, cgroup) in launched.cgroups {
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
    }
    assert!(!bed.run_dir().join("helper.sock").exists());
    let (reaped, _) = zygote.event();
    let status = ProcessExit::Code(0);
    assert_eq!(
        reaped,
        ZygoteEvent::Reaped {
            pid: helper.pid,
            status
        }
    );
}

#[test]
fn a_log_is_there_even_when_nothing_was_printed() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 0.2"));
    assert!(bed.log().exists());
    helper.exit();
    assert_eq!(bed.output(), b"");
}

#[test]
fn random_bytes_of_a_program_round_trip() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut bytes = vec![0; 3 << 20];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap();
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).unwrap();
    }
    let mut plan = bed.plan("cat");
    plan.stdin = true;
    let (mut helper, _) = zygote.launch(&plan);
    let target = Target::Container;
    let stdin = helper.open_stdin(&target);
    write_all(&stdin, &bytes);
    drop(stdin);
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exit().status, ProcessExit::Code(0));
    assert!(bed.output() == bytes, "output differs from input");
}

/// Writes to a descriptor that is non-blocking.
fn write_all(fd: &std::os::fd::OwnedFd, mut bytes: &[u8]) {
    use rustix::event::{PollFd, PollFlags, poll};
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::new(fd, PollFlags::OUT)], None).unwrap();
            }
            Err(errno) => panic!("write: {errno}"),
        }
    }
}

#[test]
fn the_log_rotates_while_a_program_prints() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("seq 1 20000");
    plan.log.max_size = Some(64 * 1024);
    plan.log.max_files = 100;
    let (mut helper, _) = zygote.launch(&plan);
    helper.exit();
    let expected: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert!(bed.log().with_extension("log.1").exists());
    let output = output_of(&read_rotated(&bed.log()), LogStream::Stdout);
    assert!(output == expected.as_bytes(), "a gap or a double line");
}

#[test]
fn signals_reach_pid_1_and_are_its_exit_status() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut helper, _) = zygote.launch(&bed.plan(script));
    let signal = |signal| Call::Signal {
        target: Target::Container,
        signal,
        all: false,
    };
    eventually("the trap is set", || bed.output() == b"ready\n");
    helper.done(signal(libc_signal::TERM));
    assert_eq!(helper.exit().status, ProcessExit::Code(42));

    let bed = Bed::new();
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    helper.done(signal(libc_signal::KILL));
    assert_eq!(helper.exit().status, ProcessExit::Signal(libc_signal::KILL));
    assert_eq!(
        bed.exit_record().status,
        ProcessExit::Signal(libc_signal::KILL)
    );
}

/// Signal numbers.
#[test]
fn kill_of_all_ends_the_whole_container() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100 & sleep 100 & wait"));
    helper.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: true,
    });
    assert_eq!(helper.exit().status, ProcessExit::Signal(9));
}

#[test]
fn what_pid_1_leaves_behind_ends_with_it_and_does_not_hold_it_up() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100 & echo done"));
    let record = helper.exit();
    assert!(!record.output_truncated);
    assert_eq!(bed.output(), b"done\n");
}

#[test]
fn a_gate_holds_the_program_until_its_reader_has_caught_up() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan(
        "head -c 20000000 /proc/self/exe; dd if=/bin/busybox bs=1M count=1; \
                             i=0; while [ $i -lt 20 ]; do cat /bin/busybox; i=$((i+1)); done",
    );
    plan.gate = true;
    let (mut helper, _) = zygote.launch(&plan);
    let size = || std::fs::metadata(bed.log()).unwrap().len();
    eventually("the window is full", || size() > GATE_WINDOW);
    std::thread::sleep(Duration::from_millis(300));
    let held = size();
    assert!(
        held < GATE_WINDOW + 4 * 1024 * 1024,
        "{held} bytes in spite of the gate"
    );
    helper.done(Call::Gate {
        target: Target::Container,
        consumed: Some(held),
    });
    eventually("it goes on", || size() > held + 1024 * 1024);
    assert!(!helper.has_ended());
    helper.done(Call::Gate {
        target: Target::Container,
        consumed: None,
    });
    helper.exit();
}

#[test]
fn a_gate_is_lifted_with_the_connection_that_holds_it() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan =
        bed.plan("i=0; while [ $i -lt 30 ]; do cat /bin/busybox; i=$((i+1)); done; sleep 1");
    plan.gate = true;
    let (helper, _) = zygote.launch(&plan);
    let mut other = Helper::connect(&bed.run_dir());
    assert_eq!(other.status().id, plan.id);
    drop(helper);
    assert_eq!(other.exit().status, ProcessExit::Code(0));
}

#[test]
fn a_restarted_daemon_finds_the_container_again() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("cat; exit 3");
    plan.stdin = true;
    let (helper, launched) = zygote.launch(&plan);
    drop(helper);
    let mut helper = Helper::connect(&bed.run_dir());
    let status = helper.status();
    assert_eq!(status.launched, launched);
    assert_eq!((status.exit, status.frozen), (None, false));
    let target = Target::Container;
    let stdin = helper.open_stdin(&target);
    write_all(&stdin, b"after the restart\n");
    drop(stdin);
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exit().status, ProcessExit::Code(3));
    assert_eq!(bed.output(), b"after the restart\n");
}

#[test]
fn a_container_that_ends_while_nobody_is_connected_leaves_its_record() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (helper, _) = zygote.launch(&bed.plan("sleep 0.3; exit 5"));
    let pid = helper.pid;
    drop(helper);
    let (reaped, _) = zygote.event();
    assert_eq!(
        reaped,
        ZygoteEvent::Reaped {
            pid,
            status: ProcessExit::Code(0)
        }
    );
    assert_eq!(bed.exit_record().status, ProcessExit::Code(5));
}

#[test]
fn helpers_survive_their_zygote() {
    let (bed, mut zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    zygote.kill();
    assert_eq!(helper.status().exit, None);
    helper.done(Call::Signal {
        target: Target::Container,
        signal: 9,
        all: false,
    });
    assert_eq!(helper.exit().status, ProcessExit::Signal(9));

    let (bed, mut zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    assert!(zygote.hang_up().success());
    helper.finish();
}

#[test]
fn a_launch_that_fails_names_its_step_and_leaves_nothing() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("true");
    plan.process.args = vec!["/no/such/program".to_owned()];
    let mut helper = zygote.fork();
    helper.send_first(&First::Launch(Box::new(plan)), Vec::new());
    let (Reply::Failed(failure), _) = helper.reply(0) else {
        panic!("it was launched")
    };
    assert_eq!((failure.step, failure.errno), (Step::Exec, 2));
    eventually("the helper has ended", || helper.has_ended());
    assert!(!bed.run_dir().join("helper.sock").exists());

    std::fs::remove_dir_all(bed.run_dir()).unwrap();
    let mut helper = zygote.fork();
    helper.send_first(&First::Launch(Box::new(bed.plan("true"))), Vec::new());
    let (Reply::Failed(failure), _) = helper.reply(0) else {
        panic!("it was launched")
    };
    assert_eq!((failure.step, failure.errno), (Step::RunDir, 2));
}

#[test]
fn a_plan_larger_than_a_datagram_arrives() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("echo ${#LARGE}");
    let large = "x".repeat(100_000);
    plan.process.env.push(format!("LARGE={large}"));
    let (mut helper, _) = zygote.launch(&plan);
    helper.exit();
    assert_eq!(bed.output(), b"100000\n");
}

#[test]
fn a_terminal_echoes_resizes_and_ends() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let plan = bed.terminal_plan("cat; stty size; echo err >&2; exit 4");
    let (mut helper, _) = zygote.launch(&plan);
    let target = Target::Container;
    let stdin = helper.open_stdin(&target);
    write_all(&stdin, b"typed\n");
    eventually("echo and output", || bed.output() == b"typed\r\ntyped\r\n");
    let size = TerminalSize {
        rows: 50,
        cols: 132,
    };
    helper.done(Call::Resize {
        target: target.clone(),
        size,
    });
    helper.done(Call::CloseStdin { target });
    assert_eq!(helper.exit().status, ProcessExit::Code(4));
    assert_eq!(bed.output(), b"typed\r\ntyped\r\n50 132\r\nerr\r\n");
}

#[test]
fn a_terminal_without_stdin_lets_nobody_type() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.terminal_plan("sleep 100");
    plan.stdin = false;
    let (mut helper, _) = zygote.launch(&plan);
    let target = Target::Container;
    for call in [
        Call::OpenStdin {
            target: target.clone(),
        },
        Call::CloseStdin { target },
    ] {
        let (Reply::Failed(failure), _) = helper.call(call) else {
            panic!("not refused")
        };
        assert!(failure.detail.unwrap().contains("stdin was not asked for"));
    }
    helper.finish();
}

#[test]
fn the_kernels_own_names_and_the_root_are_handed_out() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("echo here > /tmp/file; sleep 100"));
    let (Reply::Hostname { hostname, .. }, _) = helper.call(Call::Hostname) else {
        panic!("no hostname")
    };
    assert_eq!(hostname, "box");
    let root = helper.done(Call::OpenRoot).remove(0);
    let flags = rustix::fs::OFlags::PATH;
    eventually("the file is there", || {
        rustix::fs::openat(&root, "tmp/file", flags, rustix::fs::Mode::empty()).is_ok()
    });
    helper.finish();
}

#[test]
fn a_full_disk_holds_no_program_up() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let disk_dir = tempfile::tempdir().unwrap();
    let disk = crate::support::SmallDisk::mount(disk_dir.path());
    let mut plan = bed.plan("seq 1 50000; echo end");
    plan.log.path = disk.path().join("container.log");
    let (mut helper, _) = zygote.launch(&plan);
    let record = helper.exit();
    assert_eq!(record.status, ProcessExit::Code(0));
    let all: u64 = (1..=50000u64)
        .map(|n| n.to_string().len() as u64 + 1)
        .sum::<u64>()
        + 4;
    let kept = output_of(&read_log(&plan.log.path), LogStream::Stdout).len() as u64;
    assert_eq!(record.lost_output_bytes, all - kept);
}

/// Measured, not asserted: what one idle helper costs.
#[test]
fn memory_of_idle_helpers() {
    let zygote = Zygote::start();
    let mut helpers: Vec<(Bed, Helper)> = (0..4)
        .map(|_| {
            let bed = Bed::new();
            let (helper, _) = zygote.launch(&bed.plan("echo hello; sleep 100"));
            (bed, helper)
        })
        .collect();
    // Until after the tidying.
    std::thread::sleep(Duration::from_millis(1500));
    for (_, helper) in &mut helpers {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", helper.pid)).unwrap();
        let of = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        println!(
            "idle helper: Pss {} Rss {} Private_Dirty {}",
            of("Pss:"),
            of("Rss:"),
            of("Private_Dirty:")
        );
    }
    for (_, mut helper) in helpers {
        helper.done(Call::Signal {
            target: Target::Container,
            signal: 9,
            all: false,
        });
        helper.exit();
    }
}

#[test]
fn a_signal_to_a_container_whose_program_has_ended_is_esrch() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    // Without a PID namespace a process survives that holds the output open while it drains.
    let mut plan = bed.plan("exec sleep 100");
    plan.stdin = true;
    let (mut helper, launched) = zygote.launch(&plan);
    let path = format!("/proc/{}/fd/1", launched.pid);
    let output = std::fs::File::options().write(true).open(path).unwrap();
    helper.done(signal(libc_signal::KILL, false));
    eventually("PID 1 has ended", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", launched.pid));
        stat.is_ok_and(|stat| stat.contains(") Z "))
            || !std::path::Path::new(&format!("/proc/{}", launched.pid)).exists()
    });
    for all in [false, true] {
        for number in [libc_signal::TERM, libc_signal::KILL] {
            let (Reply::Failed(failure), _) = helper.call(signal(number, all)) else {
                panic!("signalled")
            };
            assert_eq!(failure.errno, libc::ESRCH);
        }
    }
    drop(output);
    helper.exit();
}

/// CPU time of a process so far (proc_pid_stat(5), fields 14 and 15).
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 (time(7)).
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_container_with_little_cpu_costs_the_helper_little() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("while :; do cat /bin/busybox; done");
    plan.cgroup.resources.cpu_quota_us = Some(5_000);
    plan.cgroup.resources.cpu_period_us = Some(100_000);
    plan.log.max_size = Some(1 << 20);
    plan.log.max_files = 1;
    let (mut helper, _) = zygote.launch(&plan);
    let mut yes = bed.exec_plan("yes", "yes");
    yes.log = LogPlan {
        path: bed.exec_log("yes"),
        ..plan.log.clone()
    };
    helper.exec(&yes);
    let (begun, before) = (Instant::now(), cpu_of(helper.pid));
    while begun.elapsed() < Duration::from_secs(3) {
        helper.status();
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = (cpu_of(helper.pid) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core");
    helper.done(signal(libc_signal::KILL, false));
    eventually("the helper has ended", || helper.has_ended());
}

#[test]
fn output_of_a_container_with_little_cpu_is_complete() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let mut plan = bed.plan("seq 1 200000");
    plan.cgroup.resources.cpu_quota_us = Some(5_000);
    let (mut helper, _) = zygote.launch(&plan);
    assert_eq!(helper.exit().status, ProcessExit::Code(0));
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(bed.output() == expected.as_bytes(), "some of it is missing");
}
