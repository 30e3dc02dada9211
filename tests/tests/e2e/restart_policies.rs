//! Restart policies: what the daemon starts again, and what it leaves alone.

use littlebox_tests::prelude::*;

/// A configuration of a program that notes each of its runs in its own root, and then runs `then`.
fn counting(policy: Value, then: &str) -> Value {
    let script = format!("echo run >>/runs; echo ready; {then}");
    with(
        busybox(&["sh", "-c", &script]),
        json!({"restart": policy, "stop_timeout_s": 0}),
    )
}

fn always() -> Value {
    json!({"policy": "always"})
}

/// How often the program of a container has begun.
fn runs(container: &Container) -> usize {
    let upper = container.upper_dir.as_deref().expect("an overlay");
    let noted = std::fs::read_to_string(format!("{upper}/runs")).unwrap_or_default();
    noted.lines().count()
}

/// Waits until a container's program has begun its n-th run, which may be over by then.
#[track_caller]
fn begun(container: &Container, n: usize) {
    proc::until(&format!("run {n} of the program"), || runs(container) >= n);
}

/// Waits for the n-th run of a container's program, which must be a long one; the container in
/// that run.
#[track_caller]
fn in_run(t: &Bed, container: &Container, n: usize) -> Container {
    begun(container, n);
    let id = id(container);
    proc::until("it runs", || t.state(&id) == ContainerState::Running);
    t.inspect(&id)
}

/// Gives a restart that should not come the time in which one would have come.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(400));
}

#[test]
fn always_starts_again_whatever_the_exit_and_says_how_often() {
    let t = Bed::new();
    for then in ["exit 0", "exit 3", "kill -9 $$"] {
        let c = t.start(&counting(always(), then));
        proc::until("three runs", || runs(&c) >= 3);
        assert!(t.inspect(&id(&c)).restart_count >= 2);
        t.remove(&id(&c));
    }
    t.finish();
}

#[test]
fn on_failure_starts_again_until_the_maximum_and_keeps_the_last_exit() {
    let t = Bed::new();
    let policy = json!({"policy": "on-failure", "max_retries": 2});
    let c = t.start(&counting(policy, "exit 7"));
    proc::until("it has given up", || {
        let now = t.inspect(&id(&c));
        now.restart_count == 2 && now.summary.state == ContainerState::Exited
    });
    a_moment();
    let now = t.inspect(&id(&c));
    assert_eq!(runs(&c), 3);
    assert_eq!(now.restart_at, None);
    assert_eq!(code(now.summary.exit.as_ref().expect("an exit")), Some(7));
    let kinds = t.events_of(&c);
    let restarting = kinds.iter().filter(|k| *k == "container.restarting");
    assert_eq!(restarting.count(), 2, "{kinds:?}");
    t.finish();
}

#[test]
fn on_failure_leaves_a_success_alone() {
    let t = Bed::new();
    let c = t.start(&counting(json!({"policy": "on-failure"}), "exit 0"));
    assert_eq!(code(&t.exit(&id(&c))), Some(0));
    a_moment();
    assert_eq!((runs(&c), t.state(&id(&c))), (1, ContainerState::Exited));
    t.finish();
}

#[test]
fn a_program_killed_from_outside_comes_back() {
    let t = Bed::new();
    let c = t.start(&counting(json!({"policy": "unless-stopped"}), "sleep 1000"));
    let first = in_run(&t, &c, 1);
    proc::kill(pid1(&first), Signal::KILL);
    let second = in_run(&t, &c, 2);
    assert_ne!(pid1(&first), pid1(&second));
    assert_eq!(second.restart_count, 1);
    t.finish();
}

