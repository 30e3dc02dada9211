//! What each state forbids.

use littlebox_tests::prelude::*;

/// The calls of the lifecycle that a state forbids: 409, and the state is named.
#[track_caller]
fn refused(t: &Bed, c: &str, state: &str, calls: &[&str]) {
    for call in calls {
        let path = format!("/v1/containers/{c}/{call}");
        let response = match *call {
            "execs" => t.post_json(&path, &json!({"command": ["true"]})),
            "resize" => t.post_json(&path, &json!({"rows": 10, "cols": 10})),
            "top" | "stats" | "namespaces" => t.get(&path),
            _ => t.post(&path),
        };
        let problem = response.problem(409, "invalid_state");
        assert_eq!(problem.state.as_deref(), Some(state), "{call}: {problem:?}");
        let named = problem.detail.starts_with("container '");
        assert!(named, "{call}: {}", problem.detail);
    }
}

const NEEDS_A_PROCESS: [&str; 8] = [
    "stop",
    "kill",
    "pause",
    "resume",
    "execs",
    "top",
    "stats",
    "namespaces",
];

#[test]
fn a_created_container_refuses_what_needs_a_process() {
    let t = Bed::new();
    let c = id(&t.create(&sleeper_config()));
    refused(&t, &c, "created", &NEEDS_A_PROCESS);
    t.finish();
}

#[test]
fn an_exited_container_refuses_what_needs_a_process() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["true"])));
    t.wait(&c);
    refused(&t, &c, "exited", &NEEDS_A_PROCESS);
    t.finish();
}

#[test]
fn a_failed_container_refuses_what_needs_a_process() {
    let t = Bed::new();
    let problem = t
        .post_json("/v1/containers?start=true", &busybox(&["/no/such/program"]))
        .problem(422, "start_failed");
    let c = problem.id.expect("the failed container is recorded");
    refused(&t, &c, "failed", &NEEDS_A_PROCESS);
    t.finish();
}

#[test]
fn a_running_container_refuses_a_second_start_a_resume_and_a_plain_remove() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    refused(&t, &c, "running", &["start", "resume"]);
    let problem = t
        .delete(&format!("/v1/containers/{c}"))
        .problem(409, "invalid_state");
    assert_eq!(problem.state.as_deref(), Some("running"));
    t.finish();
}

#[test]
fn a_paused_container_refuses_start_pause_exec_and_a_plain_remove() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
    refused(&t, &c, "paused", &["start", "pause", "execs"]);
    let again = t.post(&format!("/v1/containers/{c}/pause"));
    let problem = again.problem(409, "invalid_state");
    assert!(problem.detail.ends_with("is already paused"), "{problem:?}");
    assert_eq!(problem.hint, None);
    let problem = t
        .delete(&format!("/v1/containers/{c}"))
        .problem(409, "invalid_state");
    assert_eq!(problem.state.as_deref(), Some("paused"));
    t.finish();
}
