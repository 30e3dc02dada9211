//! What the container has of its own: keyring, clocks, and what it cannot see or write.

use littlebox_tests::prelude::*;

/// A script for perl, in a `host` root: perl makes any system call.
fn perl(script: &str) -> Value {
    json!({"rootfs": "host", "command": ["perl", "-e", script]})
}

/// keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING): the serial number of the session
/// keyring. `SYS` is keyctl's number.
const SESSION_KEYRING: &str = "print syscall(SYS, 0, -3, 0)";

fn session_keyring() -> String {
    SESSION_KEYRING.replace("SYS", &libc::SYS_keyctl.to_string())
}

#[test]
fn program_and_execs_have_session_keyrings_of_their_own() {
    let t = Bed::new();
    // The daemon has this test's: a child keeps its parent's session keyring.
    let host = std::process::Command::new("perl")
        .args(["-e", &session_keyring()])
        .output()
        .unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let script = format!("$| = 1; {}; print \" ready\"; sleep 100", session_keyring());
    // The default seccomp profile denies keyctl.
    let open = json!({"seccomp": "unconfined"});
    let container = t.start(&with(perl(&script), open));
    let c = id(&container);
    t.ready(&c);
    let program = t.stdout(&c).replace(" ready", "");
    let command = ["perl", "-e", &session_keyring()];
    let (first, second) = (t.exec(&c, &command), t.exec(&c, &command));
    let keyrings = [host, program, first, second];
    for keyring in &keyrings {
        assert!(keyring.parse::<i32>().is_ok_and(|n| n > 0), "{keyrings:?}");
    }
    let different: BTreeSet<&String> = keyrings.iter().collect();
    assert_eq!(different.len(), 4, "{keyrings:?}");
    assert_eq!(t.inspect(&c).warnings, [""; 0]);
    t.remove(&c);
    t.finish();
}

#[test]
fn keyrings_are_explained_and_timed() {
    let t = Bed::new();
    let container = t.start(&busybox(&["true"]));
    let plan: Plan = t
        .get(&format!("/v1/containers/{}/plan", id(&container)))
        .expect(200)
        .json();
    let step = plan.steps.iter().find(|s| s.step == "keyring").unwrap();
    assert!(step.duration_ns.is_some(), "{step:?}");
    t.finish();
}

/// Prints CLOCK_MONOTONIC and CLOCK_BOOTTIME, seconds.
fn clocks() -> String {
    let read = format!("syscall({}, $clock, $b)", libc::SYS_clock_gettime);
    format!("for $clock (1, 7) {{ $b = \"\\0\" x 16; {read}; print unpack('q', $b), ' ' }}")
}

fn numbers(text: &str) -> (i64, i64) {
    let (a, b) = text.trim().split_once(' ').unwrap();
    (a.parse().unwrap(), b.parse().unwrap())
}

fn host_clocks() -> (i64, i64) {
    use rustix::time::{ClockId, clock_gettime};
    let secs = |clock| clock_gettime(clock).tv_sec;
    (secs(ClockId::Monotonic), secs(ClockId::Boottime))
}

#[test]
fn clocks_are_set_in_a_time_namespace_for_program_and_execs() {
    let t = Bed::new();
    let more = json!({
        "time_offsets": {"monotonic": {"secs": 1_000_000}, "boottime": {"secs": 86_400, "nanos": 5}},
    });
    let script = format!(
        "$| = 1; {}; print \"\\n\", `cat /proc/uptime /proc/self/timens_offsets`, \"ready\"; sleep 100",
        clocks()
    );
    let before = host_clocks();
    let c = id(&t.start(&with(perl(&script), more)));
    t.ready(&c);
    let exec = numbers(&t.exec(&c, &["perl", "-e", &clocks()]));
    let after = host_clocks();
    let out = t.stdout(&c);
    let lines: Vec<&str> = out.lines().collect();
    let program = numbers(lines[0]);
    for (what, (monotonic, boottime)) in [("program", program), ("exec", exec)] {
        let (monotonic, boottime) = (monotonic - 1_000_000, boottime - 86_400);
        assert!((before.0..=after.0).contains(&monotonic), "{what}: {out}");
        assert!(
            (before.1..=after.1 + 1).contains(&boottime),
            "{what}: {out}"
        );
    }
    let uptime: f64 = lines[1].split(' ').next().unwrap().parse().unwrap();
    assert!(uptime >= 86_400.0, "{out}");
    let offsets: Vec<&str> = out.split_whitespace().collect();
    let offsets = offsets.join(" ");
    assert!(
        offsets.contains("monotonic 1000000 0 boottime 86400 5"),
        "{out}"
    );
    // The inode that is told is that of the namespace which the program lives in.
    let plan: Plan = t
        .get(&format!("/v1/containers/{c}/plan"))
        .expect(200)
        .json();
    let told = plan.namespaces.iter().find(|n| n.kind == "time").unwrap();
    let link = std::fs::read_link(format!("/proc/{}/ns/time", pid1(&t.inspect(&c)))).unwrap();
    assert_eq!(link.to_string_lossy(), format!("time:[{}]", told.container));
    assert!(plan.steps.iter().any(|s| s.step == "time_namespace"));
    t.remove(&c);
    t.finish();
}

