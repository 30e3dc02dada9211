//! System calls that a profile leaves to an agent on the host.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use littlebox_tests::prelude::*;
use littlebox_tests::seccomp_agent::SeccompAgent;

/// Where the test's agent listens.
fn path(t: &Bed) -> PathBuf {
    t.dirs.base_path.join("agent")
}

fn profile(t: &Bed, names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path(t), "listenerMetadata": "meta",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    })
}

/// An agent that says of every call that it is done.
fn maker(t: &Bed) -> SeccompAgent {
    SeccompAgent::new(&path(t), |_| Some(0))
}

/// A call that only the agent lets succeed.
const MKDIR: &str = "mkdir /no/such/x && echo made";

#[test]
fn an_agent_serves_a_container_and_its_execs_and_is_told_of_both() {
    let t = Bed::new();
    let agent = maker(&t);
    let script = format!("{MKDIR}; echo ready; exec sleep 1000");
    let config = with(
        busybox(&["sh", "-c", &script]),
        json!({"seccomp": profile(&t, &["mkdir"]), "labels": {"who": "me"}}),
    );
    let container = t.start(&config);
    let c = id(&container);
    t.ready(&c);
    assert_eq!(t.stdout(&c), "made\nready\n");
    let pid = t.inspect(&c).summary.pid;
    let state = |status: &str| {
        json!({
            "ociVersion": "1.2.1", "id": c, "status": status, "pid": pid,
            "bundle": t.dirs.state.join("containers").join(&c), "annotations": {"who": "me"},
        })
    };
    let told = agent.introduced();
    let expected = json!({
        "ociVersion": "1.2.1", "fds": ["seccompFd"], "pid": pid, "metadata": "meta",
        "state": state("creating"),
    });
    assert_eq!(told, [expected]);
    assert_eq!(t.exec(&c, &["sh", "-c", MKDIR]), "made\n");
    let told = agent.introduced();
    assert_eq!((told.len(), &told[1]["state"]), (2, &state("running")));
    assert_ne!(told[1]["pid"], told[0]["pid"]);

    let relaxations = t.inspect(&c).relaxations;
    let shown = format!(
        "seccomp agent at {}: it decides about system calls",
        path(&t).display()
    );
    assert!(relaxations.contains(&shown), "{relaxations:?}");
    t.remove(&c);
    drop(agent);
    t.finish();
}

#[test]
fn a_container_with_init_and_one_of_a_spec_have_agents_too() {
    let t = Bed::new();
    let agent = maker(&t);
    let more = json!({"seccomp": profile(&t, &["mkdir"]), "init": true});
    let (exit, out) = t.run(&with(busybox(&["sh", "-c", MKDIR]), more));
    assert_eq!((code(&exit), out.as_str()), (Some(0), "made\n"));
    // The init has the filter, and no agent.
    assert_eq!(agent.introduced().len(), 1);

    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", MKDIR],
                    "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true},
        "root": {"path": busybox_root()},
        "annotations": {"from": "spec"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "seccomp": profile(&t, &["mkdir"])},
    });
    let config = json!({"spec": spec, "overlay": true, "labels": {"who": "me"}});
    let (exit, out) = t.run(&config);
    assert_eq!((code(&exit), out.as_str()), (Some(0), "made\n"));
    let annotations = json!({"from": "spec", "who": "me"});
    assert_eq!(agent.introduced()[1]["state"]["annotations"], annotations);
    drop(agent);
    t.finish();
}

#[test]
fn an_agent_that_is_not_there_fails_the_start_and_says_what_to_do() {
    let t = Bed::new();
    let config = with(
        busybox(&["true"]),
        json!({"seccomp": profile(&t, &["mkdir"])}),
    );
    let c = id(&t.create(&config));
    let problem = t
        .post(&format!("/v1/containers/{c}/start"))
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("seccomp"));
    assert_eq!(problem.path.as_deref(), path(&t).to_str());
    assert!(
        problem.detail.contains("no seccomp agent listens there"),
        "{problem:?}"
    );

    let agent = maker(&t);
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    t.wait(&c);
    drop(agent);
    t.remove(&c);
    t.finish();
}

#[test]
fn an_agent_that_never_answers_holds_up_its_program_and_nobody_else() {
    let t = Bed::new();
    // It takes every connection, and never reads.
    let agent = UnixListener::bind(path(&t)).unwrap();
    let script = "echo ready; mkdir /tmp/x";
    let config = with(
        busybox(&["sh", "-c", script]),
        json!({"seccomp": profile(&t, &["mkdir"])}),
    );
    let c = id(&t.start(&config));
    t.ready(&c);
    assert_eq!(t.exec(&c, &["echo", "hello"]), "hello\n");
    assert_eq!(t.state(&c), ContainerState::Running);
    let _killed = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
    t.wait(&c);
    t.remove(&c);
    drop(agent);
    t.finish();
}

#[test]
fn an_agent_with_a_full_queue_holds_up_no_other_request_to_its_container() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
    let t = Bed::new();
    let agent = maker(&t);
    let c = id(&t.sleeper_with(json!({"seccomp": profile(&t, &["mkdir"])})));
    drop(agent);
    let address = SocketAddrUnix::new(path(&t)).unwrap();
    let stream = || socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (full, first) = (stream(), stream());
    bind(&full, &address).unwrap();
    listen(&full, 0).unwrap();
    connect(&first, &address).unwrap();
    let path = format!("/v1/containers/{c}/execs?wait=30s");
    std::thread::scope(|scope| {
        let exec = scope.spawn(|| t.post_json(&path, &json!({"command": ["true"]})));
        // The helper answers while the exec waits for the agent, which takes its ten seconds.
        proc::until("an exec is on its way", || {
            let execs = t.get(&format!("/v1/containers/{c}/execs")).expect(200);
            execs.value()["items"]
                .as_array()
                .is_some_and(|items| !items.is_empty())
        });
        let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
        let _resumed = t.post(&format!("/v1/containers/{c}/resume")).expect(200);
        let problem = exec.join().unwrap().problem(422, "start_failed");
        assert_eq!(problem.step.as_deref(), Some("seccomp"));
        assert!(
            problem.detail.contains("does not accept connections"),
            "{problem:?}"
        );
    });
    drop((full, first));
    t.remove(&c);
    t.finish();
}

#[test]
fn what_cannot_work_with_an_agent_is_refused() {
    let t = Bed::new();
    let mut nobody = profile(&t, &["mkdir"]);
    nobody["listenerPath"] = json!(null);
    nobody["listenerMetadata"] = json!(null);
    let mut nothing = nobody.clone();
    nothing["listenerMetadata"] = "x".into();
    let mut relative = profile(&t, &["mkdir"]);
    relative["listenerPath"] = "agent".into();
    t.refuses([
        (json!({"seccomp": nobody}), "/seccomp/listenerPath"),
        (json!({"seccomp": nothing}), "/seccomp/listenerMetadata"),
        (json!({"seccomp": relative}), "/seccomp/listenerPath"),
        (
            json!({"seccomp": profile(&t, &["wait4"]), "init": true}),
            "/seccomp/syscalls",
        ),
    ]);
    t.finish();
}
