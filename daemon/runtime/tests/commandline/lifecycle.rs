//! The life of a container: create, start, state, kill, delete, run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::frozen::Frozen;
use crate::support::{Bed, wait_until};
use serde_json::{Value, json};

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let bed = Bed::new("echo started; exec sleep 100");
    bed.create().ok();
    let state = bed.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bed.id.as_str());
    assert_eq!(state["bundle"], bed.bundle().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    assert_eq!(bed.output(), "");

    bed.start().ok();
    assert_eq!(bed.status(), "running");
    assert!(wait_until(|| bed.output() == "started\n"));
    let refused = bed.start().error();
    assert!(
        refused.contains("cannot start an already running container"),
        "{refused}"
    );
    let refused = bed.delete().error();
    assert!(
        refused.contains("that is not stopped: running"),
        "{refused}"
    );

    bed.run(&["kill", &bed.id, "KILL"]).ok();
    bed.wait_for("stopped");
    assert!(bed.state().get("pid").is_none());
    let refused = bed.run(&["kill", &bed.id]).error();
    assert!(refused.contains("container not running"), "{refused}");
    let refused = bed.start().error();
    assert!(
        refused.contains("cannot start a container that has stopped"),
        "{refused}"
    );

    bed.delete().ok();
    bed.assert_nothing_left();
    for command in ["state", "start", "kill", "delete", "pause", "ps"] {
        let refused = bed.run(&[command, &bed.id]).error();
        assert!(refused.contains("does not exist"), "{command}: {refused}");
    }
    bed.run(&["delete", "--force", &bed.id]).ok();
}

#[test]
fn run_passes_output_and_exit_code_on_and_leaves_nothing() {
    let bed = Bed::new("echo out; echo err >&2; exit 7");
    let ran = bed.run_container();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "out\n"));
    assert_eq!(ran.stderr, "err\n");
    bed.assert_nothing_left();
}

#[test]
fn a_program_that_a_signal_ends_gives_128_and_its_number() {
    let mut bed = Bed::new("kill -TERM $$; sleep 10");
    // As PID 1 it would be safe from its own signal.
    namespaces(&mut bed).retain(|namespace| namespace["type"] != "pid");
    assert_eq!(bed.run_container().code, Some(128 + 15));
}

