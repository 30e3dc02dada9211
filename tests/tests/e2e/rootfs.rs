//! What a container's root is made of, and what is mounted in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use littlebox_tests::prelude::*;

/// A directory of the test's own for bind mounts.
fn host_dir(t: &Bed, name: &str) -> PathBuf {
    let dir = t.dirs.base_path.join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn the_host_root_is_a_copy_on_write_view_of_the_machine() {
    let t = Bed::new();
    let probe = "/etc/littlebox-test-probe";
    let script = format!("head -1 /etc/os-release; echo inside > {probe}; cat {probe}");
    let config = json!({"rootfs": "host", "command": ["sh", "-c", script]});
    let (exit, out) = t.run(&config);
    assert_eq!(code(&exit), Some(0), "{out}");
    let release = fs::read_to_string("/etc/os-release").unwrap();
    assert_eq!(out.lines().next(), release.lines().next());
    assert!(out.ends_with("inside\n"));
    assert!(
        !PathBuf::from(probe).exists(),
        "it wrote through to the host"
    );
    t.finish();
}

#[test]
fn a_directory_root_stays_untouched_below_the_overlay() {
    let t = Bed::new();
    let before = fs::read(busybox_root().join("etc/motd")).unwrap();
    let out = t.sh("echo changed > /etc/motd; rm /etc/passwd; cat /etc/motd; ls /etc");
    assert!(out.starts_with("changed\n") && !out.contains("passwd"));
    assert_eq!(fs::read(busybox_root().join("etc/motd")).unwrap(), before);
    assert!(busybox_root().join("etc/passwd").exists());
    t.finish();
}

#[test]
fn a_containers_layer_cannot_say_that_a_directory_of_the_root_is_elsewhere() {
    // overlayfs.rst, "redirect_dir": many kernels follow what this attribute says unless they are told not to.
    let t = Bed::new();
    let c = id(&t.create(&busybox(&["ls", "/planted"])));
    let upper = t.inspect(&c).upper_dir.expect("an overlay");
    let planted = PathBuf::from(upper).join("planted");
    fs::create_dir(&planted).unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();
    let name = "trusted.overlay.redirect";
    rustix::fs::setxattr(&planted, name, b"/etc", rustix::fs::XattrFlags::CREATE).unwrap();
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    assert_eq!(code(&t.exit(&c)), Some(1));
    let said = String::from_utf8(t.logs_raw(&c, "")).unwrap();
    assert!(said.contains("/planted: Operation not permitted"), "{said}");
    t.finish();
}

#[test]
fn a_debian_root_runs_debians_programs() {
    let t = Bed::new();
    let root = format!("dir:{}", debian_root().display());
    let config = json!({"rootfs": root, "command": [
        "bash", "-c", "set -e; . /etc/os-release; echo $VERSION_ID; dpkg -l libc6 >/dev/null; perl -e 'print 6*7'"]});
    let (exit, out) = t.run(&config);
    assert_eq!((code(&exit), out.as_str()), (Some(0), "12\n42"));
    t.finish();
}

#[test]
fn a_read_only_root_refuses_writes_everywhere_but_in_its_mounts() {
    let t = Bed::new();
    let out = t.sh_with(
        "touch /x 2>&1; touch /etc/x 2>&1; touch /scratch/x && echo scratch; touch /dev/shm/x && echo shm",
        json!({"read_only": true, "mounts": [{"type": "tmpfs", "destination": "/scratch"}]}),
    );
    assert_eq!(out.matches("Read-only file system").count(), 2, "{out}");
    assert!(out.contains("scratch\n") && out.contains("shm\n"), "{out}");
    t.finish();
}

#[test]
fn a_bind_mount_shows_the_hosts_directory_and_writes_through() {
    let t = Bed::new();
    let data = host_dir(&t, "data");
    fs::write(data.join("in"), "from the host\n").unwrap();
    let mount = json!([{"type": "bind", "source": data, "destination": "/data"}]);
    let out = t.sh_with(
        "cat /data/in; echo out > /data/out",
        json!({"mounts": mount}),
    );
    assert_eq!(out, "from the host\n");
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "out\n");
    fs::remove_dir_all(data).unwrap();
    t.finish();
}

#[test]
fn a_read_only_bind_mount_refuses_writes() {
    let t = Bed::new();
    let data = host_dir(&t, "data");
    let mount =
        json!([{"type": "bind", "source": data, "destination": "/deep/data", "read_only": true}]);
    let out = t.sh_with("touch /deep/data/x 2>&1; true", json!({"mounts": mount}));
    assert!(out.contains("Read-only file system"), "{out}");
    fs::remove_dir_all(data).unwrap();
    t.finish();
}