#[test]
fn clocks_are_set_in_a_user_namespace_as_well() {
    let t = Bed::new();
    let more = json!({
        "namespaces": {"user": "new"},
        "id_maps": {"uid": [{"container_id": 0, "host_id": 700_000, "size": 65536}],
                    "gid": [{"container_id": 0, "host_id": 700_000, "size": 65536}]},
        "time_offsets": {"boottime": {"secs": 86_400}},
    });
    let out = t.sh_with("cut -d. -f1 /proc/uptime; id -u", more);
    let (uptime, uid) = out.trim().split_once('\n').unwrap();
    assert!(uptime.parse::<u64>().unwrap() >= 86_400, "{out}");
    assert_eq!(uid, "0");
    t.finish();
}

#[test]
fn clocks_that_cannot_be_are_refused_by_name() {
    let t = Bed::new();
    let boottime = |offset: Value| json!({"time_offsets": {"boottime": offset}});
    t.refuses([
        (
            boottime(json!({"secs": 4_611_686_019_i64})),
            "/time_offsets/boottime",
        ),
        (
            boottime(json!({"secs": 0, "nanos": 1_000_000_000})),
            "/time_offsets/boottime",
        ),
        // This machine has not been up for 100 years.
        (
            boottime(json!({"secs": -3_155_760_000_i64})),
            "/time_offsets/boottime",
        ),
        (
            boottime(json!({"secs": "x"})),
            "/time_offsets/boottime/secs",
        ),
        (
            json!({"time_offsets": {"realtime": {"secs": 1}}}),
            "/time_offsets/realtime",
        ),
        (
            json!({"time_offsets": {"monotonic": {"secs": 1}}, "namespaces": {"time": "host"}}),
            "/time_offsets",
        ),
    ]);
    t.finish();
}

#[test]
fn default_paths_read_empty_or_refuse_writes() {
    let t = Bed::new();
    let masked = DEFAULT_MASKED_PATHS.join(" ");
    let read_only = DEFAULT_READONLY_PATHS.join(" ");
    // A directory is empty and a file reads as nothing; what this kernel lacks is passed over.
    let script = format!(
        "for p in {masked}; do \
           if [ -d $p ]; then [ -z \"$(ls -A $p)\" ] || echo open $p; \
           elif [ -e $p ]; then [ -z \"$(head -c 1 $p)\" ] || echo open $p; fi; \
           grep -q \" $p \" /proc/self/mountinfo && echo masked $p; \
         done; \
         for p in {read_only}; do \
           [ -e $p ] && (grep \" $p \" /proc/mounts | grep -q ' ro,') && echo ro $p; \
         done; true"
    );
    let out = t.sh(&script);
    assert!(!out.contains("open"), "{out}");
    for path in DEFAULT_MASKED_PATHS {
        let there = std::path::Path::new(path).exists();
        assert_eq!(
            out.contains(&format!("masked {path}\n")),
            there,
            "{path}: {out}"
        );
    }
    for path in DEFAULT_READONLY_PATHS {
        let there = std::path::Path::new(path).exists();
        assert_eq!(
            out.contains(&format!("ro {path}\n")),
            there,
            "{path}: {out}"
        );
    }
    t.finish();
}

#[test]
fn paths_can_be_hidden_and_shown_one_by_one() {
    let t = Bed::new();
    let script = "head -c 1 /proc/timer_list | wc -c; wc -c < /etc/motd; \
                  (echo x >> /etc/group) 2>&1; true";
    let more = json!({
        "masked_paths": ["/etc/motd", "/not/there"],
        "readonly_paths": ["/etc"],
    });
    let out = t.sh_with(script, more.clone());
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[1], "0", "{out}");
    assert!(lines[2].contains("Read-only file system"), "{out}");
    let container = t.create(&with(busybox(&["true"]), more));
    let shown = t.inspect(&id(&container)).config;
    assert_eq!(shown.masked_paths.unwrap(), ["/etc/motd", "/not/there"]);
    assert_eq!(shown.readonly_paths.unwrap(), ["/etc"]);
    t.finish();
}