#[test]
fn what_a_client_stops_or_kills_stays_down_until_a_client_starts_it() {
    let t = Bed::new();
    let end: [(&str, Value); 3] = [
        ("stop", json!({})),
        ("kill", json!({})),
        ("kill", json!({"signal": "TERM", "all": true})),
    ];
    for (n, (verb, body)) in end.into_iter().enumerate() {
        let c = t.start(&counting(always(), "trap 'exit 0' TERM; sleep 1000 & wait"));
        in_run(&t, &c, 1);
        t.ready(&id(&c));
        let path = format!("/v1/containers/{}/{verb}", id(&c));
        let done = t.post_json(&path, &body);
        assert!(matches!(done.status(), 200 | 204), "{n}: {}", done.text());
        let _exit = t.exit(&id(&c));
        a_moment();
        assert_eq!((runs(&c), t.state(&id(&c))), (1, ContainerState::Exited));
        let _started = t
            .post(&format!("/v1/containers/{}/start", id(&c)))
            .expect(200);
        let again = in_run(&t, &c, 2);
        assert_eq!(again.restart_count, 0);
        proc::kill(pid1(&again), Signal::KILL);
        in_run(&t, &c, 3);
        t.remove(&id(&c));
    }
    t.finish();
}

/// Waits until a container waits for its next start at least half a second away.
#[track_caller]
fn waiting(t: &Bed, container: &Container) {
    proc::until("it waits for its next start", || {
        let now = t.inspect(&id(container));
        now.summary.state == ContainerState::Exited && now.restart_count >= 3
    });
    assert!(t.inspect(&id(container)).restart_at.is_some());
}

#[test]
fn a_stop_between_two_runs_ends_the_waiting() {
    let t = Bed::new();
    let c = t.start(&counting(always(), "exit 1"));
    waiting(&t, &c);
    let stopped: Container = t
        .post(&format!("/v1/containers/{}/stop", id(&c)))
        .expect(200)
        .json();
    assert_eq!(stopped.restart_at, None);
    let before = runs(&c);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(runs(&c), before);
    t.finish();
}

#[test]
fn a_removal_between_two_runs_removes() {
    let t = Bed::new();
    let c = t.start(&counting(always(), "exit 1"));
    waiting(&t, &c);
    let _gone = t.delete(&format!("/v1/containers/{}", id(&c))).expect(204);
    a_moment();
    assert!(t.list().is_empty());
    t.finish();
}

#[test]
fn an_automatic_start_that_fails_is_tried_again() {
    let t = Bed::new();
    let source = t.dirs.base_path.join("source");
    std::fs::create_dir(&source).unwrap();
    let mount = json!({"type": "bind", "source": source, "destination": "/data"});
    let config = with(
        counting(always(), "[ -e /data/stay ] && sleep 1000; exit 1"),
        json!({"mounts": [mount]}),
    );
    let c = t.start(&config);
    begun(&c, 1);
    std::fs::remove_dir(&source).unwrap();
    proc::until("a start has failed", || {
        let now = t.inspect(&id(&c));
        now.summary.state == ContainerState::Failed && now.failure.is_some()
    });
    assert!(t.inspect(&id(&c)).restart_at.is_some());
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("stay"), "").unwrap();
    proc::until("it runs", || t.state(&id(&c)) == ContainerState::Running);
    t.finish();
}

#[test]
fn a_first_start_that_fails_is_not_repeated() {
    let t = Bed::new();
    let config = with(busybox(&["/no/such"]), json!({"restart": always()}));
    let _refused = t
        .post_json("/v1/containers?start=true", &config)
        .expect(422);
    a_moment();
    let all = t.list();
    assert_eq!(all[0].state, ContainerState::Failed);
    assert_eq!(t.inspect(all[0].id.to_string().as_str()).restart_count, 0);
    t.finish();
}

#[test]
fn a_wait_sees_the_end_of_a_run_that_is_followed_by_another() {
    let t = Bed::new();
    let c = t.start(&counting(always(), "sleep 0.2; exit 5"));
    for _ in 0..3 {
        assert_eq!(code(&t.exit(&id(&c))), Some(5));
    }
    t.finish();
}

