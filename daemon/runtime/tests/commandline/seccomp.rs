//! System calls that a filter leaves to an agent on the host.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::net::UnixListener;

use crate::support::seccomp_agent::{SeccompAgent, make_another_directory};
use crate::support::{Bed, wait_until};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
use serde_json::{Value, json};

/// A container whose calls with these names are left to an agent.
fn bed(script: &str, names: Value) -> Bed {
    let mut bed = Bed::new(script);
    bed.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bed.path("agent"),
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    });
    bed
}

fn profile(bed: &mut Bed) -> &mut Value {
    &mut bed.config["linux"]["seccomp"]
}

fn maker(bed: &Bed) -> SeccompAgent {
    SeccompAgent::new(&bed.path("agent"), make_another_directory)
}

/// An agent that lets every call go on.
fn admitter(bed: &Bed) -> SeccompAgent {
    SeccompAgent::new(&bed.path("agent"), |_| None)
}

const MKDIR: &str = "mkdir /tmp/x && ls /tmp";

#[test]
fn an_agent_makes_a_call_for_the_program() {
    for no_new_privileges in [true, false] {
        let mut bed = bed(MKDIR, json!(["mkdir"]));
        bed.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        let agent = maker(&bed);
        assert_eq!(bed.run_container().ok(), "x-made\n");
        assert_eq!(agent.introduced().len(), 1);
    }
}

#[test]
fn an_agent_chooses_the_errno() {
    let bed = bed("mkdir /tmp/x", json!(["mkdir"]));
    let _agent = SeccompAgent::new(&bed.path("agent"), |_| {
        Some(rustix::io::Errno::NOMEDIUM.raw_os_error())
    });
    let refused = bed.run_container();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("No medium found"), "{refused:?}");
}

#[test]
fn an_agent_is_told_of_the_container_when_it_starts() {
    let mut bed = bed("exec sleep 1000", json!(["mkdir"]));
    profile(&mut bed)["listenerMetadata"] = "meta \"data\"".into();
    let agent = maker(&bed);
    bed.create().ok();
    assert_eq!(agent.introduced(), [] as [Value; 0]);
    bed.start().ok();
    let pid = bed.pid();
    let state = |status: &str| {
        json!({
            "ociVersion": "1.2.1", "id": bed.id, "status": status, "pid": pid,
            "bundle": bed.bundle(), "annotations": {"org.example.key": "value"},
        })
    };
    let told = |pid: u32, status: &str| {
        json!({
            "ociVersion": "1.2.1", "fds": ["seccompFd"], "pid": pid, "metadata": "meta \"data\"",
            "state": state(status),
        })
    };
    assert_eq!(agent.introduced(), [told(pid, "created")]);

    let of_exec = bed.run(&[
        "exec",
        "--pid-file",
        bed.path("pid").to_str().unwrap(),
        &bed.id,
        "/bin/sh",
        "-c",
        MKDIR,
    ]);
    assert_eq!(of_exec.ok(), "x-made\n");
    let exec: u32 = fs::read_to_string(bed.path("pid"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(agent.introduced()[1], told(exec, "running"));
}

#[test]
fn without_metadata_none_is_sent() {
    let bed = bed("true", json!(["mkdir"]));
    let agent = maker(&bed);
    bed.run_container().ok();
    // The program makes no call that the agent decides, so it does not wait for the agent.
    assert!(wait_until(|| !agent.introduced().is_empty()));
    let told = agent.introduced().remove(0);
    assert_eq!(told.get("metadata"), None);
    assert_eq!(told["state"]["status"], "creating");
    assert_eq!(told["state"]["pid"], told["pid"]);
}

#[test]
fn an_exec_with_a_process_document_has_the_same_agent() {
    let bed = bed("exec sleep 1000", json!(["mkdir"]));
    let agent = maker(&bed);
    bed.create().ok();
    bed.start().ok();
    let mut process = bed.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", MKDIR]);
    fs::write(bed.path("process.json"), process.to_string()).unwrap();
    let document = bed.path("process.json");
    let ran = bed.run(&["exec", "--process", document.to_str().unwrap(), &bed.id]);
    assert_eq!(ran.ok(), "x-made\n");
    assert_eq!(agent.introduced().len(), 2);
}

#[test]
fn calls_that_a_start_takes_may_be_left_to_an_agent() {
    let names = json!([
        "execve",
        "open",
        "openat",
        "read",
        "write",
        "close",
        "fcntl",
        "sendmsg",
        "recvmsg",
        "futex",
        "capset",
        "capget",
        "wait4",
        "exit_group",
        "close_range",
        "prctl",
        "munmap",
        "clock_gettime"
    ]);
    for no_new_privileges in [true, false] {
        let mut bed = bed("echo hello", names.clone());
        bed.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        let _agent = admitter(&bed);
        assert_eq!(bed.run_container().ok(), "hello\n");
        bed.create().ok();
        bed.start().ok();
        bed.wait_for("stopped");
        assert_eq!(bed.output(), "hello\n");
        bed.delete().ok();
    }
}

#[test]
fn every_call_may_be_left_to_an_agent() {
    let mut bed = bed("echo hello", json!(["mkdir"]));
    profile(&mut bed)["defaultAction"] = "SCMP_ACT_NOTIFY".into();
    let _agent = admitter(&bed);
    assert_eq!(bed.run_container().ok(), "hello\n");
}

#[test]
fn an_execve_that_the_agent_refuses_is_told() {
    let bed = bed("true", json!(["execve"]));
    let _agent = SeccompAgent::new(&bed.path("agent"), |_| {
        Some(rustix::io::Errno::NOMEDIUM.raw_os_error())
    });
    let refused = bed.run_container().error().to_lowercase();
    assert!(refused.contains("no medium found"), "{refused}");
}

#[test]
fn no_call_is_made_between_the_filter_and_the_agent() {
    let mut bed = bed("mkdir /tmp/x", json!(["mkdir"]));
    // Whatever is called beside these kills.
    let allowed = [
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
        "umask",
        "newfstatat",
        "fstat",
        "stat",
        "rt_sigaction",
        "rt_sigprocmask",
    ];
    let profile = profile(&mut bed);
    profile["defaultAction"] = "SCMP_ACT_KILL_PROCESS".into();
    profile["syscalls"]
        .as_array_mut()
        .unwrap()
        .push(json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}));
    bed.config["process"]["args"] = json!(["/bin/mkdir", "/tmp/x"]);
    let _agent = maker(&bed);
    bed.run_container().ok();
    assert!(bed.rootfs().join("tmp/x-made").is_dir());
}

