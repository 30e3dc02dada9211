//! The daemon ends, by any death, and comes back: containers go on, nothing is lost or invented.

use littlebox_tests::prelude::*;

#[test]
fn containers_go_on_while_the_daemon_is_away_and_are_taken_back() {
    let mut t = Bed::new();
    let containers: Vec<Container> = (0..4).map(|_| t.sleeper()).collect();
    t.kill9();
    for c in &containers {
        assert!(proc::alive(pid1(c)));
    }
    t.start_again();
    for c in &containers {
        let now = t.inspect(&id(c));
        assert_eq!(now.summary.state, ContainerState::Running);
        assert_eq!(now.summary.pid, c.summary.pid);
        assert_eq!(now.helper_pid, c.helper_pid);
        assert_eq!(t.exec(&id(c), &["echo", "still here"]), "still here\n");
    }
    let c = id(&containers[0]);
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=20s"))
        .expect(200);
    assert_eq!(code(&t.exit(&c)), Some(0));
    t.finish();
}

#[test]
fn a_graceful_stop_leaves_containers_running_and_a_restart_takes_them_back() {
    let mut t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    t.stop();
    assert!(proc::alive(pid1(&container)));
    t.start_again();
    assert_eq!(t.inspect(&c).summary.pid, container.summary.pid);
    let kinds: Vec<String> = t.events().into_iter().map(|e| e.kind).collect();
    assert!(kinds.contains(&"daemon.stopping".to_owned()), "{kinds:?}");
    t.finish();
}

#[test]
fn exit_codes_are_true_when_the_program_ended_meanwhile() {
    let mut t = Bed::new();
    let mut containers = Vec::new();
    for n in [0, 7, 255] {
        let script = format!("while [ ! -e /m/go ]; do sleep 0.05; done; exit {n}");
        let dir = t.dirs.base_path.join(format!("go-{n}"));
        std::fs::create_dir(&dir).unwrap();
        let mount = json!([{"type": "bind", "source": dir, "destination": "/m"}]);
        let config = with(busybox(&["sh", "-c", &script]), json!({"mounts": mount}));
        containers.push((n, t.start(&config)));
    }
    let killed = t.sleeper();
    t.kill9();
    for (n, c) in &containers {
        std::fs::write(t.dirs.base_path.join(format!("go-{n}/go")), "").unwrap();
        proc::until("it has ended", || !proc::alive(pid1(c)));
    }
    proc::kill(pid1(&killed), Signal::KILL);
    proc::until("it has ended", || !proc::alive(pid1(&killed)));
    t.start_again();
    for (n, c) in &containers {
        assert_eq!(code(&t.exit(&id(c))), Some(*n));
        assert_eq!(t.state(&id(c)), ContainerState::Exited);
        assert!(t.inspect(&id(c)).summary.finished_at.is_some());
    }
    let exit = t.exit(&id(&killed));
    assert!(matches!(
        exit.status,
        ExitStatus::Signaled { signal: 9, .. }
    ));
    t.finish();
}

#[test]
fn the_log_has_no_gap_over_restarts() {
    let mut t = Bed::new();
    let script = "for i in $(seq 400); do echo $i; sleep 0.005; done";
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        t.crash();
    }
    assert_eq!(code(&t.exit(&c)), Some(0));
    let lines: Vec<String> = t.logs(&c, "").into_iter().map(|l| l.data).collect();
    let expected: Vec<String> = (1..=400).map(|i| i.to_string()).collect();
    assert_eq!(lines, expected);
    t.finish();
}

#[test]
fn a_log_follower_resumes_by_position_after_a_restart() {
    let mut t = Bed::new();
    let script = "for i in $(seq 200); do echo $i; sleep 0.01; done";
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    let (mut seen, mut from) = (Vec::new(), 0);
    let mut stream = t.stream(&format!("/v1/containers/{c}/logs?follow=true"));
    for _ in 0..20 {
        let line: LogLine = stream.record().expect("it goes on");
        from = line.position;
        seen.push(line.data);
    }
    t.crash();
    let mut stream = t.stream(&format!("/v1/containers/{c}/logs?follow=true&from={from}"));
    while let Some(line) = stream.record::<LogLine>() {
        seen.push(line.data);
    }
    let expected: Vec<String> = (1..=200).map(|i| i.to_string()).collect();
    assert_eq!(seen, expected);
    t.finish();
}

