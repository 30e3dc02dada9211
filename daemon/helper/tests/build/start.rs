//! How a start goes, how it fails, and what it leaves.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_container_runs_and_leaves_nothing() {
    let bed = Bed::new("echo hello; echo $$; hostname; exit 3");
    let before = Leftovers::take();
    let (output, exit) = bed.run();
    assert_eq!(
        (output.as_str(), exit),
        ("hello\n1\ninside\n", ProcessExit::Code(3))
    );
    Leftovers::take().assert_same(&before, &bed.id);
}

#[test]
fn every_step_of_a_start_is_timed_in_order() {
    let bed = Bed::new("true");
    let container = bed.launch().unwrap();
    let timings = &container.built.launched.timings;
    let mounts: Vec<_> = timings.iter().filter(|t| t.step == Step::Mounts).collect();
    assert_eq!(mounts.len(), bed.plan.mounts.len());
    assert_eq!(mounts[0].subject.as_deref(), Some("/proc"));
    assert_eq!(timings.last().unwrap().step, Step::Exec);
    assert!(
        timings
            .windows(2)
            .all(|pair| pair[0].start_ns <= pair[1].start_ns)
    );
}

#[test]
fn a_command_that_does_not_exist_is_enoent_of_exec() {
    let mut bed = Bed::new("");
    bed.plan.process.args = vec!["no-such-command".to_owned()];
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::Exec, libc::ENOENT));
    assert_eq!(failure.path.as_deref(), Some("no-such-command"));
}

#[test]
fn a_command_that_may_not_be_executed_is_eacces_of_exec() {
    for command in ["/etc/passwd", "/bin"] {
        let mut bed = Bed::new("");
        bed.plan.process.args = vec![command.to_owned()];
        let failure = bed.failure();
        assert_eq!((failure.step, failure.errno), (Step::Exec, libc::EACCES));
    }
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_program() {
    let mut bed = Bed::new("");
    fs::write(bed.path("root/bin/script"), "#!/no/such/shell\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bed.path("root/bin/script"), mode).unwrap();
    bed.plan.process.args = vec!["/bin/script".to_owned()];
    let failure = bed.failure();
    assert_eq!(failure.errno, libc::ENOENT);
    assert!(failure.detail.unwrap().contains("interpreter"));
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let mut bed = Bed::new("true").with_user_namespace();
    for init in [false, true] {
        bed.plan.init = init;
        for step in Step::ALL {
            // The run directory is the supervisor's.
            if step == Step::RunDir {
                continue;
            }
            bed.plan.inject = Some(Injection {
                step,
                errno: libc::ENOSPC,
            });
            let failure = bed.failure();
            assert_eq!((failure.step, failure.errno), (step, libc::ENOSPC));
        }
    }
}

#[test]
fn a_root_that_is_no_directory_is_told_by_its_path() {
    let mut bed = Bed::new("");
    let file = bed.path("root/etc/passwd");
    let RootfsSource::Overlay { lower, .. } = &mut bed.plan.rootfs.source else {
        panic!()
    };
    *lower = vec![file.clone()];
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::Rootfs, libc::ENOTDIR));
    assert_eq!(failure.path.as_deref(), file.to_str());
}

#[test]
fn the_helpers_death_takes_the_container_with_it() {
    use std::process::Command;
    // The helper's stand-in is another process of this test binary.
    if std::env::var_os("LITTLEBOX_TEST_HELPER").is_some() {
        let bed = Bed::new("sleep 100");
        let container = bed.launch().unwrap();
        let cgroup = bed.plan.cgroup.path.as_ref().unwrap();
        println!("\npid={}", container.built.launched.pid);
        println!("cgroup={}", cgroup.display());
        println!("directory={}", bed.dir.path().display());
        std::mem::forget((container, bed));
        std::process::abort();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "start::the_helpers_death_takes_the_container_with_it",
            "--nocapture",
        ])
        .env("LITTLEBOX_TEST_HELPER", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .to_owned()
    };
    let pid: u32 = value("pid=").parse().unwrap();
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        littlebox_helper::sys::kill(pid, 0).is_err()
    });
    assert!(gone);
    fs::remove_dir_all(value("directory=")).unwrap();
    // What a helper leaves when it dies can be found by its path and removed, with its parent.
    let path = std::path::PathBuf::from(value("cgroup="));
    let left = CgroupPlan {
        path: path.parent().map(ToOwned::to_owned),
        ..CgroupPlan::default()
    };
    let left = littlebox_helper::cgroup::Cgroup::open(&left).unwrap();
    assert!(!left.paths().is_empty());
    left.kill_all().unwrap();
    left.remove().unwrap();
    support::remove_test_cgroups();
    assert!(left.paths().iter().all(|(_, path)| !path.exists()));
}

