//! Hooks: when, where, with what on their stdin, and what one that fails does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;

use crate::support::{Bed, wait_until};
use serde_json::{Value, json};

const BEFORE_PIVOT: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// A hook on the host that notes its name, its namespaces and its stdin.
fn note(bed: &Bed, name: &str) -> Value {
    let notes = bed.path("notes");
    fs::create_dir_all(&notes).unwrap();
    let notes = notes.to_str().unwrap();
    let script = format!(
        "echo {name} >>{notes}/order; cat >{notes}/{name}.state; readlink /proc/self/ns/mnt >{notes}/{name}.mnt; \
         env >{notes}/{name}.env; echo \"$0 $*\" >{notes}/{name}.args"
    );
    let path = bed.host_script(&format!("{name}.sh"), &script);
    json!({"path": path, "args": ["called", "as", name], "env": ["HOOK=yes", "PATH=/bin:/usr/bin"]})
}

fn read(bed: &Bed, file: &str) -> String {
    fs::read_to_string(bed.path("notes").join(file)).unwrap()
}

fn state_of(bed: &Bed, hook: &str) -> Value {
    serde_json::from_str(&read(bed, &format!("{hook}.state"))).unwrap()
}

#[test]
fn hooks_run_in_order_in_their_namespaces_with_the_state() {
    let mut bed = Bed::new("echo program >>/notes/order");
    let notes = bed.path("notes");
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/notes", "type": "bind", "source": notes, "options": ["bind"]}),
    );
    let in_container = "echo startContainer >>/notes/order; cat >/notes/startContainer.state; \
                        readlink /proc/self/ns/mnt >/notes/startContainer.mnt";
    bed.container_script("/bin/hook", in_container);
    let mut hooks = json!({"startContainer": [{"path": "/bin/hook", "env": ["PATH=/bin"]}]});
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        hooks[name] = json!([note(&bed, name)]);
    }
    bed.config["hooks"] = hooks;

    bed.create().ok();
    let pid = bed.pid();
    let container = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(
        read(&bed, "order"),
        "prestart\ncreateRuntime\ncreateContainer\n"
    );
    bed.start().ok();
    bed.wait_for("stopped");
    assert!(!bed.path("notes/poststop.state").exists());
    bed.delete().ok();

    let order = read(&bed, "order");
    assert!(
        order.starts_with("prestart\ncreateRuntime\ncreateContainer\nstartContainer\n")
            && order.ends_with("poststop\n")
            && order.contains("program\n")
            && order.contains("poststart\n"),
        "{order}"
    );
    for (hook, status, told, namespace) in [
        ("prestart", "created", json!(pid), &host),
        ("createRuntime", "creating", json!(pid), &host),
        ("createContainer", "creating", json!(1), &container),
        ("startContainer", "created", json!(1), &container),
        ("poststart", "running", json!(pid), &host),
        ("poststop", "stopped", json!(null), &host),
    ] {
        let state = state_of(&bed, hook);
        assert_eq!(state["status"], status, "{hook}");
        assert_eq!(state["pid"], told, "{hook}");
        assert_eq!(state["id"], bed.id.as_str());
        assert_eq!(state["bundle"], bed.bundle().to_str().unwrap());
        assert_eq!(state["annotations"]["org.example.key"], "value");
        let seen = read(&bed, &format!("{hook}.mnt"));
        assert_eq!(seen.trim(), namespace.to_str().unwrap(), "{hook}");
    }
    assert!(read(&bed, "createRuntime.args").ends_with(" as createRuntime\n"));
    let env = read(&bed, "createRuntime.env");
    assert!(env.contains("HOOK=yes") && !env.contains("HOME="), "{env}");
}

#[test]
fn hooks_before_pivot_see_the_mounts_at_the_roots_path() {
    let mut bed = Bed::new("cat /made/file");
    let rootfs = bed.rootfs();
    let rootfs = rootfs.to_str().unwrap();
    fs::create_dir(bed.rootfs().join("made")).unwrap();
    let script = format!(
        "test -e {rootfs}/proc/self/status && mount -t tmpfs made {rootfs}/made && echo hook >{rootfs}/made/file"
    );
    let path = bed.host_script("mount.sh", &script);
    bed.config["hooks"] =
        json!({"createContainer": [{"path": path, "env": ["PATH=/bin:/usr/bin"]}]});
    assert_eq!(bed.run_container().ok(), "hook\n");
    assert!(!bed.rootfs().join("made/file").exists());
}

#[test]
fn a_hook_that_fails_before_the_start_undoes_the_container() {
    for name in BEFORE_PIVOT {
        let mut bed = Bed::new("true");
        let path = bed.host_script("fail.sh", "echo because >&2; exit 3");
        bed.config["hooks"] = json!({name: [{"path": path}]});
        let refused = bed.create().error();
        assert!(
            refused.contains(name) && refused.contains("returned 3") && refused.contains("because"),
            "{name}: {refused}"
        );
        bed.assert_nothing_left();
    }
}

