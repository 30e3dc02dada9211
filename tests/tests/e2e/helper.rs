//! Helpers and the zygote: what they are, and what is seen when one of them dies.

use std::fs;

use littlebox_tests::prelude::*;

#[test]
fn a_killed_helper_is_an_unknown_exit_and_never_zero() {
    let t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let exec = t.exec_start(&c, &json!({"command": ["sleep", "1000"]}));
    proc::kill(container.helper_pid.expect("a helper"), Signal::KILL);
    let exit = t.exit(&c);
    let ExitStatus::Unknown { detail } = &exit.status else {
        panic!("{exit:?}");
    };
    assert!(!detail.is_empty());
    assert_eq!(t.state(&c), ContainerState::Exited);
    proc::until("its processes are gone", || {
        !proc::alive(pid1(&container)) && !proc::alive(exec.pid.expect("it ran"))
    });
    let exec = t.exec_wait(&exec.id.to_string());
    assert!(matches!(
        exec.exit.expect("it ended").status,
        ExitStatus::Unknown { .. } | ExitStatus::Signaled { .. }
    ));
    // It starts again like any other.
    let again: Container = t
        .post(&format!("/v1/containers/{c}/start"))
        .expect(200)
        .json();
    assert_eq!(again.summary.state, ContainerState::Running);
    t.finish();
}

/// Those that end a process which does not care, and that a machine or a terminal sends.
const SIGNALS: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::ALARM,
    Signal::USR1,
    Signal::TSTP,
];

#[test]
fn a_helper_outlives_the_signals_of_a_shutdown_and_records_the_true_end() {
    let mut t = Bed::new();
    let (killed, asked) = (t.sleeper(), t.sleeper());
    let signal_helpers = || {
        for container in [&killed, &asked] {
            for signal in SIGNALS {
                proc::kill(container.helper_pid.expect("a helper"), signal);
            }
        }
    };
    signal_helpers();
    assert_eq!(t.exec(&id(&killed), &["echo", "fine"]), "fine\n");
    // What the helper starts has none of its signals blocked.
    let blocked = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\t\n'";
    let none = "SigBlk:0000000000000000SigIgn:0000000000000000";
    assert_eq!(t.exec(&id(&killed), &["sh", "-c", blocked]), none);
    assert_eq!(t.sh(blocked), none);
    t.kill9();
    signal_helpers();
    proc::kill(pid1(&killed), Signal::KILL);
    proc::kill(pid1(&asked), Signal::TERM);
    proc::until("both have ended", || {
        !proc::alive(pid1(&killed)) && !proc::alive(pid1(&asked))
    });
    t.start_again();
    let exit = t.exit(&id(&killed));
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 9, .. }),
        "{exit:?}"
    );
    assert_eq!(code(&t.exit(&id(&asked))), Some(0));
    t.finish();
}

#[test]
fn helper_and_daemon_killed_together_is_an_unknown_exit() {
    let mut t = Bed::new();
    let container = t.sleeper();
    t.kill9();
    proc::kill(container.helper_pid.expect("a helper"), Signal::KILL);
    proc::until("the helper is gone", || {
        !proc::alive(container.helper_pid.expect("a helper"))
    });
    t.start_again();
    let exit = t.exit(&id(&container));
    assert!(
        matches!(exit.status, ExitStatus::Unknown { .. }),
        "{exit:?}"
    );
    proc::until("its processes are gone", || !proc::alive(pid1(&container)));
    t.finish();
}

#[test]
fn helper_and_program_killed_while_the_daemon_is_away_is_an_unknown_exit() {
    let mut t = Bed::new();
    let container = t.sleeper();
    t.kill9();
    for pid in [container.helper_pid.expect("a helper"), pid1(&container)] {
        proc::kill(pid, Signal::KILL);
    }
    proc::until("both are gone", || !proc::alive(pid1(&container)));
    t.start_again();
    let exit = t.exit(&id(&container));
    assert!(
        matches!(exit.status, ExitStatus::Unknown { .. }),
        "{exit:?}"
    );
    t.finish();
}

#[test]
fn a_killed_zygote_is_replaced_and_running_containers_do_not_notice() {
    let t = Bed::new();
    let container = t.sleeper();
    let zygote = t.system().zygote_pid.expect("a zygote");
    proc::kill(zygote, Signal::TERM);
    assert_eq!(t.sh("echo deaf"), "deaf\n");
    assert_eq!(t.system().zygote_pid, Some(zygote), "SIGTERM has ended it");
    proc::kill(zygote, Signal::KILL);
    assert_eq!(t.exec(&id(&container), &["echo", "fine"]), "fine\n");
    // Health does not tell of it for good: whoever asks brings another about.
    proc::until("there is another zygote", || {
        let _health = t.get("/v1/health").expect(200);
        t.system().zygote_pid != Some(zygote)
    });
    proc::kill(t.system().zygote_pid.unwrap(), Signal::KILL);
    assert_eq!(t.sh("echo new"), "new\n");
    let _health = t.get("/v1/health").expect(200);
    t.remove(&id(&container));
    t.finish();
}

#[test]
fn a_helper_is_outside_the_containers_cgroup_and_not_dumpable() {
    let t = Bed::new();
    let container = t.sleeper();
    let helper = container.helper_pid.expect("a helper");
    assert!(
        !proc::cgroup(helper).contains(&id(&container)),
        "{}",
        proc::cgroup(helper)
    );
    assert!(proc::cgroup(pid1(&container)).contains(&id(&container)));
    // What is not dumpable belongs to root in /proc, whoever runs it; so look at the memory itself:
    // the executable is a sealed memfd, which nobody can rewrite (CVE-2019-5736).
    let exe = fs::read_link(format!("/proc/{helper}/exe")).unwrap();
    assert!(exe.to_string_lossy().starts_with("/memfd:"), "{exe:?}");
    let write = fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{helper}/exe"));
    assert!(write.is_err());
    assert_eq!(proc::status(helper)["Threads"], "1");
    t.finish();
}

#[test]
fn the_helper_holds_no_descriptor_it_does_not_need() {
    let t = Bed::new();
    let container = t.sleeper();
    let held = proc::descriptors(container.helper_pid.expect("a helper"));
    assert!(held.len() <= 24, "{held:?}");
    for fd in &held {
        let fd = fd.to_string_lossy();
        assert!(!fd.ends_with(".db") && !fd.ends_with("/sock"), "{held:?}");
    }
    t.finish();
}

#[test]
fn the_exit_record_is_there_before_anyone_is_told() {
    let mut t = Bed::new();
    let container = t.start(&busybox(&["sh", "-c", "sleep 0.5; exit 3"]));
    t.kill9();
    let record = t
        .dirs
        .run_path
        .join(format!("run/c/{}/exit.json", id(&container)));
    proc::until("the record is written", || record.exists());
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"code\":3"), "{text}");
    t.start_again();
    assert_eq!(code(&t.exit(&id(&container))), Some(3));
    t.finish();
}