#[test]
fn security_options_of_the_command_line_are_seen_inside() {
    let t = Bed::new();
    let root = busybox_root();
    let root = format!("dir:{}", root.display());
    let script = "grep NoNewPrivs /proc/self/status; wc -c < /etc/motd; \
                  grep -c ' /proc/kcore ' /proc/mounts; grep -c ' /proc/sys ' /proc/mounts";
    let out = t.lbctl(&[
        "run",
        "--rm",
        "--security-opt",
        "no-new-privileges=false",
        "--security-opt",
        "mask=/etc/motd",
        "--security-opt",
        "unmask=/proc/kcore:/proc/sys",
        &root,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "NoNewPrivs:\t0\n0\n0\n0\n",
        "{out:?}"
    );
    let wrong = t.lbctl(&["run", "--security-opt", "apparmour=x", &root, "true"]);
    assert_eq!(wrong.status.code(), Some(125), "{wrong:?}");
    t.finish();
}

/// `path mode type major:minor` of nodes inside, by busybox.
fn nodes(t: &Bed, paths: &str, more: Value) -> String {
    t.sh_with(&format!("stat -c '%n %a %F %t:%T' {paths}"), more)
}

#[test]
fn devices_of_the_host_are_given_by_path_with_their_nodes() {
    let t = Bed::new();
    let more = json!({"devices": [
        {"path": "/dev/zero", "container_path": "/dev/sub/nothing", "permissions": "r"},
        {"path": "/dev/null", "container_path": "/dev/hole"},
    ]});
    let out = nodes(&t, "/dev/sub/nothing /dev/hole", more.clone());
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    let expected = format!(
        "/dev/sub/nothing {:o} character special file 1:5\n/dev/hole {:o} character special file 1:3\n",
        mode("/dev/zero"),
        mode("/dev/null")
    );
    assert_eq!(out, expected);
    let script = "head -c 3 /dev/sub/nothing | wc -c; echo lost > /dev/hole; wc -c < /dev/hole";
    assert_eq!(t.sh_with(script, more.clone()), "3\n0\n");
    let shown = t.inspect(&id(&t.create(&with(busybox(&["true"]), more))));
    assert_eq!(shown.config.devices.len(), 2);
    assert_eq!(
        shown.relaxations,
        ["device /dev/zero (r)", "device /dev/null (rwm)"]
    );
    t.finish();
}

#[test]
fn devices_work_in_a_user_namespace() {
    let t = Bed::new();
    let map = json!([{"container_id": 0, "host_id": 700_000, "size": 65536}]);
    let more = json!({
        "namespaces": {"user": "new"}, "id_maps": {"uid": map, "gid": map},
        "devices": [{"path": "/dev/zero"}],
    });
    assert_eq!(t.sh_with("head -c 3 /dev/zero | wc -c", more), "3\n");
    t.finish();
}

#[test]
fn a_directory_stands_for_every_device_below_it() {
    let t = Bed::new();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let make = |name: &str, minor| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, 0o600.into());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            kind,
            mode,
            rustix::fs::makedev(1, minor),
        )
        .unwrap();
    };
    make("a", 3);
    make("sub/b", 5);
    std::fs::write(dir.path().join("file"), "").unwrap();
    let more = json!({"devices": [{"path": dir.path(), "container_path": "/dev/all"}]});
    let out = t.sh_with("cd /dev/all && find . -type c | sort; find . -type f", more);
    assert_eq!(out, "./a\n./sub/b\n");
    t.finish();
}

#[test]
fn privileged_has_every_device_of_the_host_and_nothing_masked() {
    let t = Bed::new();
    let out = t.sh_with(
        "ls /dev; head -c 1 /proc/interrupts | wc -c",
        json!({"privileged": true}),
    );
    for entry in std::fs::read_dir("/dev").unwrap() {
        use std::os::unix::fs::FileTypeExt;
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.file_name().into_string().unwrap();
        if kind.is_char_device() || kind.is_block_device() {
            assert!(
                out.lines().any(|line| line == name) || name == "console",
                "{name}: {out}"
            );
        }
    }
    assert!(out.ends_with("\n1\n"), "{out}");
    t.finish();
}

