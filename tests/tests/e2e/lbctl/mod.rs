//! The command line, as a person and as a script use it.

mod files;
mod terminal;

use littlebox_tests::prelude::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The argument that names the busybox root.
fn root() -> String {
    format!("dir:{}", busybox_root().display())
}

#[test]
fn run_passes_output_input_and_exit_code_through() {
    let t = Bed::new();
    let out = t.lbctl(&[
        "run",
        "--rm",
        &root(),
        "sh",
        "-c",
        "echo out; echo err >&2; exit 23",
    ]);
    assert_eq!(out.status.code(), Some(23), "{}", text(&out.stderr));
    assert_eq!(
        (text(&out.stdout).as_str(), text(&out.stderr).as_str()),
        ("out\n", "err\n")
    );
    let out = t.lbctl_stdin(&["run", "--rm", "-i", &root(), "sort"], b"b\na\n");
    assert_eq!(text(&out.stdout), "a\nb\n");
    assert!(t.list().is_empty());
    t.finish();
}

#[test]
fn run_loses_no_byte_of_a_large_output() {
    let t = Bed::new();
    let out = t.lbctl(&[
        "run",
        "--rm",
        &root(),
        "sh",
        "-c",
        "yes 0123456789abcde | head -c 33554432",
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(out.stdout.len(), 33_554_432);
    t.finish();
}

#[test]
fn exit_codes_are_125_126_127_and_128_plus_the_signal() {
    let t = Bed::new();
    let code = |args: &[&str]| {
        let out = t.lbctl(args);
        (out.status.code(), text(&out.stderr))
    };
    for (args, expected) in [
        (vec!["run", "--rm", "ROOT", "/no/such/program"], 127),
        (vec!["run", "--rm", "ROOT", "/etc/passwd"], 126),
        (vec!["run", "--rm", "dir:/no/such/root", "true"], 125),
        (vec!["run", "--rm", "--no-such-flag", "ROOT", "true"], 125),
        (
            vec!["run", "--rm", "--init", "ROOT", "sh", "-c", "kill -KILL $$"],
            137,
        ),
    ] {
        let root = root();
        let args: Vec<&str> = args
            .iter()
            .map(|a| if *a == "ROOT" { &root } else { *a })
            .collect();
        let (got, stderr) = code(&args);
        assert_eq!(got, Some(expected), "{args:?}: {stderr}");
        assert!(
            expected == 137 || !stderr.is_empty(),
            "{args:?}: no word on stderr"
        );
    }
    t.finish();
}

#[test]
fn flags_become_configuration() {
    let t = Bed::new();
    let dir = t.dirs.base_path.join("vol");
    std::fs::create_dir(&dir).unwrap();
    let volume = format!("{}:/v:ro", dir.display());
    let root = root();
    let script = "echo $K; pwd; id -u; hostname; touch /v/x 2>&1; true";
    let out = t.lbctl_ok(&[
        "run",
        "--rm",
        "-e",
        "K=value",
        "-v",
        &volume,
        "-w",
        "/var",
        "-u",
        "user",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--name",
        "flags",
        "--ns",
        "uts=host",
        &root,
        "sh",
        "-c",
        script,
    ]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(
        out.starts_with(&format!("value\n/var\n1000\n{host}")),
        "{out}"
    );
    assert!(out.contains("Read-only file system"), "{out}");
    std::fs::remove_dir(dir).unwrap();
    t.finish();
}

#[test]
fn detached_run_prints_the_id_and_ps_lists_it() {
    let t = Bed::new();
    let root = root();
    let out = t.lbctl_ok(&["run", "-d", "--name", "bg", &root, "sleep", "1000"]);
    let c = id(&t.inspect("bg"));
    assert_eq!(out.trim(), c);
    let ps = t.lbctl_ok(&["ps"]);
    assert!(ps.contains("bg") && ps.contains("running"), "{ps}");
    assert!(ps.lines().count() == 2, "{ps}");
    let json: Value = serde_json::from_str(&t.lbctl_ok(&["--json", "ps"])).unwrap();
    assert!(json.to_string().contains(&c), "{json}");
    let _out = t.lbctl_ok(&["stop", "bg"]);
    assert!(!t.lbctl_ok(&["ps"]).contains("bg"));
    assert!(t.lbctl_ok(&["ps", "-a"]).contains("bg"));
    t.finish();
}

#[test]
fn a_container_is_led_through_its_life() {
    let t = Bed::new();
    let root = root();
    let _id = t.lbctl_ok(&[
        "create",
        "--name",
        "life",
        &root,
        "sh",
        "-c",
        "trap 'exit 4' TERM; while :; do sleep 0.1; done",
    ]);
    assert_eq!(t.state("life"), ContainerState::Created);
    t.lbctl_ok(&["start", "life"]);
    t.lbctl_ok(&["pause", "life"]);
    assert_eq!(t.state("life"), ContainerState::Paused);
    t.lbctl_ok(&["resume", "life"]);
    t.lbctl_ok(&["restart", "life"]);
    assert_eq!(t.state("life"), ContainerState::Running);
    t.lbctl_ok(&["kill", "life"]);
    let wait = t.lbctl(&["wait", "life"]);
    assert_eq!(text(&wait.stdout).trim(), "137", "{}", text(&wait.stderr));
    t.lbctl_ok(&["rm", "life"]);
    assert!(t.list().is_empty());
    let gone = t.lbctl(&["inspect", "life"]);
    assert!(!gone.status.success());
    assert!(
        text(&gone.stderr).contains("life"),
        "{}",
        text(&gone.stderr)
    );
    t.finish();
}

#[test]
fn exec_runs_with_its_own_code_input_user_and_directory() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let out = t.lbctl(&["exec", &c, "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!(out.status.code(), Some(9));
    assert_eq!(
        (text(&out.stdout).as_str(), text(&out.stderr).as_str()),
        ("out\n", "err\n")
    );
    let out = t.lbctl_stdin(&["exec", "-i", &c, "cat"], b"through\n");
    assert_eq!(text(&out.stdout), "through\n");
    let out = t.lbctl_ok(&[
        "exec",
        "-u",
        "user",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        &c,
        "sh",
        "-c",
        "id -u; pwd; echo $A",
    ]);
    assert_eq!(out, "1000\n/tmp\nb\n");
    assert_eq!(t.lbctl(&["exec", &c, "/no/such"]).status.code(), Some(127));
    t.finish();
}

#[test]
fn logs_follow_tail_and_keep_streams_apart() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "for i in 1 2 3; do echo o$i; echo e$i >&2; sleep 0.1; done",
    ])));
    let out = t.lbctl(&["logs", "-f", &c]);
    assert_eq!(
        (text(&out.stdout).as_str(), text(&out.stderr).as_str()),
        ("o1\no2\no3\n", "e1\ne2\ne3\n")
    );
    let out = t.lbctl(&["logs", "--tail", "1", &c]);
    assert_eq!(text(&out.stdout) + &text(&out.stderr), "e3\n");
    let out = t.lbctl(&["logs", "-t", &c]);
    assert!(
        text(&out.stdout)
            .lines()
            .all(|l| l.starts_with("20") && l.contains("Z o"))
    );
    t.finish();
}

