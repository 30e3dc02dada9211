//! The program: who runs it, where, with what limits and rights.

use littlebox_tests::prelude::*;

#[test]
fn the_default_user_is_root_with_the_default_environment() {
    let t = Bed::new();
    let container = t.start(&busybox(&["sh", "-c", "id; pwd; umask; env | sort"]));
    let c = id(&container);
    assert_eq!(code(&t.exit(&c)), Some(0));
    let out = t.stdout(&c);
    assert!(out.starts_with("uid=0(root) gid=0(root)"), "{out}");
    assert!(out.contains("\n/\n0022\n"), "{out}");
    for variable in ["HOME=/root", "PATH=/usr/local/sbin:", "HOSTNAME="] {
        assert!(out.contains(variable), "{variable} in {out}");
    }
    assert!(!out.contains("TERM="), "{out}");
    t.finish();
}

#[test]
fn users_and_groups_are_found_by_name_and_number() {
    let t = Bed::new();
    let who = |user: &str, groups: Value| {
        let out = t.sh_with(
            "id -u; id -g; id -G; echo $HOME",
            json!({"user": user, "groups": groups}),
        );
        let lines: Vec<String> = out.lines().map(str::to_owned).collect();
        let mut groups: Vec<u32> = lines[2].split(' ').map(|g| g.parse().unwrap()).collect();
        groups.sort_unstable();
        (lines[0].clone(), lines[1].clone(), groups, lines[3].clone())
    };
    let (uid, gid, groups, home) = who("user", json!([]));
    assert_eq!(
        (uid.as_str(), gid.as_str(), home.as_str()),
        ("1000", "1000", "/home/user")
    );
    assert_eq!(groups, [10, 100, 1000]);
    let (uid, gid, ..) = who("1000:100", json!([]));
    assert_eq!((uid.as_str(), gid.as_str()), ("1000", "100"));
    let (uid, gid, groups, _) = who("4242:4343", json!(["audio", "77"]));
    assert_eq!((uid.as_str(), gid.as_str()), ("4242", "4343"));
    assert_eq!(groups, [29, 77, 4343]);
    let (uid, gid, ..) = who("root:users", json!([]));
    assert_eq!((uid.as_str(), gid.as_str()), ("0", "100"));
    t.finish();
}

#[test]
fn an_unknown_user_fails_at_its_step() {
    let t = Bed::new();
    let config = with(busybox(&["true"]), json!({"user": "nobody-here"}));
    let problem = t
        .post_json("/v1/containers?start=true", &config)
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("user"), "{problem:?}");
    assert!(problem.detail.contains("nobody-here"), "{problem:?}");
    t.finish();
}

#[test]
fn user_numbers_that_would_wrap_are_refused() {
    let t = Bed::new();
    for user in ["4294967296", "-1", "4294967295", "0:4294967296", ""] {
        let config = with(busybox(&["true"]), json!({"user": user}));
        let response = t.post_json("/v1/containers", &config);
        assert!(
            response.status() == 400,
            "{user:?}: {} {}",
            response.status(),
            response.text()
        );
        let problem: Problem = response.json();
        assert_eq!(problem.pointer.as_deref(), Some("/user"), "{user:?}");
    }
    t.finish();
}

#[test]
fn working_directory_environment_and_umask_are_as_asked() {
    let t = Bed::new();
    let out = t.sh_with(
        "pwd; echo \"$A|$B\"; umask; touch f; stat -c %a f",
        json!({"working_dir": "/srv/made/here", "env": {"A": "1 2", "B": "ü="}, "umask": "077"}),
    );
    assert_eq!(out, "/srv/made/here\n1 2|ü=\n0077\n600\n");
    t.finish();
}

#[test]
fn a_working_directory_that_is_a_file_fails_at_its_step() {
    let t = Bed::new();
    let config = with(busybox(&["true"]), json!({"working_dir": "/etc/passwd"}));
    let problem = t
        .post_json("/v1/containers?start=true", &config)
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("cwd"), "{problem:?}");
    t.finish();
}

#[test]
fn hostname_and_domain_name_are_set_and_default_to_the_id() {
    let t = Bed::new();
    let out = t.sh_with(
        "hostname; cat /proc/sys/kernel/domainname; echo $HOSTNAME",
        json!({"hostname": "my-box", "domainname": "example.org"}),
    );
    assert_eq!(out, "my-box\nexample.org\nmy-box\n");
    let container = t.start(&busybox(&["hostname"]));
    let c = id(&container);
    t.wait(&c);
    assert_eq!(t.stdout(&c).trim(), &c[c.len() - 12..]);
    t.finish();
}

