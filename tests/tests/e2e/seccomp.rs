//! Seccomp: from inside, by the native entry and by the 32-bit one.

use littlebox_tests::daemon::binary;
use littlebox_tests::prelude::*;

/// A configuration that runs the auditor with these arguments in the busybox root.
fn auditor(args: &[&str]) -> Value {
    let mount = json!({"type": "bind", "source": binary("littlebox-auditor"),
        "destination": "/auditor", "read_only": true});
    let command: Vec<&str> = ["/auditor"].iter().chain(args).copied().collect();
    with(busybox(&command), json!({"mounts": [mount]}))
}

/// A running container in which the auditor can be executed.
fn bed_with_auditor(t: &Bed, more: Value) -> String {
    let sleeper = with(sleeper_config(), json!({"mounts": auditor(&[])["mounts"]}));
    let container = t.start(&with(sleeper, more));
    t.ready(&id(&container));
    id(&container)
}

/// What a call returned in a container, by an exec.
fn call(t: &Bed, container: &str, call: &str) -> String {
    let words: Vec<&str> = ["/auditor"].into_iter().chain(call.split(' ')).collect();
    t.exec(container, &words).trim().to_owned()
}

#[test]
fn calls_that_break_out_are_denied_by_default_and_not_without_a_filter() {
    let t = Bed::new();
    let closed = bed_with_auditor(&t, json!({}));
    for (what, result) in [
        ("call unshare 0", "errno 1"),
        ("call unshare 0x10000000", "errno 1"),
        ("call clone 0x10000011", "errno 1"),
        ("call clone3 0 0", "errno 38"),
        ("call mount 0 0 0 0 0", "errno 1"),
        ("call setns 0 0", "errno 1"),
        ("call io_uring_setup 1 0", "errno 1"),
        ("call userfaultfd 0", "errno 1"),
        ("call keyctl 0 0", "errno 1"),
        ("call add_key 0 0 0 0 0", "errno 1"),
        ("call request_key 0 0 0 0", "errno 1"),
        ("call bpf 0 0 0", "errno 1"),
        ("call perf_event_open 0 0 0 0 0", "errno 1"),
        ("call socket 38 5 0", "errno 1"),
        ("call socket 40 1 0", "errno 1"),
        ("call socket 0x100000026 5 0", "errno 1"),
        ("call socket 16 3 9", "errno 22"),
        ("call ioctl 0 0x5412 0", "errno 1"),
        ("call ioctl 0 0xff00005412 0", "errno 1"),
        ("call ioctl 0 0x541c 0", "errno 1"),
        ("call personality 0x400000", "errno 1"),
        ("call 999", "errno 38"),
        ("call 0x40000027", "errno 38"),
    ] {
        let what_number = what.replace("0x40000027", "1073741863");
        assert_eq!(call(&t, &closed, &what_number), result, "{what}");
    }
    for what in [
        "call getpid",
        "call socket 1 1 0",
        "call socket 2 1 0",
        "call personality 0xffffffff",
    ] {
        assert!(call(&t, &closed, what).starts_with("ok "), "{what}");
    }
    let open = bed_with_auditor(&t, json!({"seccomp": "unconfined"}));
    for (what, result) in [
        ("call unshare 0", "ok 0"),
        ("call clone3 0 0", "errno 22"),
        ("call mount 0 0 0 0 0", "errno 14"),
        ("call personality 0x400000", "ok 0"),
        ("call ioctl 0 0x5412 0", "errno 25"), // /dev/null is no terminal
        ("call request_key 0 0 0 0", "errno 14"),
        ("call io_uring_setup 0 0", "errno 22"),
    ] {
        let got = call(&t, &open, what);
        // A kernel may be built without a call, or a sysctl may forbid it.
        assert!(
            got == result || got == "errno 38" || what.contains("io_uring"),
            "{what}: {got}"
        );
    }
    t.finish();
}

#[test]
fn the_32_bit_entry_is_closed_unless_the_profile_names_it() {
    let t = Bed::new();
    let (exit, out) = t.run(&auditor(&["call32", "20"]));
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 31, .. }),
        "{exit:?} {out}"
    );
    // socket(AF_ALG) directly and through socketcall.
    for call in [
        &["call32", "359", "38", "5"][..],
        &["call32", "102", "1", "0"],
    ] {
        let (exit, out) = t.run(&auditor(call));
        assert!(
            matches!(exit.status, ExitStatus::Signaled { signal: 31, .. }),
            "{exit:?} {out}"
        );
    }
    let open = t.run(&with(
        auditor(&["call32", "20"]),
        json!({"seccomp": "unconfined"}),
    ));
    assert_eq!((code(&open.0), open.1.as_str()), (Some(0), "ok 1\n"));
    let named = json!({"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}],
    }});
    for (number, result) in [("20", "ok 1\n"), ("64", "errno 77\n")] {
        let (exit, out) = t.run(&with(auditor(&["call32", number]), named.clone()));
        assert_eq!((code(&exit), out.as_str()), (Some(0), result), "{number}");
    }
    t.finish();
}