#[test]
fn devices_and_labels_that_cannot_be_are_refused_by_name() {
    let t = Bed::new();
    let device = |device: Value| json!({"devices": [device]});
    let mut wrong = vec![
        (
            device(json!({"path": "/dev/no-such-device"})),
            "/devices/0/path",
        ),
        (
            device(json!({"path": "/etc/passwd", "container_path": "/dev/x"})),
            "/devices/0/path",
        ),
        (device(json!({"path": "/etc/passwd"})), "/devices/0/path"),
        (
            device(json!({"path": "/dev/null", "container_path": "/null"})),
            "/devices/0/container_path",
        ),
        (
            device(json!({"path": "/dev/null", "permissions": "rx"})),
            "/devices/0/permissions",
        ),
        (json!({"device_rules": ["c 1:3"]}), "/device_rules/0"),
        (json!({"apparmor": "a b"}), "/apparmor"),
        (json!({"selinux": "a"}), "/selinux"),
        (json!({"masked_paths": ["proc"]}), "/masked_paths/0"),
    ];
    // Where there is no such module; where there is, no such profile and no such label.
    wrong.push((
        json!({"apparmor": "littlebox-no-such-profile"}),
        "/apparmor",
    ));
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        wrong.push((
            json!({"selinux": "system_u:system_r:container_t:s0"}),
            "/selinux",
        ));
    }
    t.refuses(wrong);
    t.finish();
}

#[test]
fn the_command_line_gives_devices_and_shows_relaxations() {
    let t = Bed::new();
    let root = format!("dir:{}", busybox_root().display());
    let made = t.lbctl(&[
        "create",
        "--name",
        "open",
        "--device",
        "/dev/null:/dev/hole:rw",
        "--device-cgroup-rule",
        "c 10:* r",
        "--network",
        "host",
        "--cap-add",
        "NET_ADMIN",
        "--security-opt",
        "apparmor=unconfined",
        &root,
        "true",
    ]);
    assert!(made.status.success(), "{made:?}");
    let shown = t.lbctl(&["inspect", "open"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        shown["relaxations"],
        json!([
            "host network namespace",
            "capability NET_ADMIN",
            "AppArmor unconfined",
            "device /dev/null (rw)",
            "device rule c 10:* r",
        ])
    );
    assert_eq!(
        t.inspect(&id(&t.create(&busybox(&["true"])))).relaxations,
        [""; 0]
    );
    t.finish();
}

#[test]
fn limits_of_a_user_namespace_are_its_own_sysctls() {
    let t = Bed::new();
    let map = json!([{"container_id": 0, "host_id": 700_000, "size": 65536}]);
    let limit = json!({"user.max_net_namespaces": "7"});
    let own = json!({
        "namespaces": {"user": "new"}, "id_maps": {"uid": map, "gid": map}, "sysctls": limit,
    });
    let read = "cat /proc/sys/user/max_net_namespaces";
    assert_eq!(t.sh_with(read, own), "7\n");
    // In the host's user namespace they are the host's.
    let hosts = json!({"namespaces": {"user": "host"}, "sysctls": limit});
    let problem = t
        .post_json("/v1/containers", &with(busybox(&["true"]), hosts))
        .problem(400, "invalid_request");
    assert_eq!(
        problem.pointer.as_deref(),
        Some("/sysctls/user.max_net_namespaces")
    );
    t.finish();
}

#[test]
fn inspect_shows_the_rules_of_the_device_filter_that_count() {
    let t = Bed::new();
    let filter = |more: Value| {
        let container = t.sleeper_with(more);
        container.device_filter.expect("a filter")
    };
    let default = filter(json!({}));
    assert_eq!(default.first().map(String::as_str), Some("deny a *:* rwm"));
    assert!(
        default.contains(&"allow c 1:3 rwm".to_owned()),
        "{default:?}"
    );
    let more = filter(json!({"device_rules": ["c 10:229 rw"]}));
    assert!(more.contains(&"allow c 10:229 rw".to_owned()), "{more:?}");
    assert!(!default.contains(&"allow c 10:229 rw".to_owned()));
    let all = filter(json!({"privileged": true}));
    assert!(all.contains(&"allow a *:* rwm".to_owned()), "{all:?}");
    let created = t.create(&sleeper_config());
    assert_eq!(created.device_filter, None);
    t.finish();
}