#[test]
fn an_exec_that_ended_meanwhile_has_its_true_code_and_whole_output() {
    let mut t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let script = "echo before; sleep 0.7; echo after; exit 21";
    let ended = t.exec_start(&c, &json!({"command": ["sh", "-c", script]}));
    let running = t.exec_start(&c, &json!({"command": ["sleep", "1000"]}));
    t.kill9();
    let pid = ended.pid.expect("it runs");
    proc::until("it has ended", || !proc::alive(pid));
    t.start_again();
    let exec = t.exec_wait(&ended.id.to_string());
    assert_eq!(exec_code(&exec), Some(21));
    let raw = t
        .send(
            &Request::new(Method::Get, format!("/v1/execs/{}/output", ended.id))
                .header("accept", "application/octet-stream"),
        )
        .expect(200);
    assert_eq!(raw.body, b"before\nafter\n");
    let running = running.id.to_string();
    assert_eq!(t.exec_inspect(&running).state, ExecState::Running);
    let _none = t
        .post_json(
            &format!("/v1/execs/{running}/signal"),
            &json!({"signal": "KILL"}),
        )
        .expect(204);
    let exit = t.exec_wait(&running).exit.expect("it ended");
    assert!(matches!(
        exit.status,
        ExitStatus::Signaled { signal: 9, .. }
    ));
    t.finish();
}

#[test]
fn many_waiters_resume_and_learn_the_same_code() {
    let mut t = Bed::new();
    let c = id(&t.start(&busybox(&["sh", "-c", "sleep 1.2; exit 17"])));
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let (client, path) = (
                t.client.clone(),
                format!("/v1/containers/{c}/wait?timeout=30s"),
            );
            std::thread::spawn(move || {
                // What a client does: ask again when the connection breaks.
                for _ in 0..600 {
                    if let Ok(response) = client.try_send(&Request::new(Method::Get, &path))
                        && response.status() == 200
                    {
                        return response.json::<WaitResult>();
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                panic!("no answer");
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(150));
    t.crash();
    for waiter in waiters {
        let result = waiter.join().unwrap();
        assert_eq!(result.exit.as_ref().and_then(code), Some(17));
    }
    t.finish();
}

#[test]
fn a_paused_container_is_still_paused_after_a_restart() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
    t.crash();
    assert_eq!(t.state(&c), ContainerState::Paused);
    let _resumed = t.post(&format!("/v1/containers/{c}/resume")).expect(200);
    assert_eq!(t.exec(&c, &["echo", "ok"]), "ok\n");
    t.finish();
}

#[test]
fn a_stop_that_was_under_way_is_finished() {
    let mut t = Bed::new();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    proc::until("the trap is set", || t.stdout(&c).contains("ready"));
    let _stopping = t
        .post_json(
            &format!("/v1/containers/{c}/stop?wait=50ms"),
            &json!({"timeout_s": 2}),
        )
        .expect(202);
    t.crash();
    let exit = t.exit(&c);
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 9, .. }),
        "{exit:?}"
    );
    t.finish();
}

#[test]
fn auto_remove_happens_though_the_program_ended_meanwhile() {
    let mut t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "sleep 0.6; exit 5"]),
        json!({"auto_remove": true}),
    );
    let container = t.start(&config);
    t.kill9();
    proc::until("it has ended", || !proc::alive(pid1(&container)));
    t.start_again();
    proc::until("it is gone", || t.list().is_empty());
    assert_eq!(code(&t.exit(&id(&container))), Some(5));
    t.finish();
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let mut t = Bed::new();
    for round in 0..3 {
        let mut acknowledged = Vec::new();
        for n in 0..5 {
            let config = with(busybox(&["true"]), json!({"name": format!("r{round}-{n}")}));
            acknowledged.push(id(&t.create(&config)));
        }
        t.remove(&acknowledged[0]);
        t.crash();
        let there: BTreeSet<String> = t.list().iter().map(|c| c.id.to_string()).collect();
        assert!(!there.contains(&acknowledged[0]));
        for c in &acknowledged[1..] {
            assert!(there.contains(c));
        }
    }
    t.finish();
}

