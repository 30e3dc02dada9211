//! What a container can reach of the helper: its program, its descriptors, its processes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::prelude::*;

/// From a descriptor of the helper to a path of the host: up until nothing is above.
fn outside(n: u32, path: &Path) -> String {
    format!("/proc/self/fd/{n}/../../../../../../..{}", path.display())
}

#[test]
fn a_program_starts_with_descriptors_0_1_and_2_alone() {
    // Row 2, CVE-2024-21626.
    let t = Bed::new();
    let more = json!({"mounts": [attacker::mount()]});
    for config in [
        json!({}),
        json!({"terminal": true}),
        json!({"stdin": true}),
        json!({"init": true}),
        json!({"user": "1000:1000"}),
    ] {
        let config = with(with(busybox(&["/attacker", "fds"]), more.clone()), config);
        let (_, out) = t.run(&config);
        assert_eq!(out.trim_end(), "0 1 2", "{config}");
    }
    let c = id(&t.sleeper_with(more));
    for exec in [
        json!({}),
        json!({"terminal": true}),
        json!({"stdin": true}),
        json!({"user": "1000"}),
    ] {
        let exec = with(json!({"command": ["/attacker", "fds"]}), exec);
        let exec = t.exec_with(&c, &exec);
        let out = exec.output.expect("wait shows the output").stdout;
        assert_eq!(out.trim_end(), "0 1 2");
    }
    t.finish();
}

#[test]
fn a_working_directory_through_a_descriptor_does_not_leave_the_root() {
    // Row 2, CVE-2024-21626. Each number, for a start and for an exec.
    let t = Bed::new();
    let canary = Canary::new();
    let c = id(&t.sleeper());
    let script = format!(
        "cat {}",
        outside(0, &canary.file()).replace("/proc/self/fd/0/", "")
    );
    for n in (3..32).chain([100, 255, 1023]) {
        for dir in [format!("/proc/self/fd/{n}"), format!("/proc/1/fd/{n}")] {
            let more = json!({"working_dir": dir, "auto_remove": true});
            let config = with(busybox(&["sh", "-c", &script]), more);
            let response = t.post_json("/v1/containers?start=true", &config);
            assert_eq!(response.status(), 422, "{dir}: {}", response.text());
            let exec = json!({"command": ["sh", "-c", script], "working_dir": dir});
            let response = t.post_json(&format!("/v1/containers/{c}/execs?wait=10s"), &exec);
            assert_eq!(response.status(), 422, "{dir}: {}", response.text());
        }
    }
    t.finish();
}

#[test]
fn without_its_check_a_working_directory_through_a_descriptor_reads_the_host() {
    // The other side.
    let t = weak_bed();
    let canary = Canary::new();
    let script = format!(
        "cat {}",
        outside(0, &canary.file()).replace("/proc/self/fd/0/", "")
    );
    let reached = (3..64).any(|n| {
        let config = with(
            busybox(&["sh", "-c", &script]),
            json!({
                "working_dir": format!("/proc/self/fd/{n}"),
                "labels": without(Defence::CwdInside),
                "namespaces": {"user": "host"},
            }),
        );
        run_or_refusal(&t, &config).is_some_and(|out| out.contains(Canary::SECRET))
    });
    assert!(reached, "the attack is no attack");
    t.finish();
}

#[test]
fn a_program_named_through_a_descriptor_is_not_the_hosts() {
    // Row 2, CVE-2024-21626: the descriptors are closed before the program is looked up.
    let t = weak_bed();
    let canary = Canary::new();
    let evil = canary.path().join("echo");
    fs::copy(busybox_root().join("bin/busybox"), &evil).unwrap();
    let reaches = |labels: Value| {
        (3..64).any(|n| {
            let config = with(
                busybox(&[&outside(n, &evil), "LEAKED"]),
                json!({"labels": labels, "namespaces": {"user": "host"}}),
            );
            run_or_refusal(&t, &config).is_some_and(|out| out.contains("LEAKED"))
        })
    };
    assert!(!reaches(json!({})));
    assert!(
        reaches(without(Defence::ClosedDescriptors)),
        "the attack is no attack"
    );
    t.finish();
}

/// How often something is done.
type Repeat<'a> = &'a dyn Fn(&mut dyn FnMut()) -> u64;

