//! Stop, kill, restart, pause, remove.

use littlebox_tests::prelude::*;

#[test]
fn a_running_container_is_removed_by_force() {
    let t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let _none = t
        .delete(&format!("/v1/containers/{c}?force=true&wait=20s"))
        .expect(204);
    assert!(!proc::alive(pid1(&container)));
    t.get(&format!("/v1/containers/{c}"))
        .problem(404, "container_not_found");
    t.finish();
}

#[test]
fn stop_sends_the_stop_signal_and_kills_after_the_grace() {
    let t = Bed::new();
    let polite = t.start(&busybox(&[
        "sh",
        "-c",
        "trap 'echo asked; exit 3' USR1; echo ready; while :; do sleep 0.05; done",
    ]));
    let c = id(&polite);
    proc::until("the trap is set", || t.stdout(&c).contains("ready"));
    let stopped: Container = t
        .post_json(
            &format!("/v1/containers/{c}/stop?wait=20s"),
            &json!({"signal": "SIGUSR1"}),
        )
        .expect(200)
        .json();
    assert_eq!(stopped.summary.exit.as_ref().and_then(code), Some(3));
    assert!(t.stdout(&c).contains("asked"));

    let deaf = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
    ])));
    let begin = Instant::now();
    let stopped: Container = t
        .post_json(
            &format!("/v1/containers/{deaf}/stop?wait=20s"),
            &json!({"timeout_s": 1}),
        )
        .expect(200)
        .json();
    assert!(begin.elapsed() >= Duration::from_millis(900));
    let exit = stopped.summary.exit.expect("it ended");
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 9, .. }),
        "{exit:?}"
    );
    t.finish();
}

#[test]
fn a_stop_whose_wait_runs_out_answers_202() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
    ])));
    let stopping: Container = t
        .post_json(
            &format!("/v1/containers/{c}/stop?wait=100ms"),
            &json!({"timeout_s": 2}),
        )
        .expect(202)
        .json();
    assert_eq!(stopping.summary.state, ContainerState::Stopping);
    t.wait(&c);
    t.finish();
}

#[test]
fn the_containers_own_stop_signal_is_used() {
    let t = Bed::new();
    let config = with(
        busybox(&[
            "sh",
            "-c",
            "trap 'exit 5' HUP; echo ready; while :; do sleep 0.05; done",
        ]),
        json!({"stop_signal": "HUP", "stop_timeout_s": 5}),
    );
    let c = id(&t.start(&config));
    proc::until("the trap is set", || t.stdout(&c).contains("ready"));
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=20s"))
        .expect(200);
    assert_eq!(code(&t.exit(&c)), Some(5));
    t.finish();
}

#[test]
fn kill_sends_any_signal_by_name_or_number() {
    let t = Bed::new();
    for signal in ["KILL", "SIGTERM", "15", "sigusr2"] {
        let script = "trap 'exit 12' USR2; trap 'exit 15' TERM; echo ready; \
            while :; do sleep 0.05; done";
        let c = id(&t.start(&busybox(&["sh", "-c", script])));
        proc::until("the traps are set", || t.stdout(&c).contains("ready"));
        let _none = t
            .post_json(
                &format!("/v1/containers/{c}/kill"),
                &json!({"signal": signal}),
            )
            .expect(204);
        let exit = t.exit(&c);
        match signal {
            "KILL" => assert_eq!(
                exit.status,
                ExitStatus::Signaled {
                    signal: 9,
                    signal_name: "SIGKILL".into()
                }
            ),
            "sigusr2" => assert_eq!(code(&exit), Some(12)),
            _ => assert_eq!(code(&exit), Some(15)),
        }
    }
    t.finish();
}

#[test]
fn kill_all_reaches_every_process_of_the_container() {
    let t = Bed::new();
    let script = "trap : USR1; for i in 1 2; do sh -c \"trap 'echo hit$i; exit' USR1; \
        echo up$i; while :; do sleep 0.05; done\" & done; wait; sleep 1000";
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    proc::until("both are up", || {
        let out = t.stdout(&c);
        out.contains("up1") && out.contains("up2")
    });
    let _none = t
        .post_json(
            &format!("/v1/containers/{c}/kill"),
            &json!({"signal": "USR1", "all": true}),
        )
        .expect(204);
    proc::until("both are hit", || {
        let out = t.stdout(&c);
        out.contains("hit1") && out.contains("hit2")
    });
    t.finish();
}

#[test]
fn restart_replaces_the_process() {
    let t = Bed::new();
    let first = t.sleeper();
    let c = id(&first);
    let second: Container = t
        .post(&format!("/v1/containers/{c}/restart"))
        .expect(200)
        .json();
    assert_eq!(second.summary.state, ContainerState::Running);
    assert_ne!(pid1(&first), pid1(&second));
    assert!(!proc::alive(pid1(&first)));
    t.finish();
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "while :; do echo tick; sleep 0.02; done",
    ])));
    proc::until("it ticks", || t.stdout(&c).contains("tick"));
    let paused: Container = t
        .post(&format!("/v1/containers/{c}/pause"))
        .expect(200)
        .json();
    assert_eq!(paused.summary.state, ContainerState::Paused);
    std::thread::sleep(Duration::from_millis(150));
    let then = t.stdout(&c).len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(t.stdout(&c).len(), then, "it went on while paused");
    let resumed: Container = t
        .post(&format!("/v1/containers/{c}/resume"))
        .expect(200)
        .json();
    assert_eq!(resumed.summary.state, ContainerState::Running);
    proc::until("it ticks again", || t.stdout(&c).len() > then);
    t.finish();
}

#[test]
fn a_paused_container_can_be_stopped_and_killed() {
    let t = Bed::new();
    for how in ["stop?wait=20s", "kill"] {
        let c = id(&t.sleeper());
        let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
        let response = t.post(&format!("/v1/containers/{c}/{how}"));
        assert!(
            matches!(response.status(), 200 | 204),
            "{}",
            response.text()
        );
        t.wait(&c);
    }
    let c = id(&t.sleeper());
    let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
    t.remove(&c);
    t.finish();
}