#[test]
fn signals_of_a_foreground_run_reach_the_program() {
    let bed = Bed::new("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    bed.write_config();
    let bundle = bed.bundle();
    let out = fs::File::create(bed.path("out")).unwrap();
    let mut child = bed
        .command(&["run", "--bundle", bundle.to_str().unwrap(), &bed.id])
        .stdout(out)
        .spawn()
        .unwrap();
    assert!(wait_until(|| bed.output() == "ready\n"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(bed.output(), "ready\ncaught\n");
}

#[test]
fn nothing_stays_beside_the_program_of_a_container() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    bed.start().ok();
    let stat = fs::read_to_string(format!("/proc/{}/stat", bed.pid())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let parent: u32 = rest.split(' ').nth(1).unwrap().parse().unwrap();
    // Whoever adopts orphans here; the runtime has gone.
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(!name.contains("littlebox"), "{name}");
    let cmdline = format!("/proc/{}/cmdline", bed.pid());
    assert!(wait_until(|| {
        fs::read_to_string(&cmdline).unwrap() == "sleep\x00100\x00"
    }));
}

#[test]
fn the_state_is_roots_alone() {
    let bed = Bed::new("true");
    bed.create().ok();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(bed.root().join(&bed.id)), 0o700);
    assert_eq!(mode(bed.root().join(&bed.id).join("state.json")), 0o600);
}

#[test]
fn the_waiting_process_holds_no_descriptor_of_the_host() {
    let bed = Bed::new("ls /proc/self/fd | grep -c .; true");
    bed.create().ok();
    let fds = fs::read_dir(format!("/proc/{}/fd", bed.pid())).unwrap();
    let links: Vec<String> = fds
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    // stdin, stdout, stderr, the socket where it waits, and its own signals.
    assert_eq!(links.len(), 5, "{links:?}");
    assert!(
        links.contains(&"anon_inode:[signalfd]".to_owned()),
        "{links:?}"
    );
    // The runtime's own file cannot be reached through it, not even to change its mode.
    let exe = format!("/proc/{}/exe", bed.pid());
    let changed = fs::set_permissions(&exe, fs::Permissions::from_mode(0o755));
    assert_eq!(
        changed.unwrap_err().raw_os_error(),
        Some(rustix::io::Errno::ROFS.raw_os_error())
    );
    bed.start().ok();
    bed.wait_for("stopped");
    // 0, 1, 2, and the directory that ls reads.
    assert_eq!(bed.output(), "4\n");
}

#[test]
fn a_missing_program_is_told_when_the_container_is_created() {
    for (args, words) in [
        (json!(["nope"]), "executable file not found in $PATH"),
        (json!(["/bin/nope"]), "no such file or directory"),
        (json!(["/etc"]), "permission denied"),
    ] {
        let mut bed = Bed::new("");
        bed.config["process"]["args"] = args;
        let refused = bed.create().error();
        assert!(refused.contains(words), "{refused}");
        bed.assert_nothing_left();
        let refused = bed.run_container().error();
        assert!(refused.contains(words), "{refused}");
        bed.assert_nothing_left();
    }
}

#[test]
fn a_program_that_is_gone_when_it_is_started_is_an_error_of_start() {
    let mut bed = Bed::new("");
    fs::copy("/bin/busybox", bed.rootfs().join("bin/program")).unwrap();
    bed.config["process"]["args"] = json!(["/bin/program", "true"]);
    bed.create().ok();
    fs::remove_file(bed.rootfs().join("bin/program")).unwrap();
    let refused = bed.start().error();
    assert!(refused.contains("no such file or directory"), "{refused}");
    bed.wait_for("stopped");
    bed.delete().ok();
}

#[test]
fn of_many_starts_one_succeeds_and_of_many_deletes_one() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    let succeeded = |command: &str| {
        let children: Vec<_> = (0..8)
            .map(|_| {
                let mut command = bed.command(&[command, &bed.id]);
                command.stderr(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        let ended = children
            .into_iter()
            .map(|mut child| child.wait().unwrap().success());
        ended.filter(|success| *success).count()
    };
    assert_eq!(succeeded("start"), 1);
    bed.run(&["kill", &bed.id, "9"]).ok();
    bed.wait_for("stopped");
    assert_eq!(succeeded("delete"), 1);
    bed.assert_nothing_left();
}

#[test]
fn an_id_that_is_taken_is_refused_and_its_container_untouched() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    let refused = bed.create().error();
    assert!(refused.contains("already exists"), "{refused}");
    assert_eq!(bed.status(), "created");
}

#[test]
fn a_pid_that_was_given_to_another_process_is_never_signalled() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    bed.start().ok();
    let pid = bed.pid();
    let file = bed.root().join(&bed.id).join("state.json");
    let json = fs::read_to_string(&file).unwrap();
    let mut record: Value = serde_json::from_str(&json).unwrap();
    let began = record["process"]["start_time"].as_u64().unwrap();
    record["process"]["start_time"] = (began + 1).into();
    fs::write(&file, record.to_string()).unwrap();

    assert_eq!(bed.status(), "stopped");
    let refused = bed.run(&["kill", &bed.id, "TERM"]).error();
    assert!(refused.contains("container not running"), "{refused}");
    let alive = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!alive.contains(") Z "), "{alive}");
    fs::write(&file, json).unwrap();
    assert_eq!(bed.status(), "running");
}

#[test]
fn what_a_create_that_was_killed_has_left_can_be_deleted() {
    let bed = Bed::new("true");
    fs::create_dir_all(bed.root().join(&bed.id)).unwrap();
    bed.delete().ok();
    bed.assert_nothing_left();
}

#[test]
fn a_cgroup_with_somebody_else_in_it_is_not_taken() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    let mut other = Bed::new("true");
    other.config["linux"]["cgroupsPath"] = bed.config["linux"]["cgroupsPath"].clone();
    let refused = other.create().error();
    assert!(refused.contains("not empty"), "{refused}");
    assert_eq!(bed.status(), "created");
}

fn namespaces(bed: &mut Bed) -> &mut Vec<Value> {
    bed.config["linux"]["namespaces"].as_array_mut().unwrap()
}

#[test]
fn a_namespace_with_a_path_is_joined_and_one_that_is_missing_is_the_hosts() {
    let first = Bed::new("exec sleep 100");
    first.create().ok();
    let pid = first.pid();
    let mut second = Bed::new("hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc");
    second.config["hostname"] = json!(null);
    let list = namespaces(&mut second);
    list.retain(|namespace| namespace["type"] != "ipc");
    for kind in ["uts", "net"] {
        let name = if kind == "net" { "network" } else { kind };
        list.retain(|namespace| namespace["type"] != name);
        list.push(json!({"type": name, "path": format!("/proc/{pid}/ns/{kind}")}));
    }
    let link = |of: &str, kind: &str| {
        let link = fs::read_link(format!("/proc/{of}/ns/{kind}")).unwrap();
        link.to_string_lossy().into_owned()
    };
    let ipc = link("self", "ipc");
    let net = link(&pid.to_string(), "net");
    assert_eq!(
        second.run_container().ok(),
        format!("inside\n{net}\n{ipc}\n")
    );
}

