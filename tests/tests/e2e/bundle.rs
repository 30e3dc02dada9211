//! Containers that an OCI runtime spec describes, inline or in a bundle.

use std::path::{Path, PathBuf};

use littlebox_tests::prelude::*;

/// A spec as `runc spec` writes it, shortened, that runs a script in this root.
fn spec(root: &Path, script: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "FROM=spec"],
            "cwd": "/tmp",
            "capabilities": {
                "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            },
            "noNewPrivileges": true,
        },
        "root": {"path": root, "readonly": false},
        "hostname": "from-spec",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                           {"type": "network"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"],
        },
    })
}

/// A root of the test's own that may be written to: busybox, and nothing else.
fn root(t: &Bed) -> PathBuf {
    let root = t.dirs.base_path.join("root");
    for dir in ["bin", "proc", "dev", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy(busybox_root().join("bin/busybox"), root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "id", "hostname", "sleep", "grep", "pwd", "touch", "env", "ls",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    root
}

fn bundle(t: &Bed, script: &str) -> PathBuf {
    let root = root(t);
    let dir = root.parent().unwrap().to_path_buf();
    let text = spec(Path::new("root"), script).to_string();
    std::fs::write(dir.join("config.json"), text).unwrap();
    dir
}

const SLEEP: &str = "touch /written; echo ready; exec sleep 1000";

#[test]
fn an_inline_spec_makes_a_container_that_is_used_like_others() {
    let mut t = Bed::new();
    let root = root(&t);
    let config = json!({"name": "web", "labels": {"a": "b"}, "spec": spec(&root, SLEEP)});
    let container = t.start(&config);
    let c = id(&container);
    t.ready(&c);
    assert_eq!(container.summary.rootfs, format!("bind:{}", root.display()));
    assert_eq!(container.summary.command, ["/bin/sh", "-c", SLEEP]);
    assert_eq!(container.upper_dir, None);
    // The root is the directory as it is.
    assert!(root.join("written").exists());
    // An exec is as the spec's process, but for what it says itself.
    assert_eq!(
        t.exec(&c, &["sh", "-c", "echo $FROM; pwd; hostname"]),
        "spec\n/tmp\nfrom-spec\n"
    );
    let other = json!({"command": ["sh", "-c", "echo $FROM; pwd; id -u"], "env": {"FROM": "exec"},
                       "working_dir": "/etc", "user": "7"});
    let exec = t.exec_with(&c, &other);
    assert_eq!(exec.output.unwrap().stdout, "exec\n/etc\n7\n");
    let caps = t.exec(
        &c,
        &["grep", "-E", "CapBnd|NoNewPrivs", "/proc/self/status"],
    );
    assert_eq!(caps, "CapBnd:\t0000000000000020\nNoNewPrivs:\t1\n");
    // After a restart of the daemon as well.
    t.crash();
    assert_eq!(t.exec(&c, &["hostname"]), "from-spec\n");
    // There is nothing to compare the root with.
    t.get("/v1/containers/web/changes")
        .problem(409, "invalid_state");
    let stat: FileStat = t
        .get("/v1/containers/web/files?path=/written&stat=true")
        .expect(200)
        .json();
    assert_eq!(stat.kind, "file");
    let plan: Plan = t.get("/v1/containers/web/plan").expect(200).json();
    assert!(plan.steps.iter().any(|s| s.step == "exec"));
    // What it is less closed by than a default one.
    let relaxations = t.inspect(&c).relaxations;
    for expected in ["host time namespace", "unmasked: /proc/keys"] {
        assert!(
            relaxations.iter().any(|r| r == expected),
            "{expected}: {relaxations:?}"
        );
    }
    t.remove(&c);
    assert!(
        root.join("written").exists(),
        "the root is not the daemon's to remove"
    );
    t.finish();
}

#[test]
fn a_bundle_is_read_once_and_its_paths_are_relative_to_it() {
    let t = Bed::new();
    let dir = bundle(&t, "cat /etc/given; exit 5");
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    std::fs::write(dir.join("given"), "relative\n").unwrap();
    config["mounts"].as_array_mut().unwrap().push(
        json!({"destination": "/etc/given", "type": "bind", "source": "given", "options": ["bind", "ro"]}),
    );
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let container = t.create(&json!({"bundle": dir}));
    let c = id(&container);
    assert_eq!(container.config.spec, Some(config));
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    assert_eq!(code(&t.exit(&c)), Some(5));
    assert_eq!(t.stdout(&c), "relative\n");
    t.finish();
}

#[test]
fn an_overlay_keeps_the_root_as_it_is() {
    let t = Bed::new();
    let root = root(&t);
    let config = json!({"spec": spec(&root, "touch /written; echo done"), "overlay": true});
    let c = id(&t.start(&config));
    assert_eq!(code(&t.exit(&c)), Some(0));
    assert!(!root.join("written").exists());
    let changes: Changes = t
        .get(&format!("/v1/containers/{c}/changes"))
        .expect(200)
        .json();
    assert!(changes.items.iter().any(|change| change.path == "/written"));
    t.finish();
}

#[test]
fn namespaces_of_a_spec_are_joined_by_their_path() {
    let t = Bed::new();
    let other = t.sleeper();
    let mut spec = spec(&root(&t), "hostname");
    let path = format!("/proc/{}/ns/uts", pid1(&other));
    spec["linux"]["namespaces"][2] = json!({"type": "uts", "path": path});
    spec.as_object_mut().unwrap().remove("hostname");
    let (exit, out) = t.run(&json!({"spec": spec}));
    assert_eq!(code(&exit), Some(0));
    assert_eq!(out, t.exec(&id(&other), &["hostname"]));
    t.remove(&id(&other));
    t.finish();
}

#[test]
fn what_is_wrong_in_a_spec_is_named_in_the_request() {
    let t = Bed::new();
    let root = root(&t);
    let changed = |pointer: &str, value: Value| {
        let mut spec = spec(&root, "true");
        *spec.pointer_mut(pointer).unwrap() = value;
        json!({"spec": spec})
    };
    let with_field = |object: &str, key: &str, value: Value| {
        let mut spec = spec(&root, "true");
        spec.pointer_mut(object).unwrap()[key] = value;
        json!({"spec": spec})
    };
    let mut beside = json!({"spec": spec(&root, "true")});
    beside["command"] = json!(["true"]);
    for (body, pointer) in [
        (json!({"spec": {}}), "/spec/ociVersion"),
        (json!({"spec": 7}), "/spec"),
        (changed("/ociVersion", json!("2.0.0")), "/spec/ociVersion"),
        (changed("/process/args", json!([])), "/spec/process/args"),
        (changed("/process/args/0", json!(7)), "/spec/process/args/0"),
        (changed("/process/cwd", json!("tmp")), "/spec/process/cwd"),
        (
            changed("/process/capabilities/bounding/0", json!("CAP_FLY")),
            "/spec/process/capabilities/bounding/0",
        ),
        (changed("/root/path", json!("relative")), "/spec/root/path"),
        (changed("/root/path", json!("/")), "/spec/root/path"),
        (
            changed("/root/path", json!("/no/such/root")),
            "/spec/root/path",
        ),
        (
            with_field("", "hooks", json!({"prestart": [{"path": "/bin/true"}]})),
            "/spec/hooks/prestart",
        ),
        (
            with_field("/linux", "sysctl", json!({"kernel.panic": "1"})),
            "/spec/linux/sysctl/kernel.panic",
        ),
        (beside, "/command"),
        (json!({"bundle": "/no/such/bundle"}), "/bundle"),
        (json!({"bundle": "relative"}), "/bundle"),
        (json!({"bundle": "/x", "spec": {}}), "/spec"),
        (
            json!({"rootfs": "host", "command": ["true"], "overlay": true}),
            "/overlay",
        ),
    ] {
        for query in ["", "?dry_run"] {
            let problem = t
                .post_json(&format!("/v1/containers{query}"), &body)
                .problem(400, "invalid_request");
            assert_eq!(
                problem.pointer.as_deref(),
                Some(pointer),
                "{query} {body} {problem:?}"
            );
        }
    }
    let dir = root.parent().unwrap();
    for (text, part) in [
        ("{", "no JSON"),
        (
            r#"{"ociVersion": "1.0.0", "process": {"cwd": 7}}"#,
            "/process",
        ),
    ] {
        std::fs::write(dir.join("config.json"), text).unwrap();
        let problem = t
            .post_json("/v1/containers", &json!({"bundle": dir}))
            .problem(400, "invalid_request");
        assert_eq!(problem.pointer.as_deref(), Some("/bundle"));
        assert!(problem.detail.contains(part), "{problem:?}");
    }
    assert!(t.list().is_empty());
    t.finish();
}

#[test]
fn the_command_line_runs_a_bundle() {
    let t = Bed::new();
    let dir = bundle(&t, "hostname; exit 3");
    let dir = dir.to_str().unwrap();
    let out = t.lbctl(&["run", "--rm", "--bundle", dir]);
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "from-spec\n",
        "{out:?}"
    );
    assert_eq!(out.status.code(), Some(3));
    let made = t.lbctl(&["create", "--name", "b", "--bundle", dir]);
    assert!(made.status.success(), "{made:?}");
    let wrong = t.lbctl(&["create", "--read-only", "--bundle", dir]);
    assert_eq!(wrong.status.code(), Some(125), "{wrong:?}");
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("read_only"),
        "{wrong:?}"
    );
    t.finish();
}