#[test]
fn a_single_file_can_be_bound() {
    let t = Bed::new();
    let dir = host_dir(&t, "data");
    let file = dir.join("motd");
    fs::write(&file, "bound\n").unwrap();
    let mount = json!([{"type": "bind", "source": file, "destination": "/etc/motd"}]);
    assert_eq!(
        t.sh_with("cat /etc/motd", json!({"mounts": mount})),
        "bound\n"
    );
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn a_volume_by_path_is_made_when_it_is_missing() {
    let t = Bed::new();
    let dir = host_dir(&t, "data");
    let source = dir.join("new/volume");
    let without = json!({"mounts": [{"type": "bind", "source": source, "destination": "/v"}]});
    let problem = t.post_json(
        "/v1/containers?start=true",
        &with(busybox(&["true"]), without),
    );
    assert!(matches!(problem.status(), 400 | 422), "{}", problem.text());
    let mount = json!([{"type": "bind", "source": source, "destination": "/v", "create": true}]);
    t.sh_with("echo kept > /v/file", json!({"mounts": mount}));
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "kept\n");
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn a_tmpfs_has_its_size_mode_and_options() {
    let t = Bed::new();
    let out = t.sh_with(
        "grep ' /t ' /proc/mounts; stat -c %a /t; cp /bin/busybox /t/b 2>/dev/null && /t/b true; echo $?; \
         dd if=/dev/zero of=/t/big bs=1M count=8 2>&1 | grep -c 'No space'",
        json!({"mounts": [{"type": "tmpfs", "destination": "/t", "size": 4_194_304, "mode": "0750",
            "options": ["noexec"]}]}),
    );
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].contains("tmpfs") && lines[0].contains("size=4096k"),
        "{out}"
    );
    assert!(
        lines[0].contains("noexec") && lines[0].contains("nosuid"),
        "{out}"
    );
    assert_eq!(&lines[1..], ["750", "126", "1"], "{out}");
    t.finish();
}

#[test]
fn a_directory_on_a_file_and_a_file_on_a_directory_are_named_as_the_cause() {
    let t = Bed::new();
    let (dir, file) = (t.dirs.base_path.join("d"), t.dirs.base_path.join("f"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&file, "").unwrap();
    for (source, destination, said) in [
        (
            &dir,
            "/etc/passwd",
            "a directory cannot be mounted on a file",
        ),
        (&file, "/etc", "a file cannot be mounted on a directory"),
    ] {
        let bind = json!({"type": "bind", "source": source, "destination": destination});
        let config = with(busybox(&["true"]), json!({"mounts": [bind]}));
        let problem = t
            .post_json("/v1/containers?start=true", &config)
            .problem(422, "start_failed");
        assert!(problem.detail.contains(said), "{problem:?}");
    }
    t.finish();
}

#[test]
fn a_recursive_bind_brings_what_is_mounted_below() {
    let t = Bed::new();
    let data = host_dir(&t, "data");
    let below = data.join("below");
    fs::create_dir(&below).unwrap();
    littlebox_tests::roots::run(
        std::process::Command::new("mount")
            .args(["-t", "tmpfs", "lbt-below"])
            .arg(&below),
    );
    fs::write(below.join("file"), "below\n").unwrap();
    let mount = |recursive: bool| json!({"mounts": [{"type": "bind", "source": data, "destination": "/d", "recursive": recursive}]});
    let with_it = t.run(&with(busybox(&["ls", "/d/below"]), mount(true))).1;
    let without = t.run(&with(busybox(&["ls", "/d/below"]), mount(false))).1;
    littlebox_tests::roots::run(std::process::Command::new("umount").arg(&below));
    fs::remove_dir_all(data).unwrap();
    assert_eq!((with_it.as_str(), without.as_str()), ("file\n", ""));
    t.finish();
}

#[test]
fn mounts_made_inside_do_not_reach_the_host() {
    let t = Bed::new();
    let data = host_dir(&t, "data");
    let config = with(
        busybox(&[
            "sh",
            "-c",
            "mount -t tmpfs inner /d && echo mounted; sleep 1000",
        ]),
        json!({"mounts": [{"type": "bind", "source": data, "destination": "/d"}],
            "capabilities": {"add": ["SYS_ADMIN"]}}),
    );
    let c = id(&t.start(&config));
    proc::until("it has mounted", || t.stdout(&c).contains("mounted"));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(data.to_str().unwrap()), "{table}");
    t.remove(&c);
    fs::remove_dir_all(data).unwrap();
    t.finish();
}

