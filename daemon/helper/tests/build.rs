//! Containers are built as planned: real ones, by root, one at a time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod build_support;

use std::fs;
use std::os::fd::OwnedFd;

use build_support::{Bed, DEFAULT_CAPABILITIES, Leftovers, bind, finish_exec, mount, read_fd};
use littlebox_helper::build::{self, Stdio};
use littlebox_helper::protocol::*;

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
fn every_namespace_is_new_and_told_by_its_inode() {
    let bed = Bed::new("for n in /proc/self/ns/*; do readlink $n; done; sleep 100");
    let container = bed.launch().unwrap();
    let launched = &container.built.launched;
    for entry in &launched.namespaces {
        let name = entry.kind.name();
        let link = fs::read_link(format!("/proc/{}/ns/{name}", launched.pid)).unwrap();
        assert_eq!(
            link.to_str().unwrap(),
            format!("{name}:[{}]", entry.container)
        );
        assert_eq!(
            entry.container == entry.host,
            entry.kind == NamespaceKind::User,
            "{name}"
        );
    }
    assert_eq!(launched.namespaces.len(), 8);
    assert!(launched.start_time > 0 && launched.helper_start_time > 0);
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
fn the_tree_has_what_was_planned_and_nothing_of_the_host() {
    let mounts = Bed::new("cat /proc/self/mountinfo").output();
    let points: Vec<&str> = mounts
        .lines()
        .map(|l| l.split(' ').nth(4).unwrap())
        .collect();
    let planned = [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
    ];
    assert_eq!(points[..planned.len()], planned);
    for foreign in ["/etc", "/mnt", "/run", "/home"] {
        assert!(
            !points.iter().any(|point| point.starts_with(foreign)),
            "{mounts}"
        );
    }
    // Nothing is shared with the host.
    assert!(
        !mounts.contains("shared:") && !mounts.contains("master:"),
        "{mounts}"
    );
}

#[test]
fn devices_are_nodes_that_work_and_links() {
    let script = "echo lost > /dev/null; head -c 2 /dev/zero | wc -c; cat /dev/fd/0 < /dev/null; \
                  ls -l /dev/ptmx /dev/stdout /dev/core | sed 's/.*-> //'; ls /dev";
    let output = Bed::new(script).output();
    assert_eq!(
        output,
        "2\n/proc/kcore\npts/ptmx\n/proc/self/fd/1\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\n\
         random\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
}

#[test]
fn masked_paths_read_empty_and_read_only_ones_refuse() {
    let script = "wc -c < /proc/interrupts; ls /sys/firmware | wc -l; \
                  (echo 1 > /proc/sys/kernel/panic) 2>&1; (mkdir /sys/x) 2>&1; \
                  (touch /sys/firmware/x) 2>&1; true";
    let output = Bed::new(script).output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["0", "0"]);
    assert!(
        lines[2..]
            .iter()
            .all(|line| line.contains("Read-only file system")),
        "{output}"
    );
    assert_eq!(lines.len(), 5);
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
fn a_missing_mount_source_is_told_by_its_path() {
    let mut bed = Bed::new("");
    bed.plan.mounts.push(bind(
        "/no/such/source".as_ref(),
        "/mnt",
        MountAttrs::default(),
    ));
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::Mounts, libc::ENOENT));
    assert_eq!(failure.path.as_deref(), Some("/no/such/source"));
}