#[test]
fn a_label_of_the_mounts_is_the_overlays_too() {
    // Without SELinux the label is refused, by name, instead of being left out.
    let t = Bed::new();
    let mut labelled = spec(&root(&t), "true");
    labelled["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    let config = json!({"spec": labelled, "overlay": true});
    let response = t.post_json("/v1/containers?start=true", &config);
    if Path::new("/sys/fs/selinux/enforce").exists() {
        let _started = response.expect(201);
        return t.finish();
    }
    let refused = response.problem(422, "start_failed");
    assert_eq!(refused.step.as_deref(), Some("rootfs"), "{refused:?}");
    assert!(refused.detail.contains("SELinux label"), "{refused:?}");
    t.finish();
}
#[test]
fn the_command_line_gives_a_bundles_program_the_terminal_that_it_asks_for() {
    let t = Bed::new();
    let dir = bundle(
        &t,
        "test -t 0 && test -t 1 && echo is-a-tty; busybox stty -a | grep -o 'rows 24'; cat",
    );
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(true);
    let pts = json!({"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666"]});
    config["mounts"].as_array_mut().unwrap().push(pts);
    std::fs::write(&path, config.to_string()).unwrap();
    let mut pty = t.lbctl_pty(&["run", "-i", "--rm", "--bundle", dir.to_str().unwrap()]);
    pty.until("is-a-tty");
    pty.until("rows 24");
    // Raw: what is typed is echoed by the container's terminal alone, and ^D is for its program.
    pty.send(b"typed\n\x04");
    assert_eq!(pty.wait(), 0);
    assert_eq!(pty.text().matches("typed").count(), 2, "{}", pty.text());
    t.finish();
}
