//! A failure at every step of a start: the step is named, and nothing is left.

use littlebox_protocol::Step;
use littlebox_tests::prelude::*;

/// A configuration whose start goes through every step.
fn every_step() -> Value {
    let map = json!([{"container_id": 0, "host_id": 0, "size": 65_536}]);
    with(
        busybox(&["true"]),
        json!({
            "namespaces": {"user": "new", "ipc": "container:other"},
            "id_maps": {"uid": map, "gid": map},
            "terminal": true,
            "read_only": true,
            "hostname": "x",
            "sysctls": {"net.ipv4.ip_forward": "1"},
            "rlimits": {"core": {"soft": 0, "hard": 0}},
            "mounts": [{"type": "tmpfs", "destination": "/t"}],
        }),
    )
}

/// A configuration that goes through the steps of an ordinary start.
fn ordinary() -> Value {
    with(
        busybox(&["true"]),
        json!({
            "terminal": true,
            "read_only": true,
            "sysctls": {"net.ipv4.ip_forward": "1"},
            "rlimits": {"core": {"soft": 0, "hard": 0}},
            "mounts": [{"type": "tmpfs", "destination": "/t"}],
        }),
    )
}

fn config_for(step: Step) -> Value {
    match step {
        Step::IdMaps | Step::JoinNamespaces => every_step(),
        _ => ordinary(),
    }
}

/// Steps that a host may not need: on pure cgroup v2 the clone itself puts the child in its place.
fn may_be_absent(step: Step) -> bool {
    step == Step::CgroupAttach
}

#[test]
fn an_error_at_each_step_is_422_with_the_step_and_leaves_nothing() {
    let t = Bed::builder().faults().build();
    let other = id(&t.start(&with(sleeper_config(), json!({"name": "other"}))));
    for step in Step::ALL {
        let label = json!({"labels": {"littlebox.test/inject": format!("{}:5", step.name())}});
        let config = with(config_for(step), label);
        let response = t.post_json("/v1/containers?start=true", &config);
        if response.status() == 201 && may_be_absent(step) {
            continue;
        }
        let problem = response.problem(422, "start_failed");
        assert_eq!(problem.step.as_deref(), Some(step.name()), "{problem:?}");
        assert_eq!(problem.errno.as_deref(), Some("EIO"), "{problem:?}");
        let failed = t.inspect(&problem.id.expect("it is recorded"));
        assert_eq!(failed.summary.state, ContainerState::Failed);
        assert_eq!(
            failed.failure.as_ref().expect("the reason").step,
            step.name()
        );
        assert!(failed.cgroups.is_empty() && failed.helper_pid.is_none());
        t.remove(&id(&failed));
    }
    t.remove(&other);
    t.finish();
}

#[test]
fn a_helper_that_dies_at_each_step_is_a_failed_start_and_leaves_nothing() {
    let t = Bed::builder().faults().build();
    let other = id(&t.start(&with(sleeper_config(), json!({"name": "other"}))));
    for step in Step::ALL {
        let label = json!({"labels": {"littlebox.test/inject": format!("{}:0", step.name())}});
        let config = with(config_for(step), label);
        let response = t.post_json("/v1/containers?start=true", &config);
        if response.status() == 201 && may_be_absent(step) {
            continue;
        }
        let problem = response.problem(422, "start_failed");
        assert!(!problem.detail.is_empty());
        let c = problem.id.expect("it is recorded");
        assert_eq!(t.state(&c), ContainerState::Failed, "{}", step.name());
        t.remove(&c);
    }
    t.remove(&other);
    t.finish();
}

#[test]
fn a_failed_container_starts_when_its_fault_is_gone() {
    let t = Bed::new();
    let problem = t
        .post_json("/v1/containers?start=true", &busybox(&["/bin/later"]))
        .problem(422, "start_failed");
    let c = problem.id.expect("it is recorded");
    let script = b"#!/bin/sh\necho up\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(&mut header, "later", &script[..])
        .unwrap();
    let put = Request::new(Method::Put, format!("/v1/containers/{c}/files?path=/bin"))
        .body("application/x-tar", archive.into_inner().unwrap());
    let _none = t.send(&put).expect(204);
    let _run = t
        .post(&format!("/v1/containers/{c}/start?wait=20s"))
        .expect(200);
    assert_eq!(t.stdout(&c), "up\n");
    assert!(t.inspect(&c).failure.is_none());
    t.finish();
}

#[test]
fn a_start_that_the_machine_has_no_means_for_is_503_or_507() {
    let t = Bed::builder().faults().build();
    for (errno, name, status, problem_code) in [
        (12, "ENOMEM", 503, "resources_exhausted"),
        (24, "EMFILE", 503, "resources_exhausted"),
        (28, "ENOSPC", 507, "no_space"),
    ] {
        let label = json!({"labels": {"littlebox.test/inject": format!("clone:{errno}")}});
        let problem = t
            .post_json(
                "/v1/containers?start=true",
                &with(busybox(&["true"]), label),
            )
            .problem(status, problem_code);
        assert_eq!(problem.step.as_deref(), Some("clone"));
        assert_eq!(problem.errno.as_deref(), Some(name));
    }
    t.finish();
}

#[test]
fn the_switch_does_nothing_unless_the_daemon_was_told_so() {
    let t = Bed::new();
    let label = json!({"labels": {"littlebox.test/inject": "exec:5"}});
    let (exit, _) = t.run(&with(busybox(&["true"]), label));
    assert_eq!(code(&exit), Some(0));
    t.finish();
}