#[test]
fn binds_carry_files_and_directories_and_can_be_read_only() {
    let mut bed = Bed::new("cat /data/file /etc/one; (echo x > /data/file) 2>&1; mkdir /rw/made");
    fs::create_dir(bed.path("source")).unwrap();
    fs::write(bed.path("source/file"), "content\n").unwrap();
    let read_only = MountAttrs {
        read_only: true,
        ..MountAttrs::default()
    };
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), "/data", read_only));
    bed.plan
        .mounts
        .push(bind(&bed.path("source/file"), "/etc/one", read_only));
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), "/rw", MountAttrs::default()));
    let output = bed.output();
    assert!(output.starts_with("content\ncontent\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(bed.path("source/made").is_dir());
}

#[test]
fn a_tmpfs_can_start_with_what_the_image_has() {
    let mut bed = Bed::new("cat /etc/sub/x; ls -l /etc/sub/x | cut -c1-10; touch /etc/new");
    fs::create_dir(bed.path("root/etc/sub")).unwrap();
    fs::write(bed.path("root/etc/sub/x"), "copied\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(bed.path("root/etc/sub/x"), mode).unwrap();
    let mut tmpfs = mount("/etc", "tmpfs", &["size=1m"], MountAttrs::default());
    let MountSource::Filesystem { copy_up, .. } = &mut tmpfs.source else {
        panic!()
    };
    *copy_up = true;
    bed.plan.mounts.push(tmpfs);
    assert_eq!(bed.output(), "copied\n-rw-r-----\n");
    assert!(!bed.path("upper/etc").exists());
}

#[test]
fn a_read_only_root_refuses_writes_but_has_its_mounts() {
    let mut bed = Bed::new("(touch /x) 2>&1; touch /dev/shm/x && echo shm");
    bed.plan.rootfs.read_only = true;
    let output = bed.output();
    assert!(
        output.contains("Read-only file system") && output.ends_with("shm\n"),
        "{output}"
    );
}

#[test]
fn links_in_the_image_stay_inside_the_root() {
    let mut bed = Bed::new("cat /link/canary");
    let canary = bed.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(bed.path("source"), "bound\n").unwrap();
    std::os::unix::fs::symlink(&canary, bed.path("root/link")).unwrap();
    let target = format!("{}/canary", canary.display());
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), &target, MountAttrs::default()));
    assert_eq!(bed.output(), "bound\n");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

#[test]
fn an_image_with_a_linked_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let bed = Bed::new("");
        std::os::unix::fs::symlink("/etc", bed.path("root").join(name)).unwrap();
        let failure = bed.failure();
        assert_eq!((failure.step, failure.errno), (Step::Mounts, libc::ELOOP));
    }
}

#[test]
fn an_image_with_a_linked_dev_does_not_lead_outside() {
    let bed = Bed::new("ls /etc/null");
    std::os::unix::fs::symlink("/etc", bed.path("root/dev")).unwrap();
    assert_eq!(bed.output(), "/etc/null\n");
}

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
fn a_terminal_of_an_exec_is_the_containers() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("tty; stty size");
    plan.process.terminal = Some(TerminalSize { rows: 10, cols: 20 });
    assert_eq!(bed.exec(&container, &plan).0, "/dev/pts/0\r\n10 20\r\n");
}

#[test]
fn an_exec_is_in_all_namespaces_and_the_cgroup_of_the_container() {
    let bed = Bed::new(
        "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/cgroup; echo; exec sleep 100",
    );
    let container = bed.launch().unwrap();
    let script = "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/cgroup";
    let (exec, exit) = bed.exec(&container, &bed.exec_plan(script));
    assert_eq!(exit, ProcessExit::Code(0));
    let Stdio::Pipes { stdout, .. } = container.stdio() else {
        panic!()
    };
    let mut own = String::new();
    while !own.ends_with("\n\n") {
        let mut buffer = [0; 4096];
        if let Ok(len) = rustix::io::read(stdout, &mut buffer) {
            own.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
    }
    assert_eq!(own.trim(), exec.trim());
    assert!(
        exec.contains("pids:/\n") || exec.contains("0::/\n"),
        "{exec}"
    );
}

#[test]
fn an_exec_in_a_user_namespace_is_its_root() {
    let bed = Bed::new("exec sleep 100").with_user_namespace();
    let container = bed.launch().unwrap();
    let (output, _) = bed.exec(
        &container,
        &bed.exec_plan("id -u; touch /made; ls -n / | grep made"),
    );
    assert!(output.starts_with("0\n"), "{output}");
    assert!(output.contains(" 0        0 "), "{output}");
}

#[test]
fn an_exec_of_nothing_is_enoent() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("");
    plan.process.args = vec!["nothing".to_owned()];
    let failure = build::exec(&container.built, &bed.plan, &plan).unwrap_err();
    assert_eq!((failure.step, failure.errno), (Step::Exec, libc::ENOENT));
}

