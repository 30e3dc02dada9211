//! Create and start, once and again, to the exit code.

use littlebox_tests::prelude::*;

#[test]
fn a_container_lives_from_created_to_gone() {
    let t = Bed::new();
    let created = t.create(&with(sleeper_config(), json!({"name": "life"})));
    let c = id(&created);
    assert_eq!(created.summary.state, ContainerState::Created);
    assert_eq!(name(&created), "life");
    assert!(created.summary.pid.is_none() && created.summary.started_at.is_none());

    let started: Container = t
        .post(&format!("/v1/containers/{c}/start"))
        .expect(200)
        .json();
    assert_eq!(started.summary.state, ContainerState::Running);
    assert!(proc::alive(pid1(&started)));
    assert!(started.helper_pid.is_some());
    t.ready(&c);

    let stopped: Container = t
        .post(&format!("/v1/containers/{c}/stop?wait=20s"))
        .expect(200)
        .json();
    assert_eq!(stopped.summary.state, ContainerState::Exited);
    assert_eq!(stopped.summary.exit.as_ref().and_then(code), Some(0));
    assert!(stopped.summary.pid.is_none());
    assert!(!proc::alive(pid1(&started)));

    let _none = t.delete(&format!("/v1/containers/{c}")).expect(204);
    t.get(&format!("/v1/containers/{c}"))
        .problem(404, "container_not_found");
    let kinds = t.events_of(&created);
    assert_eq!(
        kinds,
        [
            "container.created",
            "container.starting",
            "container.started",
            "container.stopping",
            "container.exited",
            "container.removed"
        ]
    );
    t.finish();
}

#[test]
fn create_and_start_is_one_call_with_location_and_etag() {
    let t = Bed::new();
    let response = t
        .post_json("/v1/containers?start=true", &sleeper_config())
        .expect(201);
    let container: Container = response.json();
    assert_eq!(container.summary.state, ContainerState::Running);
    let location = response.header("location").expect("a Location").to_owned();
    assert_eq!(location, format!("/v1/containers/{}", id(&container)));
    assert!(response.header("etag").is_some());
    let _found = t.get(&location).expect(200);
    t.finish();
}

#[test]
fn start_may_wait_for_the_exit() {
    let t = Bed::new();
    let config = busybox(&["sh", "-c", "sleep 0.2; exit 7"]);
    let container: Container = t
        .post_json("/v1/containers?start=true&wait=20s", &config)
        .expect(201)
        .json();
    assert_eq!(container.summary.state, ContainerState::Exited);
    assert_eq!(container.summary.exit.as_ref().and_then(code), Some(7));
    t.finish();
}

#[test]
fn a_short_wait_on_start_returns_the_running_container() {
    let t = Bed::new();
    let begin = Instant::now();
    let container: Container = t
        .post_json("/v1/containers?start=true&wait=200ms", &sleeper_config())
        .expect(201)
        .json();
    assert_eq!(container.summary.state, ContainerState::Running);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    t.finish();
}

#[test]
fn an_exited_container_starts_again_and_keeps_its_writes() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "echo once >> /count; wc -l < /count",
    ])));
    t.wait(&c);
    let _again = t
        .post(&format!("/v1/containers/{c}/start?wait=20s"))
        .expect(200);
    assert_eq!(t.stdout(&c), "1\n2\n");
    t.finish();
}

#[test]
fn exit_codes_are_true() {
    let t = Bed::new();
    for n in [0, 1, 2, 42, 125, 126, 127, 128, 137, 254, 255] {
        let (exit, _) = t.run(&busybox(&["sh", "-c", &format!("exit {n}")]));
        assert_eq!(exit.status, ExitStatus::Exited { code: n });
    }
    for signal in [1, 6, 11, 15] {
        // PID 1 of a PID namespace is deaf to its own signals (pid_namespaces(7)), and an init
        // that cannot die of its child's signal says it as a shell does.
        let config = with(
            busybox(&["sh", "-c", &format!("kill -{signal} $$")]),
            json!({"init": true}),
        );
        let (exit, _) = t.run(&config);
        assert_eq!(exit.status, ExitStatus::Exited { code: 128 + signal });
    }
    t.finish();
}