/// Every state that a container may rest in after a restart.
#[track_caller]
fn at_rest(t: &Bed) {
    proc::until("every container is at rest", || {
        t.list().iter().all(|c| {
            matches!(
                c.state,
                ContainerState::Created
                    | ContainerState::Running
                    | ContainerState::Exited
                    | ContainerState::Failed
            )
        })
    });
    for c in t.list() {
        match c.state {
            ContainerState::Running => assert!(proc::alive(c.pid.expect("a PID")), "{c:?}"),
            ContainerState::Exited => assert!(c.exit.is_some(), "{c:?}"),
            _ => assert!(c.pid.is_none(), "{c:?}"),
        }
    }
}

#[test]
fn kill_9_at_any_moment_of_a_busy_daemon_leaves_nothing_half_done() {
    let mut t = Bed::new();
    for round in 0..8u64 {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let client = t.client.clone();
                std::thread::spawn(move || busy(&client))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(40 + 53 * round));
        t.kill9();
        for worker in workers {
            worker.join().unwrap();
        }
        t.start_again();
        at_rest(&t);
    }
    t.finish();
}

/// Creates, starts, execs, stops and removes until the daemon is gone.
fn busy(client: &littlebox_tests::http::Client) {
    let send = |method: Method, path: String, body: Option<Value>| {
        let request = Request::new(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        client.try_send(&request).ok()
    };
    loop {
        let path = "/v1/containers?start=true".to_owned();
        let Some(made) = send(Method::Post, path, Some(sleeper_config())) else {
            return;
        };
        let Ok(container) = serde_json::from_slice::<Container>(&made.body) else {
            continue;
        };
        let base = format!("/v1/containers/{}", id(&container));
        let exec = json!({"command": ["true"]});
        let steps = [
            send(Method::Post, format!("{base}/execs?wait=5s"), Some(exec)),
            send(Method::Post, format!("{base}/stop?wait=5s"), None),
            send(Method::Delete, format!("{base}?force=true&wait=5s"), None),
        ];
        if steps.iter().any(Option::is_none) {
            return;
        }
    }
}

/// A daemon that aborts at one commit point while a client works; then it comes back.
#[track_caller]
fn crash_at(point: &str) {
    let mut t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_CRASH", point)
        .build();
    let client = t.client.clone();
    let worker = std::thread::spawn(move || busy(&client));
    t.wait_crashed();
    worker.join().unwrap();
    t.options
        .env
        .retain(|(name, _)| name != "LITTLEBOX_TEST_CRASH");
    t.start_again();
    at_rest(&t);
    let (exit, out) = t.run(&busybox(&["echo", "works"]));
    assert_eq!((code(&exit), out.as_str()), (Some(0), "works\n"));
    t.finish();
}

macro_rules! crash_points {
    ($($name:ident: $point:literal,)*) => {
        $(
            #[test]
            fn $name() {
                crash_at($point);
            }
        )*
    };
}

crash_points! {
    a_crash_before_the_commit_of_a_create_leaves_nothing: "create.before",
    a_crash_after_the_commit_of_a_create_leaves_nothing: "create.after",
    a_crash_before_the_commit_of_a_launch_leaves_nothing: "launched.before",
    a_crash_after_the_commit_of_a_launch_leaves_nothing: "launched.after",
    a_crash_before_the_commit_of_an_exit_leaves_nothing: "exited.before",
    a_crash_after_the_commit_of_an_exit_leaves_nothing: "exited.after",
    a_crash_after_the_intent_to_remove_leaves_nothing: "remove.intent",
    a_crash_after_the_files_were_removed_leaves_nothing: "remove.files",
    a_crash_after_the_commit_of_a_remove_leaves_nothing: "remove.after",
    a_crash_before_the_commit_of_an_exec_leaves_nothing: "exec.before",
    a_crash_after_the_commit_of_an_exec_leaves_nothing: "exec.after",
    a_crash_at_the_third_create_leaves_nothing: "create.after:3",
}

#[test]
fn a_name_is_free_again_after_an_interrupted_create() {
    let mut t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_CRASH", "create.before")
        .build();
    let config = with(busybox(&["true"]), json!({"name": "mine"}));
    let request = Request::new(Method::Post, "/v1/containers").json(&config);
    assert!(t.client.try_send(&request).is_err(), "it answered");
    t.wait_crashed();
    t.options
        .env
        .retain(|(name, _)| name != "LITTLEBOX_TEST_CRASH");
    t.start_again();
    assert_eq!(name(&t.create(&config)), "mine");
    t.finish();
}