#[test]
fn an_exec_in_a_container_that_ended_fails() {
    let bed = Bed::new("true");
    let mut container = bed.launch().unwrap();
    container.wait();
    assert!(build::exec(&container.built, &bed.plan, &bed.exec_plan("true")).is_err());
}

#[test]
fn a_user_namespace_maps_ids_and_the_root_is_idmapped() {
    let script = "id -u; id -g; cat /proc/self/uid_map; ls -n /etc/passwd; touch /x; \
                  echo x > /dev/null && ls -n / | grep -c ' 0 .* 0 '; echo up > /dev/stdout";
    let bed = Bed::new(script).with_user_namespace();
    let mut container = bed.launch().unwrap();
    let output = container.output();
    assert_eq!(container.wait(), ProcessExit::Code(0), "{output}");
    let warnings = &container.built.launched.warnings;
    assert!(
        warnings.iter().all(|w| !w.contains("idmapped")),
        "{warnings:?}"
    );
    assert!(
        output.starts_with("0\n0\n         0     500000      65536\n"),
        "{output}"
    );
    assert!(output.ends_with("up\n"), "{output}");
    let meta = fs::metadata(bed.path("upper/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 0);
}

#[test]
fn a_user_namespace_without_root_works() {
    let mut bed = Bed::new("id -u; id -g").with_user_namespace();
    let map = vec![IdMapping {
        container_id: 1000,
        host_id: 501_000,
        size: 10,
    }];
    (bed.plan.uid_map, bed.plan.gid_map) = (map.clone(), map);
    for option in ["upper", "work"] {
        std::os::unix::fs::chown(bed.path(option), Some(1000), Some(1000)).unwrap();
    }
    for dir in ["proc", "sys", "dev"] {
        fs::create_dir(bed.path("root").join(dir)).unwrap();
    }
    bed.plan.process.user.user = UserRef::Id(1000);
    bed.plan.process.user.group = Some(UserRef::Id(1001));
    assert_eq!(bed.output(), "1000\n1001\n");
}

#[test]
fn a_user_namespace_on_the_hosts_network_has_the_hosts_sys() {
    let mut bed = Bed::new("ls -d /sys/class/net; (mkdir /sys/x) 2>&1").with_user_namespace();
    bed.plan.namespaces.remove(&NamespaceKind::Net);
    let (output, _) = bed.run();
    assert!(output.starts_with("/sys/class/net\n"), "{output}");
    assert!(
        output.contains("Read-only") || output.contains("denied"),
        "{output}"
    );
}

#[test]
fn an_unmapped_user_is_a_clear_failure() {
    let mut bed = Bed::new("").with_user_namespace();
    bed.plan.process.user.user = UserRef::Id(70_000);
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::User, libc::EINVAL));
    assert!(failure.detail.unwrap().contains("70000"));
}

fn open_namespaces(pid: u32, kinds: &[NamespaceKind]) -> Vec<OwnedFd> {
    let open = |kind: &NamespaceKind| {
        fs::File::open(format!("/proc/{pid}/ns/{}", kind.name()))
            .unwrap()
            .into()
    };
    kinds.iter().map(open).collect()
}