#[test]
fn a_start_container_hook_that_fails_keeps_the_program_from_running() {
    let mut bed = Bed::new("echo ran");
    bed.container_script("/bin/hook", "exit 4");
    bed.config["hooks"] = json!({"startContainer": [{"path": "/bin/hook"}]});
    bed.create().ok();
    let refused = bed.start().error();
    assert!(
        refused.contains("startContainer") && refused.contains("returned 4"),
        "{refused}"
    );
    bed.wait_for("stopped");
    assert_eq!(bed.output(), "");
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container_and_poststop_hooks_run() {
    let mut bed = Bed::new("exec sleep 100");
    let path = bed.host_script("fail.sh", "exit 5");
    bed.config["hooks"] =
        json!({"poststart": [{"path": path}], "poststop": [note(&bed, "poststop")]});
    bed.create().ok();
    let refused = bed.start().error();
    assert!(
        refused.contains("poststart") && refused.contains("returned 5"),
        "{refused}"
    );
    assert_eq!(read(&bed, "order"), "poststop\n");
    bed.assert_nothing_left();
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning_and_the_next_runs() {
    let mut bed = Bed::new("true");
    let path = bed.host_script("fail.sh", "exit 6");
    bed.config["hooks"] = json!({"poststop": [{"path": path}, note(&bed, "poststop")]});
    bed.create().ok();
    let deleted = bed.delete();
    assert!(
        deleted.stderr.contains("level=warning") && deleted.stderr.contains("returned 6"),
        "{deleted:?}"
    );
    deleted.ok();
    assert_eq!(read(&bed, "order"), "poststop\n");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_has_failed() {
    let mut bed = Bed::new("true");
    let path = bed.host_script("slow.sh", "exec sleep 100");
    bed.config["hooks"] =
        json!({"createRuntime": [{"path": path, "timeout": 1, "env": ["PATH=/bin:/usr/bin"]}]});
    let refused = bed.create().error();
    assert!(refused.contains("timeout of 1 s"), "{refused}");
}

#[test]
fn a_hook_that_leaves_a_child_with_its_output_blocks_nobody() {
    let mut bed = Bed::new("true");
    let pids = bed.path("child");
    let script = format!("sleep 100 & echo $! >{}", pids.display());
    let path = bed.host_script("leave.sh", &script);
    bed.config["hooks"] = json!({"createRuntime": [{"path": path, "env": ["PATH=/bin:/usr/bin"]}]});
    bed.create().ok();
    let pid = fs::read_to_string(pids).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A container whose start waits in its `startContainer` hook.
fn starting(script: &str) -> (Bed, std::process::Child) {
    let mut bed = Bed::new(script);
    let hook = "echo >/tmp/hook; while ! test -e /tmp/go; do sleep 0.01; done";
    bed.container_script("/bin/hook", hook);
    bed.config["hooks"] = json!({"startContainer": [{"path": "/bin/hook", "env": ["PATH=/bin"]}]});
    bed.create().ok();
    let start = bed.command(&["start", &bed.id]).spawn().unwrap();
    assert!(wait_until(|| bed.rootfs().join("tmp/hook").exists()));
    (bed, start)
}

fn let_hook_go(bed: &Bed) {
    fs::write(bed.rootfs().join("tmp/go"), "").unwrap();
}

#[test]
fn a_container_is_running_when_its_program_is_and_not_before() {
    // Who signals what is `running` means the program, not what is about to become it.
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let (bed, mut start) = starting(script);
    assert_eq!(bed.status(), "created");
    let_hook_go(&bed);
    assert!(start.wait().unwrap().success());
    assert_eq!(bed.status(), "running");
}

#[test]
fn a_start_that_was_killed_on_its_way_ends_the_container() {
    let (bed, mut start) = starting("exec sleep 100");
    start.kill().unwrap();
    start.wait().unwrap();
    let_hook_go(&bed);
    // Nobody would have heard whether its program could be executed.
    bed.wait_for("stopped");
    bed.delete().ok();
    bed.assert_nothing_left();
}

#[test]
fn a_hook_without_an_environment_has_that_of_who_runs_it() {
    let mut bed = Bed::new("true");
    let seen = bed.path("seen");
    fs::create_dir(&seen).unwrap();
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts
        .push(json!({"destination": "/seen", "type": "bind", "source": seen, "options": ["bind"]}));
    bed.config["process"]["env"] = json!(["PATH=/bin", "OF=the program"]);
    let env = bed.host_script("env.sh", &format!("env >{}/host", seen.display()));
    let empty = bed.host_script(
        "empty.sh",
        &format!("/usr/bin/env >{}/empty", seen.display()),
    );
    bed.container_script("/bin/hook", "env >/seen/inside");
    bed.config["hooks"] = json!({
        "createRuntime": [{"path": env}, {"path": empty, "env": []}],
        "startContainer": [{"path": "/bin/hook"}],
    });
    bed.write_config();
    let bundle = bed.bundle();
    let mut command = bed.command(&["run", "--bundle", bundle.to_str().unwrap(), &bed.id]);
    let ran: crate::support::Ran = command.env("OF", "the caller").output().unwrap().into();
    ran.ok();
    let read = |name: &str| fs::read_to_string(seen.join(name)).unwrap();
    assert!(read("host").contains("OF=the caller\n"), "{}", read("host"));
    assert!(!read("empty").contains("OF="), "{}", read("empty"));
    let inside = read("inside");
    assert!(
        inside.contains("OF=the program\n") && inside.contains("HOME="),
        "{inside}"
    );
}

#[test]
fn start_container_hooks_are_under_the_filter() {
    for filtered in [false, true] {
        let mut bed = Bed::new("echo program");
        bed.container_script("/bin/hook", "busybox mkdir /tmp/made 2>/dev/null; true");
        bed.config["hooks"] = json!({"startContainer": [{"path": "/bin/hook"}]});
        if filtered {
            bed.config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            });
        }
        assert_eq!(bed.run_container().ok(), "program\n");
        assert_eq!(bed.rootfs().join("tmp/made").exists(), !filtered);
    }
}

#[test]
fn create_container_hooks_begin_in_the_containers_root() {
    let mut bed = Bed::new("cat /left-by-hook");
    let hook = bed.host_script("hook", "echo found >./left-by-hook");
    bed.config["hooks"] = json!({"createContainer": [{"path": hook}]});
    assert_eq!(bed.run_container().ok(), "found\n");
}