#[test]
fn propagation_of_the_root_is_as_asked() {
    let t = Bed::new();
    for (propagation, expected) in [
        ("rprivate", "private"),
        ("rslave", "private"),
        ("rshared", "shared"),
    ] {
        let out = t.sh_with(
            "grep ' / / ' /proc/self/mountinfo",
            json!({"propagation": propagation}),
        );
        let optional: Vec<&str> = out
            .split(" - ")
            .next()
            .unwrap_or("")
            .split(' ')
            .skip(6)
            .collect();
        let shared = optional.iter().any(|f| f.starts_with("shared:"));
        assert_eq!(shared, expected == "shared", "{propagation}: {out}");
    }
    t.finish();
}

#[test]
fn a_slave_bind_sees_what_the_host_mounts_later() {
    let t = Bed::new();
    let data = host_dir(&t, "data");
    let run = |args: &[&str]| {
        littlebox_tests::roots::run(std::process::Command::new("mount").args(args));
    };
    let path = data.to_str().unwrap();
    run(&["-t", "tmpfs", "lbt-shared", path]);
    run(&["--make-rshared", path]);
    fs::create_dir(data.join("later")).unwrap();
    let config = |propagation: &str| {
        with(
            sleeper_config(),
            json!({"mounts": [{"type": "bind", "source": data, "destination": "/d",
                "propagation": propagation}]}),
        )
    };
    let slave = id(&t.start(&config("rslave")));
    let private = id(&t.start(&config("rprivate")));
    let later = data.join("later");
    run(&["-t", "tmpfs", "lbt-later", later.to_str().unwrap()]);
    fs::write(later.join("file"), "").unwrap();
    let seen = t.exec(&slave, &["ls", "/d/later"]);
    let unseen = t.exec(&private, &["ls", "/d/later"]);
    for dir in [&later, &data] {
        littlebox_tests::roots::run(std::process::Command::new("umount").arg("-l").arg(dir));
    }
    assert_eq!((seen.as_str(), unseen.as_str()), ("file\n", ""));
    t.remove(&slave);
    t.remove(&private);
    fs::remove_dir_all(data).unwrap();
    t.finish();
}

#[test]
fn the_old_root_is_gone() {
    let t = Bed::new();
    let out = t.sh("cat /proc/self/mountinfo; ls /");
    for line in out.lines().filter(|l| l.contains(" - ")) {
        let place = line.split(' ').nth(4).unwrap_or("");
        let known = ["/", "/proc", "/dev", "/sys"];
        assert!(
            known.contains(&place)
                || ["/proc/", "/dev/", "/sys/"]
                    .iter()
                    .any(|p| place.starts_with(p)),
            "an unexpected mount at {place}: {line}"
        );
    }
    assert!(!out.contains(".old") && !out.contains("pivot"), "{out}");
    t.finish();
}

#[test]
fn dev_has_its_nodes_and_links_and_nothing_of_the_host() {
    let t = Bed::new();
    let out = t.sh(
        "ls /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %F %a' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; \
         echo x > /dev/null; head -c 4 /dev/zero | wc -c",
    );
    let names: BTreeSet<&str> = out
        .lines()
        .take_while(|l| !l.starts_with("/dev"))
        .filter(|l| !l.is_empty())
        .collect();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    let unknown: Vec<_> = names
        .iter()
        .filter(|n| !expected.contains(n) && **n != "console" && **n != "core")
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for name in expected {
        assert!(names.contains(name), "/dev/{name} is missing: {out}");
    }
    for node in [
        "/dev/null 1:3",
        "/dev/zero 1:5",
        "/dev/full 1:7",
        "/dev/random 1:8",
        "/dev/urandom 1:9",
        "/dev/tty 5:0",
    ] {
        let line = format!("{node} character special file 666");
        assert!(out.contains(&line), "{line} in {out}");
    }
    assert!(out.contains("/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n"));
    assert!(out.ends_with("4\n"), "{out}");
    t.finish();
}

#[test]
fn proc_is_fresh_masked_and_partly_read_only() {
    let t = Bed::new();
    let out = t.sh(
        "cat /proc/1/comm; cat /proc/kcore 2>/dev/null | wc -c; cat /proc/keys | wc -c; \
         cat /proc/timer_list | wc -c; ls /proc/scsi /proc/acpi 2>/dev/null | wc -l; \
         echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger; \
         grep ' /proc ' /proc/mounts",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "sh");
    assert_eq!(&lines[1..4], ["0", "0", "0"], "{out}");
    let proc_mount = lines.last().expect("the mount");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(proc_mount.contains(option), "{proc_mount}");
    }
    let writes = t.sh("touch /proc/sys/x 2>&1; echo 1 2>&1 > /proc/sys/kernel/sysrq; grep -c ' /proc/sys proc ro' /proc/mounts; true");
    assert!(writes.ends_with("1\n"), "{writes}");
    t.finish();
}