#[test]
fn rlimits_are_as_asked() {
    let t = Bed::new();
    let out = t.sh_with(
        "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc",
        json!({"rlimits": {"nofile": {"soft": 123, "hard": 456}, "core": {"soft": 0, "hard": 0}}}),
    );
    assert_eq!(out, "123\n456\n0\n0\n");
    t.finish();
}

/// The names of capabilities(7) by bit, as far as the default set goes.
const DEFAULT_CAPABILITIES: [u32; 11] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
    31, // SETFCAP
];

fn mask(bits: &[u32]) -> u64 {
    bits.iter().fold(0, |m, b| m | 1 << b)
}

#[track_caller]
fn capabilities(t: &Bed, more: Value) -> BTreeMap<String, String> {
    proc::parse_status(&t.sh_with("cat /proc/self/status", more))
}

fn bits(status: &BTreeMap<String, String>, field: &str) -> u64 {
    u64::from_str_radix(&status[field], 16).unwrap()
}

#[test]
fn root_has_the_eleven_default_capabilities_and_none_inheritable() {
    let t = Bed::new();
    let status = capabilities(&t, json!({}));
    let expected = mask(&DEFAULT_CAPABILITIES);
    for field in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(bits(&status, field), expected, "{field} {}", status[field]);
    }
    for field in ["CapInh", "CapAmb"] {
        assert_eq!(bits(&status, field), 0, "{field}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    t.finish();
}

#[test]
fn a_plain_user_has_no_capability_in_force() {
    let t = Bed::new();
    let status = capabilities(&t, json!({"user": "1000"}));
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(bits(&status, field), 0, "{field} {}", status[field]);
    }
    assert_eq!(bits(&status, "CapBnd"), mask(&DEFAULT_CAPABILITIES));
    t.finish();
}

#[test]
fn capabilities_are_dropped_first_and_then_added() {
    let t = Bed::new();
    let status = capabilities(
        &t,
        json!({"capabilities": {"drop": ["ALL"], "add": ["CAP_CHOWN", "net_admin"]}}),
    );
    assert_eq!(bits(&status, "CapEff"), mask(&[0, 12]));
    let status = capabilities(&t, json!({"capabilities": {"drop": ["KILL"]}}));
    assert_eq!(
        bits(&status, "CapEff"),
        mask(&DEFAULT_CAPABILITIES) & !mask(&[5])
    );
    t.finish();
}

#[test]
fn privileged_has_all_of_the_daemons_capabilities_and_nothing_masked() {
    let t = Bed::new();
    let status = capabilities(&t, json!({"privileged": true}));
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(
        bits(&status, "CapEff"),
        bits(&proc::parse_status(&own), "CapBnd")
    );
    let out = t.sh_with(
        "grep -c ' /proc/sys ' /proc/mounts; grep ' /sys ' /proc/mounts",
        json!({"privileged": true}),
    );
    assert!(out.starts_with("0\n") && out.contains("sysfs rw"), "{out}");
    t.finish();
}

#[test]
fn no_new_privileges_can_be_switched_off() {
    let t = Bed::new();
    let status = capabilities(&t, json!({"no_new_privileges": false}));
    assert_eq!(status["NoNewPrivs"], "0");
    t.finish();
}