/// A container whose root holds a program with the helper as its interpreter, and what one that
/// hunts for such processes had to say after so many execs of it.
fn hunt_helpers(t: &Bed, repeat: Repeat) -> Value {
    let root = Root::new(t);
    let script = root.0.join("bin/evil");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let container = t.start(&with(
        root.config(&["/attacker", "hunt", "/nothing"]),
        json!({"mounts": [attacker::mount()], "namespaces": {"user": "host"}}),
    ));
    let c = id(&container);
    t.ready(&c);
    repeat(&mut || {
        let exec = json!({"command": ["/bin/evil"]});
        let response = t.post_json(&format!("/v1/containers/{c}/execs?wait=5s"), &exec);
        assert!(
            matches!(response.status(), 201 | 422),
            "{}",
            response.text()
        );
    });
    t.post_json(
        &format!("/v1/containers/{c}/kill"),
        &json!({"signal": "SIGTERM"}),
    );
    t.exit(&c);
    let out = t.stdout(&c);
    t.remove(&c);
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn the_helper_cannot_be_spoiled_from_inside() {
    // Row 1, CVE-2019-5736: the program is the helper itself, which a racer tries to write to and
    // to make unusable.
    let t = Bed::new();
    let hunt = hunt_helpers(&t, &|attempt| thousands(attempt));
    assert!(
        hunt["seen"].as_u64() > Some(0),
        "it never met a helper: {hunt}"
    );
    assert_eq!(
        (&hunt["written"], &hunt["changed"]),
        (&json!(0), &json!(0)),
        "{hunt}"
    );
    // The next zygote is made of the same bytes.
    proc::kill(t.system().zygote_pid.expect("a zygote"), Signal::KILL);
    assert_eq!(t.sh("echo fine"), "fine\n");
    t.finish();
}

#[test]
fn a_helper_that_is_not_sealed_is_spoiled_from_inside() {
    // The other side: the helper is a copy of the test's own. The kernel lets nobody write to a
    // file while it is executed (ETXTBSY), and one zygote always is; its mode is fair game.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let helper = dir.path().join("littlebox-helper");
    fs::copy(littlebox_tests::daemon::binary("littlebox-helper"), &helper).unwrap();
    let t = Bed::builder()
        .faults()
        .env("LITTLEBOX_HELPER", helper.to_str().unwrap())
        .env("LITTLEBOX_TEST_WEAKEN", "sealed_helper")
        .build();
    let spoiled = attacker::until_success(|| {
        hunt_helpers(&t, &|attempt| for_race_time(50, attempt));
        fs::metadata(&helper).unwrap().permissions().mode() & 0o777 == 0
    });
    assert!(spoiled, "the attack is no attack");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    t.finish();
}

/// Id maps of a user namespace whose ids begin at this one of the host.
fn user_namespace(first: u32) -> Value {
    let map = json!([{"container_id": 0, "host_id": first, "size": 65_536}]);
    json!({"namespaces": {"user": "new"}, "id_maps": {"uid": map, "gid": map}})
}

#[test]
fn the_hosts_null_device_cannot_be_changed_from_inside() {
    // The nodes of /dev and standard input are the container's own, with a user namespace too: root
    // in a container must not change the mode of the host's. The attack sets the mode that it has.
    // One side: the host's node is not in the container at all, read-only or not, unless the helper
    // may make no nodes.
    let t = Bed::new();
    let host = fs::metadata("/dev/null").unwrap();
    let host = format!("{}:{}", host.dev(), host.ino());
    let script = format!(
        "for f in /proc/self/fd/0 /dev/null; do \
            test $(stat -L -c %d:%i $f) = {host} && chmod 0666 $f 2>/dev/null && echo CHANGED; \
        done; cat; echo read"
    );
    for more in [
        json!({"namespaces": {"user": "host"}}),
        user_namespace(100_000),
        user_namespace(0),
        json!({}),
    ] {
        assert_eq!(t.sh_with(&script, more.clone()), "read\n", "{more}");
        let c = id(&t.sleeper_with(more));
        assert_eq!(t.exec(&c, &["sh", "-c", &script]), "read\n");
    }
    t.finish();
}

/// Execs in a container in which a process with CAP_SYS_PTRACE looks into each that comes.
fn hunt_execs(t: &Bed, more: Value, canary: &Canary, repeat: Repeat) -> Value {
    let canary = canary.file();
    let config = with(
        busybox(&["/attacker", "hunt", canary.to_str().unwrap()]),
        json!({
            "mounts": [attacker::mount()],
            "capabilities": {"add": ["SYS_PTRACE"]},
        }),
    );
    let config = with(config, user_namespace(100_000));
    let c = id(&t.start(&with(config, more)));
    t.ready(&c);
    let execs = repeat(&mut || {
        t.exec(&c, &["true"]);
    });
    t.post_json(
        &format!("/v1/containers/{c}/kill"),
        &json!({"signal": "SIGTERM"}),
    );
    t.exit(&c);
    let out = t.stdout(&c);
    t.remove(&c);
    let hunt: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let met = hunt["processes"].as_u64().unwrap();
    assert!(met > execs / 10, "{execs} execs: {hunt}");
    hunt
}

#[test]
fn a_process_that_joins_by_exec_cannot_be_looked_into_or_traced() {
    // Row 10, CVE-2016-9962.
    let t = weak_bed();
    let canary = Canary::new();
    let hunt = hunt_execs(&t, json!({}), &canary, &|attempt| thousands(attempt));
    assert!(
        hunt["refused"].as_u64() > Some(0),
        "it never came in time: {hunt}"
    );
    for what in ["seen", "attached", "canary", "written", "changed"] {
        assert_eq!(hunt[what], 0, "{what}: {hunt}");
    }
    let weak = json!({"labels": without(Defence::NotDumpable)});
    let caught = attacker::until_success(|| {
        let hunt = hunt_execs(&t, weak.clone(), &canary, &|attempt| {
            for_race_time(20, attempt)
        });
        hunt["seen"].as_u64() > Some(0) && hunt["attached"].as_u64() > Some(0)
    });
    assert!(caught, "the attack is no attack");
    t.finish();
}

#[test]
fn a_process_that_joins_by_exec_has_no_rights_but_the_containers_where_it_can_be_traced() {
    // Row 10 where the container is in the host's user namespace: there CAP_SYS_PTRACE reaches a
    // process that is not dumpable. What it reaches is inside already, and as weak as itself.
    let t = weak_bed();
    let canary = Canary::new();
    let host = json!({"namespaces": {"user": "host"}, "id_maps": null});
    let hunt = hunt_execs(&t, host.clone(), &canary, &|attempt| thousands(attempt));
    assert!(
        hunt["attached"].as_u64() > Some(0),
        "it never came in time: {hunt}"
    );
    assert_eq!(hunt["canary"], 0, "{hunt}");
    let weak = with(host, json!({"labels": without(Defence::JoinsLast)}));
    let caught = attacker::until_success(|| {
        hunt_execs(&t, weak.clone(), &canary, &|attempt| {
            for_race_time(20, attempt)
        })["canary"]
            .as_u64()
            > Some(0)
    });
    assert!(caught, "the attack is no attack");
    t.finish();
}

/// A container with CAP_SYS_PTRACE in the host's user namespace that looks into every process that
/// comes into its PID namespace.
fn hunter(t: &Bed, canary: &Canary, more: Value) -> String {
    let config = with(
        busybox(&["/attacker", "hunt", canary.file().to_str().unwrap()]),
        json!({
            "mounts": [attacker::mount()],
            "capabilities": {"add": ["SYS_PTRACE"]},
            "namespaces": {"user": "host"},
        }),
    );
    let hunter = id(&t.start(&with(config, more)));
    t.ready(&hunter);
    hunter
}

/// What a hunter has to say when it is told to end.
fn prey_of(t: &Bed, hunter: &str) -> Value {
    t.post_json(
        &format!("/v1/containers/{hunter}/kill"),
        &json!({"signal": "SIGTERM"}),
    );
    t.exit(hunter);
    let out = t.stdout(hunter);
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// Both sides: what is met can be traced and leads nowhere, and without the defence to the host.
fn leads_nowhere(hunt: impl Fn(Value, Repeat) -> Value) {
    let strong = hunt(json!({}), &|attempt| for_race_time(50, attempt));
    assert!(
        strong["attached"].as_u64() > Some(0),
        "it never came in time: {strong}"
    );
    assert_eq!(strong["canary"], 0, "{strong}");
    let weak = json!({"labels": without(Defence::JoinsLast)});
    let caught = attacker::until_success(|| {
        let hunt = hunt(weak.clone(), &|attempt| for_race_time(20, attempt));
        hunt["canary"].as_u64() > Some(0)
    });
    assert!(caught, "the attack is no attack");
}

#[test]
fn a_container_that_is_built_in_anothers_pid_namespace_does_not_lead_to_the_host() {
    // Row 33: its first start, in the host's user namespace and in one of its own.
    let t = weak_bed();
    let canary = Canary::new();
    for user in ["host", "new"] {
        leads_nowhere(|more, repeat| {
            let hunter = hunter(&t, &canary, json!({}));
            let joins = json!({"pid": format!("container:{hunter}"), "user": user});
            let config = with(busybox(&["true"]), json!({"namespaces": joins}));
            let config = with(config, more);
            repeat(&mut || {
                let c = id(&t.start(&config));
                t.exit(&c);
                t.remove(&c);
            });
            let prey = prey_of(&t, &hunter);
            t.remove(&hunter);
            prey
        });
    }
    t.finish();
}

#[test]
fn an_exec_does_not_lead_a_sidecar_to_the_host() {
    // Row 33: the container has neither the capability nor the host's user namespace; who has joined
    // its PID namespace has both.
    let t = weak_bed();
    let canary = Canary::new();
    leads_nowhere(|more, repeat| {
        let c = id(&t.sleeper_with(more));
        let joins = json!({"pid": format!("container:{c}"), "user": "host"});
        let hunter = hunter(&t, &canary, json!({"namespaces": joins}));
        repeat(&mut || {
            t.exec(&c, &["true"]);
        });
        let prey = prey_of(&t, &hunter);
        t.remove(&hunter);
        t.remove(&c);
        prey
    });
    t.finish();
}

#[test]
fn an_exec_does_not_lead_an_earlier_one_with_more_capabilities_to_the_host() {
    // Row 33.
    let t = weak_bed();
    let canary = Canary::new();
    leads_nowhere(|more, repeat| {
        let more = with(more, json!({"namespaces": {"user": "host"}}));
        let c = id(&t.sleeper_with(with(more, json!({"mounts": [attacker::mount()]}))));
        let hunter = t.exec_start(
            &c,
            &json!({
                "command": ["/attacker", "hunt", canary.file()],
                "capabilities": {"add": ["SYS_PTRACE"]},
            }),
        );
        let hunter = hunter.id.to_string();
        repeat(&mut || {
            t.exec(&c, &["true"]);
        });
        t.post_json(
            &format!("/v1/execs/{hunter}/signal"),
            &json!({"signal": "SIGTERM"}),
        );
        t.exec_wait(&hunter);
        let out = t.get(&format!("/v1/execs/{hunter}/output")).expect(200);
        let lines: Vec<littlebox_types::LogLine> = out.ndjson();
        let prey = lines.iter().rev().find_map(|line| {
            let text = serde_json::to_value(line).unwrap();
            let told = text["data"].as_str().or(text["text"].as_str())?;
            serde_json::from_str::<Value>(told.trim()).ok()
        });
        t.remove(&c);
        prey.expect("it says what it met")
    });
    t.finish();
}

#[test]
fn an_exec_by_the_oci_command_line_does_not_lead_the_container_to_the_host() {
    // Row 33, one side: the command line has no switch for its defences.
    let t = Bed::new();
    let canary = Canary::new();
    let root = Root::new(&t);
    let bundle = t.dirs.base_path.join("bundle");
    fs::create_dir(&bundle).unwrap();
    let held = json!(["CAP_SYS_PTRACE"]);
    let sets = json!({"bounding": held, "effective": held, "permitted": held});
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": root.0},
        "process": {
            "args": ["/attacker", "hunt", canary.file()], "cwd": "/",
            "user": {"uid": 0, "gid": 0}, "capabilities": sets,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/attacker", "source": attacker::program(), "options": ["rbind", "ro"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let process = bundle.join("process.json");
    let document =
        json!({"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
    fs::write(&process, document.to_string()).unwrap();
    let output = bundle.join("output");
    let name = t.dirs.mark.clone();
    let runtime = |args: &[&str]| {
        let mut command =
            std::process::Command::new(littlebox_tests::daemon::binary("littlebox-runtime"));
        let (out, errors) = (fs::File::options(), fs::File::options());
        let append =
            |mut options: fs::OpenOptions| options.create(true).append(true).open(&output).unwrap();
        command.arg("--root").arg(bundle.join("state")).args(args);
        command.stdout(append(out)).stderr(append(errors));
        assert!(
            command.status().unwrap().success(),
            "{args:?}: {}",
            fs::read_to_string(&output).unwrap()
        );
    };
    let told = || fs::read_to_string(&output).unwrap();
    runtime(&["create", "--bundle", bundle.to_str().unwrap(), &name]);
    runtime(&["start", &name]);
    proc::until("the hunter is ready", || told().contains("ready"));
    for_race_time(50, || {
        runtime(&["exec", "--process", process.to_str().unwrap(), &name]);
    });
    runtime(&["kill", &name, "TERM"]);
    proc::until("the hunter has ended", || told().contains("canary"));
    runtime(&["delete", "--force", &name]);
    let prey: Value = serde_json::from_str(told().lines().last().unwrap()).unwrap();
    assert!(prey["attached"].as_u64() > Some(0), "{prey}");
    assert_eq!(prey["canary"], 0, "{prey}");
    fs::remove_dir_all(&bundle).unwrap();
    drop(root);
    t.finish();
}
