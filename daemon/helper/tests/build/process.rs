//! The program: who runs it, with what rights, limits, terminal and priority.

use super::*;

#[test]
fn a_program_has_a_terminal_of_its_own() {
    let mut bed = Bed::new("tty; ls -l /dev/console | cut -c1; stty size; ps -o pid,tty");
    bed.plan.process.terminal = Some(TerminalSize { rows: 33, cols: 99 });
    let (output, exit) = bed.run();
    assert_eq!(exit, ProcessExit::Code(0), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["/dev/pts/0", "c", "33 99"], "{output}");
}

#[test]
fn a_user_by_name_has_its_groups_and_home() {
    let mut bed = Bed::new("id; echo $HOME; echo x > /dev/stdout; umask");
    bed.plan.process.user.user = UserRef::Name("anna".to_owned());
    bed.plan.process.user.additional_groups = vec![UserRef::Id(77)];
    bed.plan.process.user.umask = Some(0o027);
    assert_eq!(
        bed.output(),
        "uid=1000(anna) gid=100(users) groups=10(wheel),77,100(users)\n/\nx\n0027\n"
            .replace("groups=10(wheel),77,100(users)", "groups=10(wheel),77")
    );
}

#[test]
fn an_unknown_user_is_a_failure_of_the_user_step() {
    for name in ["nobody-here", "4294967296", "-1"] {
        let mut bed = Bed::new("");
        bed.plan.process.user.user = UserRef::Name(name.to_owned());
        assert_eq!(bed.failure().step, Step::User);
    }
}

#[test]
fn a_passwd_that_is_no_file_does_not_block() {
    let mut bed = Bed::new("");
    fs::remove_file(bed.path("root/etc/passwd")).unwrap();
    let fifo = bed.path("root/etc/passwd");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // A number needs no database.
    bed.output();
    bed.plan.process.user.user = UserRef::Name("root".to_owned());
    assert_eq!(bed.failure().step, Step::User);
}

#[test]
fn a_program_has_exactly_the_planned_capabilities_and_descriptors() {
    let script = "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ls /proc/self/fd; cat /proc/self/oom_score_adj";
    let output = Bed::new(script).output();
    let mask = format!("{DEFAULT_CAPABILITIES:016x}");
    assert!(output.contains("CapInh:\t0000000000000000"), "{output}");
    assert!(output.contains("CapAmb:\t0000000000000000"), "{output}");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(output.contains(&format!("{set}:\t{mask}")), "{output}");
    }
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
    // 3 is ls' own.
    assert!(output.ends_with("\n0\n1\n2\n3\n100\n"), "{output}");
}

#[test]
fn a_user_has_no_capabilities_but_ambient_ones() {
    let mut bed = Bed::new("grep Cap /proc/self/status");
    bed.plan.process.user.user = UserRef::Id(1000);
    let output = bed.output();
    assert!(output.contains("CapEff:\t0000000000000000"), "{output}");

    let mut bed = {
        drop(bed);
        Bed::new("grep Cap /proc/self/status")
    };
    bed.plan.process.user.user = UserRef::Id(1000);
    bed.plan.process.capabilities.inheritable = 1 << 10;
    bed.plan.process.capabilities.ambient = 1 << 10;
    let output = bed.output();
    assert!(output.contains("CapEff:\t0000000000000400"), "{output}");
}

#[test]
fn a_hard_limit_that_may_not_be_raised_is_a_warning() {
    let mut bed = Bed::new("ulimit -Hn");
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    bed.plan.process.rlimits = vec![RlimitPlan {
        resource: "nofile".to_owned(),
        soft: Some(64),
        hard: None,
    }];
    let mut container = bed.launch().unwrap();
    let output = container.output();
    container.wait();
    let warnings = &container.built.launched.warnings;
    assert_eq!(
        warnings.iter().filter(|w| w.contains("nofile")).count(),
        1,
        "{warnings:?}"
    );
    assert_eq!(output.trim(), hard.unwrap().to_string());
}

#[test]
fn the_working_directory_is_made_or_missed() {
    let mut bed = Bed::new("pwd");
    bed.plan.process.cwd = "/a/b".into();
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::Cwd, libc::ENOENT));
    bed.plan.process.create_cwd = true;
    assert_eq!(bed.output(), "/a/b\n");
}

#[test]
fn a_working_directory_through_a_descriptor_of_the_helper_is_refused() {
    for fd in 3..24 {
        let mut bed = Bed::new("pwd");
        bed.plan.process.cwd = format!("/proc/self/fd/{fd}").into();
        let failure = bed.failure();
        assert_eq!(failure.step, Step::Cwd, "{failure:?}");
    }
}

/// Policy and nice value (`/proc/PID/stat` fields 41 and 19), personality, I/O priority.
const SCHEDULED: &str = "busybox cut -d' ' -f41,19 /proc/self/stat; cat /proc/self/personality; \
                         busybox ionice -p $$";

fn scheduled(script: &str) -> Bed {
    let mut bed = Bed::new(script);
    bed.plan.process.scheduling = SchedulingPlan {
        io_priority: Some(IoPriority { class: 2, level: 6 }),
        scheduler: Some(SchedulerPlan {
            policy: 3,
            flags: 0,
            nice: 5,
            priority: 0,
            runtime_ns: 0,
            deadline_ns: 0,
            period_ns: 0,
        }),
        exec_affinity: ExecAffinity {
            initial: vec![0],
            finally: vec![0],
        },
        personality: Some(8),
        memory_policy: None,
    };
    bed
}

#[test]
fn a_program_is_scheduled_as_planned() {
    let output = scheduled(SCHEDULED).output();
    assert_eq!(output, "5 3\n00000008\nbest-effort: prio 6\n");
}

#[test]
fn cpus_that_are_not_there_are_a_clear_failure() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("true");
    plan.process.scheduling.exec_affinity.finally = vec![1000];
    let failure = build::exec(&container.built, &bed.plan, &plan).unwrap_err();
    assert_eq!(failure.step, Step::Scheduling);
    assert!(failure.detail.unwrap().contains("online"), "no reason");
}

#[test]
fn labels_without_their_module_are_a_clear_failure() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        // Then the label is taken, or refused by the policy.
        return;
    }
    let mut bed = Bed::new("true");
    bed.plan.process.labels.selinux = Some("system_u:system_r:container_t:s0".to_owned());
    let failure = bed.failure();
    assert_eq!(failure.step, Step::SecurityLabels);
    assert!(failure.detail.unwrap().contains("SELinux"), "no reason");
    // One at a time.
    drop(bed);
    let mut bed = Bed::new("true");
    bed.plan.process.labels.apparmor = Some("littlebox-no-such-profile".to_owned());
    let failure = bed.failure();
    assert_eq!(failure.step, Step::SecurityLabels);
    assert!(failure.detail.unwrap().contains("AppArmor"), "no reason");
}

/// The whole container's personality and CPUs of execs, and nothing of the program's own.
#[test]
fn an_exec_is_scheduled_as_its_container_says() {
    let bed = scheduled("sleep 100");
    let container = bed.launch().unwrap();
    let exec = format!("{SCHEDULED}; busybox grep Cpus_allowed_list /proc/self/status");
    let (output, _) = bed.exec(&container, &bed.exec_plan(&exec));
    assert_eq!(
        output,
        "0 0\n00000008\nnone: prio 0\nCpus_allowed_list:\t0\n"
    );
}