/// `Seccomp:` and `NoNewPrivs:` of a process.
fn mode(t: &Bed, container: &str, config: Value) -> String {
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\n\\t '";
    let exec = t.exec_with(
        container,
        &with(json!({"command": ["sh", "-c", script]}), config),
    );
    exec.output.expect("wait shows the output").stdout
}

#[test]
fn every_process_of_a_container_is_filtered() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({"init": true})));
    let all = t.exec(
        &c,
        &[
            "sh",
            "-c",
            "cat /proc/[0-9]*/status | grep ^Seccomp: | sort | uniq -c",
        ],
    );
    let modes: Vec<&str> = all.split_whitespace().skip(1).collect();
    assert_eq!(modes, ["Seccomp:", "2"], "init, program and exec: {all}");
    assert_eq!(mode(&t, &c, json!({})), "NoNewPrivs:1Seccomp:2");
    assert_eq!(
        mode(&t, &c, json!({"privileged": true})),
        "NoNewPrivs:1Seccomp:0"
    );
    for (config, expected) in [
        (json!({"privileged": true}), "0"),
        (json!({"privileged": true, "seccomp": "default"}), "2"),
        (json!({"seccomp": "unconfined"}), "0"),
    ] {
        let out = t.sh_with("grep ^Seccomp: /proc/self/status", config.clone());
        assert_eq!(out.split_whitespace().last(), Some(expected), "{config}");
    }
    t.finish();
}

#[test]
fn capabilities_open_calls_for_a_container_and_for_an_exec() {
    let t = Bed::new();
    let c = bed_with_auditor(&t, json!({}));
    assert_eq!(call(&t, &c, "call unshare 0"), "errno 1");
    let exec = t.exec_with(
        &c,
        &json!({
        "command": ["/auditor", "call", "unshare", "0"], "capabilities": {"add": ["SYS_ADMIN"]}}),
    );
    assert_eq!(exec.output.expect("output").stdout, "ok 0\n");
    let more = json!({"capabilities": {"add": ["SYS_ADMIN"]}});
    let (_, out) = t.run(&with(auditor(&["call", "unshare", "0"]), more));
    assert_eq!(out, "ok 0\n");
    t.finish();
}

#[test]
fn without_no_new_privileges_the_filter_is_on_and_nothing_is_left_of_what_it_took() {
    let t = Bed::new();
    for config in [json!({}), json!({"user": "1000"}), json!({"init": true})] {
        let config = with(config, json!({"no_new_privileges": false}));
        let out = t.sh_with(
            "grep -E '^(Cap|NoNew|Seccomp:)' /proc/1/status /proc/self/status",
            config.clone(),
        );
        let status: Vec<(&str, &str)> = out
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(":\t"))
            .collect();
        assert_eq!(status.len(), 14, "{out}");
        for (key, value) in status {
            match key {
                "NoNewPrivs" => assert_eq!(value, "0", "{config} {out}"),
                "Seccomp" => assert_eq!(value, "2", "{config} {out}"),
                _ => {
                    let sys_admin = u64::from_str_radix(value, 16).unwrap() >> 21 & 1;
                    assert_eq!(sys_admin, 0, "{key} {config} {out}");
                }
            }
        }
    }
    t.finish();
}

#[test]
fn a_profile_of_ones_own_decides_and_is_shown() {
    let t = Bed::new();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
        {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
    ]});
    let file = t.dirs.base_path.join("profile.json");
    std::fs::write(&file, profile.to_string()).unwrap();
    let option = format!("seccomp={}", file.display());
    let root = format!("dir:{}", busybox_root().display());
    let script = "mkdir /x; kill -USR1 $$; kill -0 $$ && echo alive";
    let out = t.lbctl(&[
        "run",
        "--name",
        "own",
        "--security-opt",
        &option,
        &root,
        "sh",
        "-c",
        script,
    ]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("Read-only file system"), "{stderr}");
    assert!(
        stderr.contains("Operation not permitted") || stderr.contains("can't kill"),
        "{stderr}"
    );
    assert_eq!(out.stdout, b"alive\n", "{stderr}");
    let shown = serde_json::to_value(t.inspect("own").config).unwrap();
    assert_eq!(shown["seccomp"], profile);
    // Again from the record.
    let _started = t.post("/v1/containers/own/start?wait=30s");
    assert_eq!(t.exit("own").status, ExitStatus::Exited { code: 0 });

    let (exit, _) = t.run(&with(
        auditor(&["call", "sethostname"]),
        json!({"seccomp": profile}),
    ));
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 31, .. }),
        "{exit:?}"
    );
    t.finish();
}