#[test]
fn an_end_that_the_daemon_missed_is_acted_upon_when_it_is_back() {
    let mut t = Bed::new();
    let up = t.start(&counting(always(), "sleep 1000"));
    let down = t.start(&counting(json!({"policy": "on-failure"}), "sleep 1000"));
    let stay = t.start(&counting(json!({"policy": "no"}), "sleep 1000"));
    let all = [&up, &down, &stay].map(|c| in_run(&t, c, 1));
    t.kill9();
    for c in &all {
        proc::kill(pid1(c), Signal::KILL);
        proc::until("it has ended", || !proc::alive(pid1(c)));
    }
    t.start_again();
    in_run(&t, &up, 2);
    in_run(&t, &down, 2);
    a_moment();
    assert_eq!(
        (runs(&stay), t.state(&id(&stay))),
        (1, ContainerState::Exited)
    );
    t.finish();
}

#[test]
fn a_restart_of_the_daemon_is_no_event_for_what_was_stopped_and_takes_up_what_was_due() {
    let mut t = Bed::new();
    let due = t.start(&counting(always(), "exit 1"));
    let stopped = t.start(&counting(always(), "sleep 1000"));
    let running = t.start(&counting(always(), "sleep 1000"));
    let pid = pid1(&in_run(&t, &running, 1));
    in_run(&t, &stopped, 1);
    let _down = t
        .post(&format!("/v1/containers/{}/stop", id(&stopped)))
        .expect(200);
    waiting(&t, &due);
    t.kill9();
    let before = runs(&due);
    t.start_again();
    proc::until("it was started again", || runs(&due) > before);
    assert_eq!(pid1(&t.inspect(&id(&running))), pid);
    assert_eq!(runs(&running), 1);
    assert_eq!(
        (runs(&stopped), t.state(&id(&stopped))),
        (1, ContainerState::Exited)
    );
    t.finish();
}

#[test]
fn a_policy_is_changed_by_a_patch() {
    let t = Bed::new();
    let c = t.start(&counting(json!({"policy": "no"}), "exit 1"));
    let _exit = t.exit(&id(&c));
    let patch = |body: &Value| {
        let path = format!("/v1/containers/{}", id(&c));
        t.send(&Request::new(Method::Patch, path).json(body))
    };
    let shown: Container = patch(&json!({"restart": always()})).expect(200).json();
    let policy = shown.config.restart.expect("the new policy is shown");
    assert_eq!(policy.to_string(), "always");
    assert_eq!(runs(&c), 1, "it takes effect at the next end");
    let _started = t
        .post(&format!("/v1/containers/{}/start", id(&c)))
        .expect(200);
    waiting(&t, &c);
    let shown: Container = patch(&json!({"restart": {"policy": "no"}}))
        .expect(200)
        .json();
    assert_eq!((shown.restart_at, shown.config.restart), (None, None));
    let wrong = patch(&json!({"restart": {"policy": "always", "max_retries": 1}})).expect(400);
    assert!(wrong.text().contains("/restart/max_retries"));
    t.finish();
}

#[test]
fn the_command_line_takes_a_policy_and_inspect_shows_it() {
    let t = Bed::new();
    let root = format!("dir:{}", littlebox_tests::roots::busybox_root().display());
    let run = [
        "run",
        "-d",
        "--name",
        "r",
        "--restart",
        "on-failure:1",
        &root,
        "false",
    ];
    t.lbctl_ok(&run);
    proc::until("it has given up", || t.inspect("r").restart_count == 1);
    let shown: Value = serde_json::from_str(&t.lbctl_ok(&["--json", "inspect", "r"])).unwrap();
    let shown = shown.as_array().map_or(&shown, |list| &list[0]);
    let policy = json!({"policy": "on-failure", "max_retries": 1});
    assert_eq!(shown["config"]["restart"], policy);
    assert_eq!(shown["restart_count"], 1);
    let out = t.lbctl(&["run", "--rm", "--restart", "always", &root, "true"]);
    assert_eq!(out.status.code(), Some(125));
    t.finish();
}