#[test]
fn inspect_top_stats_diff_ns_events_and_version_tell() {
    let t = Bed::new();
    let container = t.start(&with(sleeper_config(), json!({"name": "told"})));
    t.exec("told", &["touch", "/tmp/new"]);
    let inspect: Value = serde_json::from_str(&t.lbctl_ok(&["inspect", "told"])).unwrap();
    assert!(inspect.to_string().contains(&id(&container)));
    assert!(t.lbctl_ok(&["top", "told"]).contains("sleep 1000"));
    let stats = t.lbctl_ok(&["--json", "stats", "--no-stream", "told"]);
    assert!(stats.contains("cpu_ns"), "{stats}");
    assert!(t.lbctl_ok(&["diff", "told"]).contains("/tmp/new"));
    let ns = t.lbctl_ok(&["ns", "told"]);
    let inode = proc::namespace(pid1(&container), "net").to_string();
    assert!(ns.contains(&inode), "{ns}");
    let events = t.lbctl_ok(&["events", "--since", "0", "--no-follow"]);
    assert!(events.contains("container.started"), "{events}");
    assert!(t.lbctl_ok(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(t.lbctl_ok(&["system"]).contains(&t.pid().to_string()));
    t.finish();
}

#[test]
fn explain_prints_the_steps_and_makes_nothing() {
    let t = Bed::new();
    let out = t.lbctl_ok(&["run", "--explain", &root(), "true"]);
    for word in ["pivot_root", "unshare", "mount"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    assert!(t.list().is_empty());
    t.finish();
}

#[test]
fn a_signal_to_lbctl_run_reaches_the_program() {
    let t = Bed::new();
    let root = root();
    let script = "trap 'echo told; exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    let child = t
        .lbctl_command(&["run", "--rm", "--name", "sig", &root, "sh", "-c", script])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    proc::until("it is ready", || {
        t.get("/v1/containers/sig").status() == 200
            && t.send(&Request::new(Method::Get, "/v1/containers/sig/logs"))
                .text()
                .contains("ready")
    });
    proc::kill(child.id(), Signal::TERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(8), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "ready\ntold\n");
    t.finish();
}

#[test]
fn errors_say_what_and_what_to_do() {
    let t = Bed::new();
    let out = t.lbctl(&["start", "nobody"]);
    assert_eq!(out.status.code(), Some(1));
    let stderr = text(&out.stderr);
    assert!(
        stderr.contains("nobody") && stderr.contains("hint:"),
        "{stderr}"
    );
    let out = t.lbctl(&["--json", "start", "nobody"]);
    let problem: Problem = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(problem.code, "container_not_found");
    let out = t.lbctl(&["--json", "run", "--no-such-flag"]);
    assert_eq!(out.status.code(), Some(125));
    let problem: Problem = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(problem.code, "usage");
    assert_eq!(problem.detail, "unexpected argument '--no-such-flag' found");
    assert!(problem.hint.unwrap().contains("Usage: lbctl run"));
    let out = t.lbctl(&["--socket", "/no/such/socket", "ps"]);
    assert_eq!(out.status.code(), Some(1));
    let stderr = text(&out.stderr);
    assert!(
        stderr.contains("/no/such/socket") && stderr.contains("hint:"),
        "{stderr}"
    );
    t.finish();
}

#[test]
fn output_that_is_no_terminal_has_no_escapes() {
    let t = Bed::new();
    let _c = t.sleeper();
    for args in [&["ps"][..], &["system"], &["version"], &["--help"]] {
        let out = t.lbctl_ok(args);
        assert!(!out.contains('\x1b'), "{args:?}: {out:?}");
    }
    t.finish();
}

#[test]
fn an_explicit_limit_of_the_log_holds_in_the_foreground_and_loses_nothing() {
    let t = Bed::new();
    let root = root();
    let script = "head -c 60000000 /dev/zero | tr '\\0' 'x' | fold -w 999";
    let limit = ["--log-opt", "max-size=1m", "--log-opt", "max-files=1"];
    let args = [
        &["run", "--name", "loud"][..],
        &limit,
        &[&root, "sh", "-c", script],
    ];
    let out = t.lbctl(&args.concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(
        out.stdout.iter().filter(|b| **b == b'x').count(),
        60_000_000
    );
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
    let container = t.dirs.state.join("containers").join(id(&t.inspect("loud")));
    let kept: u64 = std::fs::read_dir(container.join("log"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!((1..20 << 20).contains(&kept), "{kept} bytes are kept");
    t.finish();
}

#[test]
fn of_two_values_of_a_variable_the_later_one_holds() {
    let t = Bed::new();
    let root = root();
    let file = t.dirs.base_path.join("env");
    std::fs::write(&file, "\u{feff}A=file\nB=first\nB=second\n").unwrap();
    let file = file.to_str().unwrap();
    let out = t.lbctl_ok(&[
        "run",
        "--rm",
        "--env-file",
        file,
        "-e",
        "A=1",
        "-e",
        "A=2",
        "-e",
        "C=1",
        "-e",
        "C",
        &root,
        "sh",
        "-c",
        "echo $A $B [$C]",
    ]);
    assert_eq!(out, "2 second []\n");
    t.finish();
}

/// The steps' commands, typed by a shell, make what the daemon makes.
#[test]
fn the_explained_commands_work_on_this_host() {
    let t = Bed::new();
    let root = root();
    let limits = [
        "--pids-limit",
        "77",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--cpu-weight",
        "50",
        "--cpuset-cpus",
        "0",
    ];
    let run = |more: &[&str]| {
        let args = [more, &limits[..], &[&root, "sleep", "1000"]].concat();
        t.lbctl_ok(&args)
    };
    let plan: Value = serde_json::from_str(&run(&["--json", "run", "--explain"])).unwrap();
    let commands = |step: &str| -> Vec<String> {
        let steps = plan["steps"].as_array().unwrap();
        let found = steps.iter().find(|s| s["step"] == step).unwrap();
        serde_json::from_value(found["commands"].clone()).unwrap()
    };
    let made: Vec<String> = commands("cgroup");
    let dirs: Vec<&str> = made
        .iter()
        .filter_map(|c| c.strip_prefix("mkdir -p "))
        .collect();
    let script = [
        vec!["set -eux; sleep 1000 & PID=$!; trap 'kill $PID; wait $PID || true' EXIT".to_owned()],
        made.clone(),
        commands("cgroup_attach"),
        vec!["cat /proc/$PID/cgroup >&2".to_owned()],
    ]
    .concat()
    .join("\n");
    let out = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let seen = text(&out.stderr);
    let _id = run(&["run", "-d", "--name", "real"]);
    let real = t.inspect("real");
    let mut compared = 0;
    for dir in &dirs {
        let own = real.cgroups.values().find(|real| {
            std::path::Path::new(real.as_str()).parent() == std::path::Path::new(dir).parent()
        });
        let own = own.unwrap_or_else(|| panic!("{dir} is none of {:?}", real.cgroups));
        for file in [
            "pids.max",
            "memory.max",
            "memory.limit_in_bytes",
            "cpu.max",
            "cpu.cfs_quota_us",
            "cpu.weight",
            "cpu.shares",
            "cpuset.cpus",
        ] {
            let read = |dir: &str| std::fs::read_to_string(format!("{dir}/{file}")).ok();
            let (explained, real) = (read(dir), read(own));
            assert_eq!(explained, real, "{dir}/{file}\n{seen}");
            compared += usize::from(real.is_some());
        }
    }
    for dir in &dirs {
        std::fs::remove_dir(dir).unwrap();
    }
    assert!(out.status.success(), "{seen}");
    assert!(compared >= 5, "only {compared} limits were compared");
    t.finish();
}