#[test]
fn root_and_names_of_a_running_container_can_be_read() {
    let bed = Bed::new("sleep 100");
    let mut container = bed.launch().unwrap();
    let names = build::container_hostname(&container.built).unwrap();
    assert_eq!(names, ("inside".to_owned(), "example".to_owned()));
    let root = build::container_root(&container.built).unwrap();
    assert!(rustix::fs::statat(&root, "etc/passwd", rustix::fs::AtFlags::empty()).is_ok());
    container.built.cgroup.kill_all().unwrap();
    container.wait();
    assert!(build::container_root(&container.built).is_err());
}

#[test]
fn the_root_of_a_container_that_does_not_run_can_be_opened() {
    let bed = Bed::new("echo 1 > /made");
    bed.output();
    let root = build::open_rootfs(&bed.plan.rootfs, &[], &[]).unwrap();
    assert!(rustix::fs::statat(&root, "made", rustix::fs::AtFlags::empty()).is_ok());
}

#[test]
fn stdin_is_a_pipe_when_it_is_wanted() {
    let mut bed = Bed::new("cat");
    bed.plan.stdin = true;
    let mut container = bed.launch().unwrap();
    let Some(Stdio::Pipes { stdin, stdout, .. }) = container.built.stdio.take() else {
        panic!()
    };
    rustix::io::write(stdin.as_ref().unwrap(), b"typed").unwrap();
    drop(stdin);
    assert_eq!(read_fd(&stdout), "typed");
    container.wait();
}

#[test]
fn a_start_that_takes_too_long_is_undone_and_names_its_step() {
    let mut bed = Bed::new("true");
    bed.plan.start_timeout_ms = Some(1500);
    let layout = littlebox_protocol::cgroup::Layout::detect();
    let Some(unified) = layout.unified() else {
        panic!("this host has no cgroup v2, whose freezer holds the child up")
    };
    // The cgroup above is frozen: the container's own is made for it.
    let path = bed.plan.cgroup.path.as_mut().unwrap();
    let own = path.file_name().unwrap().to_owned();
    path.set_file_name("above");
    let above = path.strip_prefix("/").unwrap().to_owned();
    path.push(own);
    let dir = unified.mount().join(&above);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    let begun = Instant::now();
    let failure = bed.failure();
    for hierarchy in layout.all() {
        let dir = hierarchy.mount().join(&above);
        assert!(!dir.exists() || fs::remove_dir(&dir).is_ok(), "{dir:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    // Born frozen, it comes to no step of its own.
    assert_eq!(
        (failure.step, failure.errno),
        (Step::Clone, libc::ETIMEDOUT)
    );
    assert_eq!(
        failure.detail.unwrap(),
        "not started within 1.5 s in step clone: its control group is frozen"
    );
    assert!(!dir.exists(), "its cgroup is left");
}

/// A filter that leaves every call of `mkdir` to an agent at a path.
fn with_agent(bed: &mut Bed) -> std::path::PathBuf {
    let path = bed.path("agent");
    let allow = BpfInstruction {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    bed.plan.process.seccomp = Some(SeccompPlan {
        program: BpfProgram(vec![allow]),
        flags: 0,
        profile: String::new(),
        unknown: Vec::new(),
        listener: Some(ListenerPlan {
            path: path.clone(),
            metadata: None,
            calls: vec!["mkdir".to_owned()],
            others: false,
            state: serde_json::Map::new(),
        }),
    });
    path
}

#[test]
fn the_connection_to_a_seccomp_agent_is_timed_and_fails_as_one_step() {
    let mut bed = Bed::new("true");
    let path = with_agent(&mut bed);
    assert_eq!(bed.failure().step, Step::Seccomp);
    let agent = std::os::unix::net::UnixListener::bind(path).unwrap();
    let reads = std::thread::spawn(move || {
        let (mut connection, _) = agent.accept().unwrap();
        std::io::copy(&mut connection, &mut std::io::sink()).unwrap();
    });
    let container = bed.launch().unwrap();
    let timings = &container.built.launched.timings;
    let of_agent = timings.iter().filter(|timing| {
        let subject = timing.subject.as_deref();
        subject.is_some_and(|subject| subject.contains("agent"))
    });
    let steps: Vec<Step> = of_agent.map(|timing| timing.step).collect();
    assert_eq!(steps, [Step::Seccomp]);
    drop(container);
    reads.join().unwrap();
}