#[test]
fn namespaces_of_another_container_can_be_joined() {
    for (user, kinds) in [
        (
            false,
            &[NamespaceKind::Net, NamespaceKind::Pid, NamespaceKind::Ipc][..],
        ),
        (
            false,
            &[
                NamespaceKind::Time,
                NamespaceKind::Uts,
                NamespaceKind::Cgroup,
            ],
        ),
        (true, &[NamespaceKind::User, NamespaceKind::Net]),
        (
            true,
            &[NamespaceKind::User, NamespaceKind::Pid, NamespaceKind::Ipc],
        ),
    ] {
        let mut bed = Bed::new("sleep 100");
        if user {
            bed = bed.with_user_namespace();
        }
        let target = bed.launch().unwrap();
        let pid = target.built.launched.pid;
        for (index, kind) in kinds.iter().enumerate() {
            bed.plan
                .namespaces
                .insert(*kind, NamespacePlan::Join(index));
        }
        bed.plan.process.args[3] =
            "for n in /proc/self/ns/*; do readlink $n; done; true".to_owned();
        bed.plan.cgroup.path = Some(format!("/littlebox-test/second/{}", bed.id).into());
        for dir in ["upper", "work"] {
            fs::create_dir(bed.path(&format!("{dir}2"))).unwrap();
        }
        let RootfsSource::Overlay { upper, work, .. } = &mut bed.plan.rootfs.source else {
            panic!()
        };
        (*upper, *work) = (bed.dir.path().join("upper2"), bed.dir.path().join("work2"));
        let mut second = bed.launch_with(open_namespaces(pid, kinds)).unwrap();
        let output = second.output();
        assert_eq!(second.wait(), ProcessExit::Code(0), "{kinds:?} {output}");
        for entry in &second.built.launched.namespaces {
            let name = entry.kind.name();
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            let same = output.lines().any(|line| line == theirs.to_str().unwrap());
            let host = entry.host == entry.container;
            assert_eq!(
                same,
                kinds.contains(&entry.kind) || host,
                "{kinds:?} {name}"
            );
        }
    }
}

#[test]
fn a_new_user_namespace_can_have_the_hosts_network_given() {
    let mut bed = Bed::new("readlink /proc/self/ns/net").with_user_namespace();
    bed.plan
        .namespaces
        .insert(NamespaceKind::Net, NamespacePlan::Join(0));
    let fds = open_namespaces(std::process::id(), &[NamespaceKind::Net]);
    let mut container = bed.launch_with(fds).unwrap();
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(container.output().trim(), host.to_str().unwrap());
    container.wait();
}

#[test]
fn init_reaps_orphans_and_ends_as_the_program_ends() {
    let script = "(sh -c 'sleep 0.1 & echo $!' ) ; sleep 0.4; ps -o pid,stat,comm; exit 7";
    let mut bed = Bed::new(script);
    bed.plan.init = true;
    let (output, exit) = bed.run();
    assert_eq!(exit, ProcessExit::Code(7));
    assert!(output.contains("littlebox-init"), "{output}");
    assert!(!output.contains('Z'), "{output}");
}

#[test]
fn init_forwards_signals_and_tells_the_programs() {
    let mut bed = Bed::new("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    bed.plan.init = true;
    let mut container = bed.launch().unwrap();
    let Stdio::Pipes { stdout, .. } = container.stdio() else {
        panic!()
    };
    while rustix::io::read(stdout, &mut [0; 16]).is_err() {}
    littlebox_helper::sys::kill(container.built.launched.pid, libc::SIGTERM).unwrap();
    assert_eq!(container.wait(), ProcessExit::Code(9));

    let mut bed = {
        drop(container);
        drop(bed);
        Bed::new("kill -9 $$")
    };
    bed.plan.init = true;
    assert_eq!(bed.run().1, ProcessExit::Code(137));
}

#[test]
fn init_has_the_terminal_go_to_the_program() {
    let mut bed = Bed::new("tty; ps -o pid,comm");
    bed.plan.init = true;
    bed.plan.process.terminal = Some(TerminalSize { rows: 24, cols: 80 });
    let (output, exit) = bed.run();
    assert_eq!(exit, ProcessExit::Code(0));
    assert!(output.starts_with("/dev/pts/0\r\n"), "{output}");
}

#[test]
fn init_tells_a_command_that_does_not_exist() {
    let mut bed = Bed::new("");
    bed.plan.init = true;
    bed.plan.process.args = vec!["nothing".to_owned()];
    assert_eq!(bed.failure().errno, libc::ENOENT);
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
    let bed = Bed::new("");
    fs::remove_file(bed.path("root/etc/passwd")).unwrap();
    let fifo = bed.path("root/etc/passwd");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
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
        assert_eq!(bed.failure().step, Step::Cwd);
    }
}