#[test]
fn a_namespace_with_an_empty_path_is_a_new_one() {
    let mut bed = Bed::new("readlink /proc/self/ns/uts");
    for namespace in namespaces(&mut bed) {
        namespace["path"] = json!("");
    }
    let own = fs::read_link("/proc/self/ns/uts").unwrap();
    let inside = bed.run_container().ok();
    assert_ne!(inside.trim_end(), own.to_str().unwrap());
}

#[test]
fn descriptors_that_are_preserved_arrive_and_the_pid_file_is_written() {
    use std::os::unix::process::CommandExt;

    let bed = Bed::new("cat <&3; ls /proc/self/fd");
    bed.write_config();
    fs::write(bed.path("given"), "a gift\n").unwrap();
    let bundle = bed.bundle();
    let pid_file = bed.path("pid");
    // The shell puts it at 3; 4 is the directory that ls reads.
    let script = format!(
        "exec {} --root {} run --preserve-fds 1 --pid-file {} --bundle {} {} 3<{}",
        env!("CARGO_BIN_EXE_littlebox-runtime"),
        bed.root().display(),
        pid_file.display(),
        bundle.display(),
        bed.id,
        bed.path("given").display()
    );
    let mut shell = std::process::Command::new("/bin/sh");
    let output = shell.arg0("sh").arg("-c").arg(script).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "a gift\n0\n1\n2\n3\n4\n"
    );
    assert!(
        fs::read_to_string(&pid_file)
            .unwrap()
            .parse::<u32>()
            .is_ok()
    );
    let refused = bed.run(&[
        "run",
        "--preserve-fds",
        "9",
        "--bundle",
        bundle.to_str().unwrap(),
        &bed.id,
    ]);
    assert!(refused.error().contains("--preserve-fds"));
}

#[test]
fn a_signal_ends_a_container_that_waits_for_its_start() {
    let bed = Bed::new("true");
    bed.create().ok();
    // Those that end no program end nothing here either.
    bed.run(&["kill", &bed.id, "WINCH"]).ok();
    bed.run(&["kill", &bed.id, "CHLD"]).ok();
    assert_eq!(bed.status(), "created");
    bed.run(&["kill", &bed.id, "TERM"]).ok();
    bed.wait_for("stopped");
    assert!(!bed.start().error().is_empty());
}

#[test]
fn on_v1_a_container_has_a_cgroup_in_every_hierarchy() {
    let mut bed = Bed::new("cat /proc/self/cgroup");
    let namespaces = bed.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    let own = format!("littlebox-runtime-test/{}", bed.id);
    let table = bed.run_container().ok();
    // The one that only systemd uses has no controller.
    let others = table.lines().filter(|line| !line.ends_with(&own));
    let others: Vec<&str> = others.filter(|line| !line.contains("name=")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_forced_delete_ends_the_start_that_waits_for_a_hook_in_the_container() {
    let mut bed = Bed::new("true");
    bed.config["hooks"] =
        json!({"startContainer": [{"path": "/bin/sleep", "args": ["sleep", "100"]}]});
    bed.create().ok();
    let mut start = bed.command(&["start", &bed.id]);
    let mut start = start.stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(wait_until(|| bed
        .root()
        .join(&bed.id)
        .join("starting.sock")
        .exists()));
    bed.run(&["delete", "--force", &bed.id]).ok();
    assert!(!start.wait().unwrap().success());
    bed.assert_nothing_left();
}

#[test]
fn a_forced_delete_ends_what_somebody_else_has_frozen() {
    let mut bed = Bed::new("");
    bed.config["process"]["args"] = json!(["sleep", "100"]);
    bed.create().ok();
    bed.start().ok();
    let foreign = Frozen::make(&format!("{}-foreign", bed.id));
    foreign.attach(bed.pid());
    let deleted = bed.run(&["delete", "--force", &bed.id]);
    drop(foreign);
    deleted.ok();
    bed.assert_nothing_left();
}

#[test]
fn a_container_of_which_nothing_can_be_known_has_not_stopped() {
    let bed = Bed::new("exec sleep 100");
    bed.create().ok();
    bed.start().ok();
    // With each number of descriptors that is too low: never a wrong answer, never a lost container.
    for limit in 4..16 {
        for command in ["state", "delete"] {
            let script = format!(
                "ulimit -n {limit}; exec {} --root {} {command} {}",
                env!("CARGO_BIN_EXE_littlebox-runtime"),
                bed.root().display(),
                bed.id
            );
            let mut shell = std::process::Command::new("/bin/sh");
            let ran = shell.arg("-c").arg(script).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(!said.contains("stopped"), "{limit}: {said}");
            assert!(command == "state" || !ran.status.success(), "{limit}");
        }
    }
    assert_eq!(bed.status(), "running");
}