#[test]
fn only_three_descriptors_are_open() {
    let t = Bed::new();
    // ls itself has the directory open.
    let (_, out) = t.run(&busybox(&["ls", "/proc/self/fd"]));
    assert_eq!(out, "0\n1\n2\n3\n");
    let c = id(&t.sleeper());
    assert_eq!(t.exec(&c, &["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    t.finish();
}

#[test]
fn without_stdin_the_program_reads_nothing() {
    let t = Bed::new();
    assert_eq!(t.sh("wc -c; readlink /proc/self/fd/0"), "0\n/dev/null\n");
    t.finish();
}

#[test]
fn the_program_is_pid_1_and_leads_its_session() {
    let t = Bed::new();
    let out =
        t.sh("echo $$; cut -d' ' -f1,5,6 /proc/self/stat; exec cut -d' ' -f1,5,6 /proc/self/stat");
    assert!(out.starts_with("1\n"), "{out}");
    assert!(out.ends_with("1 1 1\n"), "{out}");
    t.finish();
}

#[test]
fn init_reaps_orphans_and_forwards_signals() {
    let t = Bed::new();
    let script = "trap 'echo got term; exit 6' TERM; (sh -c 'sleep 0.1 &' &); sleep 0.5; \
        echo pid $$; ls -d /proc/[0-9]* | wc -l; echo ready; while :; do sleep 0.05; done";
    let container = t.start(&with(busybox(&["sh", "-c", script]), json!({"init": true})));
    let c = id(&container);
    proc::until("it is ready", || t.stdout(&c).contains("ready"));
    let out = t.stdout(&c);
    assert!(!out.contains("pid 1\n"), "the program is not PID 1: {out}");
    let zombies = t.exec(
        &c,
        &["sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l"],
    );
    assert_eq!(zombies.trim(), "0");
    let _none = t
        .post_json(
            &format!("/v1/containers/{c}/kill"),
            &json!({"signal": "TERM"}),
        )
        .expect(204);
    assert_eq!(code(&t.exit(&c)), Some(6));
    assert!(t.stdout(&c).contains("got term"));
    t.finish();
}

#[test]
fn a_terminal_has_its_first_size_and_is_the_controlling_one() {
    let t = Bed::new();
    let out = t.sh_with(
        "stty size; tty; echo $TERM; ls -l /dev/console | cut -c1; echo hello > /dev/tty",
        json!({"terminal": true, "terminal_size": {"rows": 33, "cols": 101}}),
    );
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "33 101", "{out}");
    assert!(
        lines[1].starts_with("/dev/pts/") || lines[1] == "/dev/console",
        "{out}"
    );
    assert!(lines[2].starts_with("xterm"), "{out}");
    assert_eq!(&lines[3..], ["c", "hello"], "{out}");
    t.finish();
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set() {
    let t = Bed::new();
    let out = t.sh_with(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
        json!({"sysctls": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321"}}),
    );
    assert_eq!(out, "1\n4321\n");
    let host = with(
        busybox(&["true"]),
        json!({"sysctls": {"kernel.sysrq": "1"}}),
    );
    let response = t.post_json("/v1/containers", &host);
    assert_eq!(response.status(), 400, "{}", response.text());
    t.finish();
}

#[test]
fn oom_score_adj_is_set() {
    let t = Bed::new();
    let out = t.sh_with(
        "cat /proc/self/oom_score_adj",
        json!({"oom_score_adj": 500}),
    );
    assert_eq!(out, "500\n");
    t.finish();
}

#[test]
fn loopback_is_up_and_nothing_else_is_there() {
    let t = Bed::new();
    let out =
        t.sh("ls /sys/class/net; ip addr show lo; ping -c1 -w2 127.0.0.1 >/dev/null 2>&1; true");
    assert!(out.starts_with("lo\n"), "{out}");
    assert!(out.contains("127.0.0.1/8") && out.contains("UP"), "{out}");
    t.finish();
}

#[test]
fn the_pids_limit_holds_where_the_host_has_the_controller() {
    let t = Bed::new();
    let script = "n=0; while [ $n -lt 40 ]; do sleep 100 & n=$((n+1)); done";
    let config = with(
        busybox(&["sh", "-c", script]),
        json!({"resources": {"pids_limit": 12}}),
    );
    let (exit, _) = t.run(&config);
    assert_eq!(code(&exit), Some(2), "a fork beyond the limit fails");
    t.finish();
}

#[test]
fn a_process_over_its_memory_limit_is_told_as_oom_killed() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "x=a; while :; do x=$x$x$x$x; done"]),
        json!({"resources": {"memory": 16_777_216, "memory_swap": 16_777_216}}),
    );
    let (exit, out) = t.run(&config);
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 9, .. }),
        "{exit:?} {out}"
    );
    assert!(exit.oom_killed, "{exit:?}");
    t.finish();
}

#[test]
fn a_missing_program_is_127_and_one_that_is_no_program_126() {
    let t = Bed::new();
    for (command, errno, code) in [
        ("/no/such/program", "ENOENT", 127),
        ("nowhere-in-path", "ENOENT", 127),
        ("/etc/passwd", "EACCES", 126),
        ("/etc", "EACCES", 126),
    ] {
        let problem = t
            .post_json("/v1/containers?start=true", &busybox(&[command]))
            .problem(422, "start_failed");
        assert_eq!(problem.step.as_deref(), Some("exec"), "{problem:?}");
        assert_eq!(problem.errno.as_deref(), Some(errno), "{problem:?}");
        assert_eq!(problem.exit_code, Some(code), "{problem:?}");
        assert!(problem.detail.contains(command), "{problem:?}");
        let failed = t.inspect(&problem.id.expect("it is recorded"));
        assert_eq!(failed.summary.state, ContainerState::Failed);
        assert_eq!(failed.failure.expect("the reason").step, "exec");
    }
    t.finish();
}