#[test]
fn sysctls_are_written_in_the_container_only() {
    let mut bed =
        Bed::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    bed.plan.sysctls = [
        (
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "77".to_owned(),
        ),
        ("kernel.shmmni".to_owned(), "123".to_owned()),
    ]
    .into();
    assert_eq!(bed.output(), "77\n123\n");
    bed.plan.sysctls = [("kernel.panic".to_owned(), "77".to_owned())].into();
    assert_eq!(bed.failure().step, Step::Sysctls);
}

#[test]
fn loopback_is_up_in_a_network_of_its_own() {
    let output =
        Bed::new("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags; ls /sys/class/net")
            .output();
    assert!(
        output.contains("0x9\n") && output.ends_with("lo\n"),
        "{output}"
    );
}

#[test]
fn the_cgroup_is_limited_seen_frozen_and_killed() {
    let mut bed = Bed::new("cat /proc/self/cgroup; sleep 100");
    bed.plan.cgroup.resources.memory = Some(64 << 20);
    bed.plan.cgroup.resources.cpu_weight = Some(50);
    bed.plan.cgroup.resources.cpuset_cpus = Some("0".to_owned());
    let mut container = bed.launch().unwrap();
    let cgroup = &container.built.cgroup;
    let paths = cgroup.paths();
    let memory = &paths
        .iter()
        .find(|(name, _)| name == "memory" || name == "unified")
        .unwrap()
        .1;
    assert!(memory.ends_with(&bed.id));
    cgroup.set_frozen(true).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.set_frozen(false).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    assert_eq!(cgroup.oom_kills(), 0);
    cgroup.signal_all(libc::SIGCONT).unwrap();
    cgroup.set_frozen(true).unwrap();
    cgroup.kill_all().unwrap();
    assert_eq!(container.wait(), ProcessExit::Signal(libc::SIGKILL));
}

#[test]
fn a_container_over_its_memory_is_told_by_its_cgroup() {
    let mut bed = Bed::new("x=a; while :; do x=$x$x; done");
    bed.plan.cgroup.resources.memory = Some(16 << 20);
    let mut container = bed.launch().unwrap();
    assert_eq!(container.wait(), ProcessExit::Signal(libc::SIGKILL));
    assert!(container.built.cgroup.oom_kills() > 0);
}

#[test]
fn the_container_sees_only_its_own_cgroup_and_cannot_write_it() {
    let output = Bed::new("ls /sys/fs/cgroup; find /sys/fs/cgroup -name cgroup.procs | wc -l; (mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x) 2>&1; true").output();
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(!output.contains("littlebox-test"), "{output}");
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
            "the_helpers_death_takes_the_container_with_it",
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
    build_support::remove_test_cgroups();
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
fn an_exec_has_stdin_and_its_own_exit() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("read x; exit $x");
    plan.stdin = true;
    let mut exec = build::exec(&container.built, &bed.plan, &plan).unwrap();
    let Some(Stdio::Pipes { stdin, .. }) = &mut exec.stdio else {
        panic!()
    };
    rustix::io::write(stdin.take().unwrap(), b"42\n").unwrap();
    assert_eq!(finish_exec(exec).1, ProcessExit::Code(42));
}

#[test]
fn the_machines_own_root_can_be_the_base() {
    let mut bed = Bed::new("");
    bed.plan.process.args = ["/bin/ls", "/etc/passwd"].map(str::to_owned).into();
    let RootfsSource::Overlay { lower, .. } = &mut bed.plan.rootfs.source else {
        panic!()
    };
    *lower = vec!["/".into()];
    assert_eq!(bed.output(), "/etc/passwd\n");
}

#[test]
fn a_container_in_the_hosts_mount_namespace_mounts_nothing() {
    let mut bed = Bed::new("busybox readlink /proc/self/ns/mnt");
    bed.plan.namespaces.remove(&NamespaceKind::Mnt);
    let before = Leftovers::take();
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(bed.output().trim(), host.to_str().unwrap());
    Leftovers::take().assert_same(&before, &bed.id);
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
    };
    bed
}

#[test]
fn a_program_is_scheduled_as_planned() {
    let output = scheduled(SCHEDULED).output();
    assert_eq!(output, "5 3\n00000008\nbest-effort: prio 6\n");
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