#[test]
fn sys_is_read_only_and_shows_the_containers_network() {
    let t = Bed::new();
    let out = t.sh("grep ' /sys ' /proc/mounts; ls /sys/class/net; mkdir /sys/x 2>&1; true");
    assert!(out.contains("sysfs ro,"), "{out}");
    assert!(out.contains("\nlo\n"), "{out}");
    t.finish();
}

#[test]
fn cgroups_are_seen_read_only_and_from_their_own_root() {
    let t = Bed::new();
    let out = t.sh("cat /proc/self/cgroup; find /sys/fs/cgroup -maxdepth 2 -name 'cgroup.procs' -exec sh -c 'echo $$ > {}' \\; 2>&1 | head -3");
    for line in out
        .lines()
        .filter(|l| l.contains(":/") && !l.contains("sh:"))
    {
        assert!(line.ends_with(":/"), "{line} shows more than its own root");
    }
    t.finish();
}

#[test]
fn shm_mqueue_and_devpts_are_their_own_filesystems() {
    let t = Bed::new();
    let out = t.sh(
        "grep -E ' /dev/(shm|mqueue|pts) ' /proc/mounts; stat -c %a /dev/shm; ls -l /dev/pts/ptmx",
    );
    for (place, kind) in [
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/pts", "devpts"),
    ] {
        assert!(out.contains(&format!(" {place} {kind} ")), "{place}: {out}");
    }
    assert!(out.contains("1777\n"), "{out}");
    assert!(
        out.contains("newinstance") || out.contains("ptmxmode=666") || out.contains("ptmx"),
        "{out}"
    );
    t.finish();
}

#[test]
fn a_root_that_is_not_a_directory_is_refused() {
    let t = Bed::new();
    let file = t.dirs.base_path.join("plain-file");
    fs::write(&file, "").unwrap();
    for (rootfs, status) in [
        (format!("dir:{}", file.display()), 422),
        ("dir:/no/such/directory".to_owned(), 422),
        ("dir:relative".to_owned(), 400),
        ("nonsense".to_owned(), 400),
        (String::new(), 400),
    ] {
        let config = json!({"rootfs": rootfs, "command": ["true"]});
        let response = t.post_json("/v1/containers?start=true", &config);
        assert!(
            response.status() == status || response.status() == 400,
            "{rootfs}: {} {}",
            response.status(),
            response.text()
        );
        let problem: Problem = response.json();
        if response.status() == 422 {
            assert!(problem.step.is_some(), "{problem:?}");
            assert!(
                matches!(problem.errno.as_deref(), Some("ENOTDIR" | "ENOENT")),
                "{problem:?}"
            );
        } else {
            assert_eq!(problem.pointer.as_deref(), Some("/rootfs"), "{problem:?}");
        }
    }
    t.finish();
}

#[test]
fn a_mount_target_below_a_link_stays_inside_the_root() {
    let t = Bed::new();
    // The image's own link points to a host path; it is resolved inside the root.
    let root = host_dir(&t, "evil-root");
    littlebox_tests::roots::run(
        std::process::Command::new("cp")
            .args(["-a"])
            .arg(format!("{}/.", busybox_root().display()))
            .arg(&root),
    );
    let canary = host_dir(&t, "canary");
    std::os::unix::fs::symlink(&canary, root.join("trap")).unwrap();
    let data = host_dir(&t, "data");
    fs::write(data.join("marker"), "").unwrap();
    let config = json!({
        "rootfs": format!("dir:{}", root.display()),
        "command": ["ls", "/trap/deep"],
        "mounts": [{"type": "bind", "source": data, "destination": "/trap/deep"}],
    });
    let response = t.post_json("/v1/containers?start=true&wait=20s", &config);
    assert!(
        fs::read_dir(&canary).unwrap().next().is_none(),
        "it made something on the host"
    );
    if response.status() == 201 {
        let container: Container = response.json();
        assert_eq!(t.stdout(&id(&container)), "marker\n");
    } else {
        let _problem = response.problem(422, "start_failed");
    }
    for dir in [root, canary, data] {
        fs::remove_dir_all(dir).unwrap();
    }
    t.finish();
}