/// What a static program needs to live and end, and nothing that a start takes.
const STRICT: [&str; 26] = [
    "execve",
    "brk",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "readlink",
    "readlinkat",
    "getrandom",
    "mprotect",
    "mmap",
    "munmap",
    "exit_group",
    "getuid",
    "prctl",
    "newfstatat",
    "fstat",
    "write",
    "poll",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "sched_getaffinity",
    "ioctl",
    "uname",
];

#[test]
fn a_profile_need_not_allow_what_a_start_takes() {
    let t = Bed::new();
    let profile = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        {"names": STRICT, "action": "SCMP_ACT_ALLOW"}]});
    let (exit, out) = t.run(&with(
        busybox(&["echo", "hello"]),
        json!({"seccomp": profile}),
    ));
    assert_eq!(
        (code(&exit), out.as_str()),
        (Some(0), "hello\n"),
        "{exit:?}"
    );
    // It bites: cat opens a file.
    let (exit, _) = t.run(&with(
        busybox(&["cat", "/etc/motd"]),
        json!({"seccomp": profile}),
    ));
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 31, .. }),
        "{exit:?}"
    );
    // And what cannot be started is still told.
    let problem = t
        .post_json(
            "/v1/containers?start=true",
            &with(busybox(&["/no/such"]), json!({"seccomp": profile})),
        )
        .problem(422, "start_failed");
    assert_eq!(
        (problem.step.as_deref(), problem.exit_code),
        (Some("exec"), Some(127))
    );
    t.finish();
}

#[test]
fn a_bad_profile_is_400_at_the_field_and_makes_nothing() {
    let t = Bed::new();
    let cases = [
        (json!("off"), "/seccomp"),
        (json!(["default"]), "/seccomp"),
        (json!({}), "/seccomp/defaultAction"),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO"}),
            "/seccomp/syscalls",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoret": 1}),
            "/seccomp/defaultErrnoret",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
            "/seccomp/listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "/seccomp/syscalls/0/args/0/index",
        ),
    ];
    t.refuses(cases.map(|(profile, pointer)| (json!({"seccomp": profile}), pointer)));
    t.finish();
}

#[test]
fn the_plan_tells_of_the_filter() {
    let t = Bed::new();
    let step = |config: Value| {
        let config = with(busybox(&["true"]), config);
        let plan: Plan = t
            .post_json("/v1/containers?dry_run=true", &config)
            .expect(200)
            .json();
        let names: Vec<String> = plan.steps.iter().map(|s| s.step.clone()).collect();
        let at = names.iter().position(|name| name == "seccomp");
        at.map(|at| {
            assert_eq!(names[at + 1], "exec", "the last before the program");
            plan.steps[at].what.clone()
        })
    };
    assert!(
        step(json!({}))
            .expect("a filter")
            .contains("the default profile")
    );
    let unknown = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["not_a_call", "read"], "action": "SCMP_ACT_LOG"}]});
    assert!(
        step(json!({"seccomp": unknown}))
            .expect("a filter")
            .contains("passed over: not_a_call")
    );
    assert_eq!(step(json!({"seccomp": "unconfined"})), None);
    assert_eq!(step(json!({"privileged": true})), None);
    t.finish();
}

#[test]
fn the_daemons_configuration_names_another_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seccomp.json");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]});
    std::fs::write(&file, profile.to_string()).unwrap();
    let text = format!("seccomp_profile = \"{}\"\n", file.display());
    let t = Bed::builder().config(&text).build();
    assert_eq!(t.sh("mkdir /x 2>&1 | grep -c 'Read-only'; true"), "1\n");
    t.finish();

    std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_WHAT"}"#).unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, text).unwrap();
    let out = std::process::Command::new(binary("littleboxd"))
        .args(["--check-config", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(
        stderr.contains("seccomp.json") && stderr.contains("/defaultAction"),
        "{stderr}"
    );
}