#[test]
fn flags_of_a_filter_go_with_a_listener() {
    let mut bed = bed(MKDIR, json!(["mkdir"]));
    profile(&mut bed)["flags"] = json!([
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG"
    ]);
    let _agent = maker(&bed);
    assert_eq!(bed.run_container().ok(), "x-made\n");
}

#[test]
fn the_listener_is_neither_the_programs_nor_a_hooks() {
    let count = "ls /proc/self/fd | grep -c .";
    let mut bed = bed(count, json!(["mkdir"]));
    // Stdio, and the directory itself.
    bed.container_script(
        "/bin/hook",
        &format!("test $({count}) -eq 4 && mkdir /tmp/hook"),
    );
    bed.config["hooks"] = json!({"startContainer": [{"path": "/bin/hook", "env": ["PATH=/bin"]}]});
    let agent = maker(&bed);
    bed.create().ok();
    bed.start().ok();
    bed.wait_for("stopped");
    assert_eq!(bed.output(), "4\n");
    // A hook is under a filter of its own.
    assert_eq!(agent.introduced().len(), 2);
    assert!(bed.rootfs().join("tmp/hook-made").is_dir());
}

#[test]
fn an_agent_that_is_not_there_is_told_and_the_start_may_be_tried_again() {
    let bed = bed(MKDIR, json!(["mkdir"]));
    let path = bed.path("agent");
    let refused = bed.run_container().error();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    assert!(
        refused.contains("no seccomp agent listens there"),
        "{refused}"
    );
    bed.assert_nothing_left();

    drop(UnixListener::bind(&path).unwrap());
    bed.create().ok();
    let refused = bed.start().error();
    assert!(
        refused.contains("no seccomp agent listens there"),
        "{refused}"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(bed.status(), "created");
    let _agent = maker(&bed);
    bed.start().ok();
    bed.wait_for("stopped");
    assert_eq!(bed.output(), "x-made\n");
}

#[test]
fn an_exec_whose_agent_is_gone_is_refused() {
    let bed = bed("exec sleep 1000", json!(["mkdir"]));
    let agent = maker(&bed);
    bed.create().ok();
    bed.start().ok();
    drop(agent);
    let refused = bed.run(&["exec", &bed.id, "true"]).exec_error();
    assert!(
        refused.contains("no seccomp agent listens there"),
        "{refused}"
    );
    assert_eq!(bed.status(), "running");
}

#[test]
fn an_agent_that_does_not_accept_fails_the_start() {
    let bed = bed("true", json!(["mkdir"]));
    let address = SocketAddrUnix::new(bed.path("agent")).unwrap();
    let stream = || socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (agent, first) = (stream(), stream());
    bind(&agent, &address).unwrap();
    // One may wait to be accepted.
    listen(&agent, 0).unwrap();
    connect(&first, &address).unwrap();
    let refused = bed.run_container().error();
    assert!(refused.contains("does not accept connections"), "{refused}");
    bed.assert_nothing_left();
}

#[test]
fn an_agent_that_hangs_up_before_it_has_the_listener_fails_the_start() {
    let mut bed = bed("touch /tmp/ran", json!(["mkdir"]));
    // More than fits into a socket that nobody reads.
    profile(&mut bed)["listenerMetadata"] = "x".repeat(1 << 20).into();
    let agent = UnixListener::bind(bed.path("agent")).unwrap();
    let hangs_up = std::thread::spawn(move || drop(agent.accept().unwrap()));
    let refused = bed.run_container().error();
    assert!(refused.contains("has ended or hung up"), "{refused}");
    assert!(!bed.rootfs().join("tmp/ran").exists());
    hangs_up.join().unwrap();
}

#[test]
fn a_limit_of_processes_leaves_room_for_the_handover() {
    let mut bed = bed("touch /tmp/ran", json!(["mkdir"]));
    bed.config["linux"]["resources"]["pids"]["limit"] = 1.into();
    let _agent = maker(&bed);
    let refused = bed.run_container().error();
    assert!(
        refused.contains("raise the limit of processes"),
        "{refused}"
    );
}

/// A scheduler under which nothing may fork, and one that is not inherited.
fn deadline(flags: &[&str]) -> Value {
    json!({
        "policy": "SCHED_DEADLINE", "flags": flags,
        "runtime": 1_000_000, "deadline": 10_000_000, "period": 100_000_000
    })
}

/// Prints the number of the shell's own policy and its capabilities, and forks nothing.
const SCHEDULED: &str = "while read key colon value; do case $key in policy) echo $value; esac; done \
    </proc/self/sched; \
    while read key value; do case $key in CapEff:) echo $value; esac; done </proc/self/status";

/// SCHED_DEADLINE of `linux/sched.h`, and what of the test's capabilities an exec has.
const DEADLINE: &str = "6\n0000000000000000\n";

#[test]
fn a_program_that_may_not_fork_has_an_agent_all_the_same() {
    for flags in [&[][..], &["SCHED_FLAG_RESET_ON_FORK"]] {
        for no_new_privileges in [true, false] {
            let mut bed = bed(SCHEDULED, json!(["mkdir"]));
            bed.config["process"]["scheduler"] = deadline(flags);
            bed.config["process"]["noNewPrivileges"] = no_new_privileges.into();
            bed.config["process"]["capabilities"] = json!({});
            let agent = admitter(&bed);
            assert_eq!(bed.run_container().ok(), DEADLINE);
            assert!(wait_until(|| agent.introduced().len() == 1));
        }
    }
}

#[test]
fn an_exec_that_may_not_fork_has_an_agent_and_no_capability_more() {
    let bed = bed("exec sleep 1000", json!(["mkdir"]));
    let agent = admitter(&bed);
    bed.create().ok();
    bed.start().ok();
    for no_new_privileges in [true, false] {
        let process = json!({
            "args": ["/bin/sh", "-c", SCHEDULED], "cwd": "/", "env": ["PATH=/bin"],
            "noNewPrivileges": no_new_privileges, "scheduler": deadline(&[])
        });
        let document = bed.path("process.json");
        fs::write(&document, process.to_string()).unwrap();
        let ran = bed.run(&["exec", "--process", document.to_str().unwrap(), &bed.id]);
        assert_eq!(ran.ok(), DEADLINE);
    }
    assert!(wait_until(|| agent.introduced().len() == 3));
}

#[test]
fn hooks_run_before_a_program_that_may_not_fork() {
    let mut bed = bed(SCHEDULED, json!(["mkdir"]));
    bed.config["process"]["scheduler"] = deadline(&[]);
    bed.config["process"]["capabilities"] = json!({});
    bed.container_script("/bin/hook", "mkdir /tmp/hook");
    bed.config["hooks"] = json!({"startContainer": [{"path": "/bin/hook", "env": ["PATH=/bin"]}]});
    let _agent = admitter(&bed);
    bed.create().ok();
    bed.start().ok();
    bed.wait_for("stopped");
    assert_eq!(bed.output(), DEADLINE);
    assert!(bed.rootfs().join("tmp/hook").is_dir());
}

#[test]
fn large_metadata_arrives_whole() {
    let mut bed = bed(MKDIR, json!(["mkdir"]));
    let metadata = "x".repeat(1 << 20);
    profile(&mut bed)["listenerMetadata"] = metadata.clone().into();
    let agent = maker(&bed);
    assert_eq!(bed.run_container().ok(), "x-made\n");
    assert_eq!(agent.introduced()[0]["metadata"], metadata);
}

#[test]
fn a_program_that_waits_for_its_agent_can_be_killed() {
    let bed = bed("touch /tmp/asks; mkdir /tmp/x", json!(["mkdir"]));
    // It takes the connection and never reads.
    let _agent = UnixListener::bind(bed.path("agent")).unwrap();
    bed.create().ok();
    bed.start().ok();
    assert!(wait_until(|| bed.rootfs().join("tmp/asks").exists()));
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    bed.wait_for("stopped");
}

#[test]
fn calls_fail_when_the_agent_has_died() {
    let script = "until test -e /tmp/go; do sleep 0.01; done; mkdir /tmp/x 2>&1";
    let bed = bed(script, json!(["mkdir"]));
    let agent = maker(&bed);
    bed.create().ok();
    bed.start().ok();
    drop(agent);
    fs::write(bed.rootfs().join("tmp/go"), "").unwrap();
    bed.wait_for("stopped");
    assert!(
        bed.output().contains("Function not implemented"),
        "{}",
        bed.output()
    );
}

#[test]
fn a_container_in_a_given_pid_namespace_is_told_by_its_own_pid() {
    let first = Bed::new("exec sleep 1000");
    first.create().ok();
    first.start().ok();
    let mut bed = bed(&format!("{MKDIR}; exec sleep 1000"), json!(["mkdir"]));
    let namespace = json!({"type": "pid", "path": format!("/proc/{}/ns/pid", first.pid())});
    bed.config["linux"]["namespaces"][0] = namespace;
    let agent = maker(&bed);
    bed.create().ok();
    bed.start().ok();
    assert!(
        wait_until(|| bed.output() == "x-made\n"),
        "{}",
        bed.output()
    );
    assert_eq!(agent.introduced()[0]["pid"], bed.pid());
    bed.run(&["delete", "--force", &bed.id]).ok();
}

#[test]
fn what_an_agent_is_named_for_is_checked() {
    let mut ignored = bed("mkdir /tmp/x && ls /tmp", json!(["mkdir"]));
    profile(&mut ignored)["syscalls"] = json!([]);
    assert_eq!(ignored.run_container().ok(), "x\n");

    for (patch, wrong) in [
        (json!({"listenerPath": null}), "/linux/seccomp/listenerPath"),
        (json!({"listenerPath": ""}), "/linux/seccomp/listenerPath"),
        (
            json!({"listenerPath": "@abstract"}),
            "/linux/seccomp/listenerPath",
        ),
        (
            json!({"listenerPath": null, "listenerMetadata": "x"}),
            "/linux/seccomp/listenerMetadata",
        ),
    ] {
        let mut bed = bed("true", json!(["mkdir"]));
        let patch = patch.as_object().unwrap().clone();
        profile(&mut bed).as_object_mut().unwrap().extend(patch);
        let refused = bed.run_container().error();
        assert!(refused.contains(wrong), "{refused}");
    }
}
