//! Create, start, stop, kill, restart, pause, rename, wait, remove: what each does from each state.

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
        assert!(problem.detail.contains(state), "{call}: {}", problem.detail);
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
    let problem = t
        .delete(&format!("/v1/containers/{c}"))
        .problem(409, "invalid_state");
    assert_eq!(problem.state.as_deref(), Some("paused"));
    t.finish();
}

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

#[test]
fn rename_frees_the_old_name_and_takes_the_new_one() {
    let t = Bed::new();
    let container = t.create(&with(busybox(&["true"]), json!({"name": "old"})));
    let patch = Request::new(Method::Patch, "/v1/containers/old").json(&json!({"name": "new"}));
    let renamed: Container = t.send(&patch).expect(200).json();
    assert_eq!(name(&renamed), "new");
    assert_eq!(renamed.summary.id, container.summary.id);
    assert!(renamed.summary.generation > container.summary.generation);
    t.get("/v1/containers/old")
        .problem(404, "container_not_found");
    assert_eq!(id(&t.inspect("new")), id(&container));
    let other = t.create(&with(busybox(&["true"]), json!({"name": "old"})));
    let clash = Request::new(Method::Patch, format!("/v1/containers/{}", id(&other)))
        .json(&json!({"name": "new"}));
    t.send(&clash).problem(409, "name_in_use");
    let renames = t
        .events()
        .into_iter()
        .find(|e| e.kind == "container.renamed");
    assert_eq!(
        renames.expect("an event").data.get("old_name"),
        Some(&json!("old"))
    );
    t.finish();
}

#[test]
fn if_match_guards_a_patch_and_if_none_match_saves_a_read() {
    let t = Bed::new();
    let c = id(&t.create(&busybox(&["true"])));
    let path = format!("/v1/containers/{c}");
    let etag = t.get(&path).header("etag").expect("an ETag").to_owned();
    let unchanged = Request::new(Method::Get, &path).header("if-none-match", &etag);
    let _empty = t.send(&unchanged).expect(304);
    let stale = Request::new(Method::Patch, &path)
        .header("if-match", "\"0\"")
        .json(&json!({"labels": {"a": "b"}}));
    t.send(&stale).problem(412, "precondition_failed");
    let fresh = Request::new(Method::Patch, &path)
        .header("if-match", &etag)
        .json(&json!({"labels": {"a": "b"}}));
    let patched: Container = t.send(&fresh).expect(200).json();
    assert_eq!(patched.summary.labels["a"], "b");
    t.send(&fresh).problem(412, "precondition_failed");
    t.finish();
}

#[test]
fn a_wait_may_come_before_the_start_and_sees_the_exit() {
    let t = Bed::new();
    let c = id(&t.create(&busybox(&["sh", "-c", "sleep 0.3; exit 9"])));
    let (client, path) = (
        t.client.clone(),
        format!("/v1/containers/{c}/wait?timeout=30s"),
    );
    let waiter = std::thread::spawn(move || client.send(&Request::new(Method::Get, path)));
    std::thread::sleep(Duration::from_millis(100));
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    let result: WaitResult = waiter.join().unwrap().expect(200).json();
    assert!(result.satisfied);
    assert_eq!(result.exit.as_ref().and_then(code), Some(9));
    t.finish();
}

#[test]
fn a_wait_answers_after_the_container_was_removed() {
    let t = Bed::new();
    let c = id(&t.start(&with(
        busybox(&["sh", "-c", "exit 4"]),
        json!({"name": "short"}),
    )));
    t.wait(&c);
    t.remove(&c);
    let result = t.wait(&c);
    assert_eq!(result.exit.as_ref().and_then(code), Some(4));
    assert_eq!(t.wait("short").exit.as_ref().and_then(code), Some(4));
    assert!(t.wait_for(&c, "removed").satisfied);
    t.finish();
}

#[test]
fn waits_for_running_and_removed_come_true() {
    let t = Bed::new();
    let c = id(&t.create(&sleeper_config()));
    let wait = |condition: &str| {
        let path = format!("/v1/containers/{c}/wait?for={condition}&timeout=30s");
        let client = t.client.clone();
        std::thread::spawn(move || client.send(&Request::new(Method::Get, path)))
    };
    let (running, removed) = (wait("running"), wait("removed"));
    std::thread::sleep(Duration::from_millis(100));
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    let result: WaitResult = running.join().unwrap().expect(200).json();
    assert_eq!(result.state, Some(ContainerState::Running));
    t.remove(&c);
    let result: WaitResult = removed.join().unwrap().expect(200).json();
    assert!(result.satisfied && result.state.is_none(), "{result:?}");
    t.finish();
}

#[test]
fn a_wait_whose_time_is_up_says_so() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let result: WaitResult = t
        .get(&format!("/v1/containers/{c}/wait?timeout=100ms"))
        .expect(200)
        .json();
    assert!(!result.satisfied);
    assert_eq!(result.state, Some(ContainerState::Running));
    t.finish();
}

#[test]
fn auto_remove_removes_and_every_wait_learns_the_exit_code() {
    let t = Bed::new();
    let mut waiters = Vec::new();
    for n in 0..12 {
        let config = with(
            busybox(&["sh", "-c", &format!("exit {n}")]),
            json!({"auto_remove": true}),
        );
        let c = id(&t.create(&config));
        let path = format!("/v1/containers/{c}/wait?timeout=30s");
        let client = t.client.clone();
        waiters.push((
            n,
            std::thread::spawn(move || client.send(&Request::new(Method::Get, path))),
        ));
        let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    }
    for (n, waiter) in waiters {
        let result: WaitResult = waiter.join().unwrap().expect(200).json();
        assert_eq!(result.exit.as_ref().and_then(code), Some(n));
    }
    proc::until("all are gone", || t.list().is_empty());
    t.finish();
}

#[test]
fn an_auto_removed_container_that_fails_to_start_is_not_recorded() {
    let t = Bed::new();
    let config = with(busybox(&["/no/such"]), json!({"auto_remove": true}));
    t.post_json("/v1/containers?start=true", &config)
        .problem(422, "start_failed");
    proc::until("it is gone", || t.list().is_empty());
    t.finish();
}

#[test]
fn an_idempotency_key_makes_one_container_of_two_requests() {
    let t = Bed::new();
    let ask = |config: &Value| {
        let request = Request::new(Method::Post, "/v1/containers?start=true")
            .header("idempotency-key", "the-key")
            .json(config);
        t.send(&request)
    };
    let first: Container = ask(&sleeper_config()).expect(201).json();
    let second: Container = ask(&sleeper_config()).expect(201).json();
    assert_eq!(first.summary.id, second.summary.id);
    assert_eq!(t.list().len(), 1);
    ask(&busybox(&["true"])).problem(409, "idempotency_conflict");
    t.finish();
}

#[test]
fn ids_names_and_prefixes_name_a_container() {
    let t = Bed::new();
    let container = t.create(&with(busybox(&["true"]), json!({"name": "a.name-1_x"})));
    let c = id(&container);
    let last_block = c.rsplit('-').next().expect("a UUID has blocks");
    for reference in [c.as_str(), "a.name-1_x", last_block, &c[..30]] {
        assert_eq!(id(&t.inspect(reference)), c, "{reference}");
    }
    let _second = t.create(&busybox(&["true"]));
    // Both were made within the same minutes: the first digits are time.
    t.get(&format!("/v1/containers/{}", &c[..6]))
        .problem(400, "ambiguous_reference");
    t.finish();
}

#[test]
fn lists_filter_page_and_choose_fields() {
    let t = Bed::new();
    for n in 0..5 {
        let config = with(
            busybox(&["true"]),
            json!({"name": format!("web-{n}"), "labels": {"tier": if n < 2 { "front" } else { "back" }}}),
        );
        t.create(&config);
    }
    let running = t.start(&with(sleeper_config(), json!({"name": "runner"})));
    let names = |query: &str| -> Vec<String> {
        let page: Page<ContainerSummary> =
            t.get(&format!("/v1/containers?{query}")).expect(200).json();
        page.items.iter().map(|c| c.name.to_string()).collect()
    };
    assert_eq!(names("filter=state=running"), ["runner"]);
    assert_eq!(names("filter=label=tier=front"), ["web-0", "web-1"]);
    assert_eq!(names("filter=label=tier").len(), 5);
    assert_eq!(names("filter=name=web&filter=label=tier=back").len(), 3);
    assert_eq!(names(&format!("filter=id={}", id(&running))), ["runner"]);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..10 {
        let page: Page<ContainerSummary> = t
            .get(&format!("/v1/containers?limit=2{cursor}"))
            .expect(200)
            .json();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|c| c.name.to_string()));
        match page.next {
            Some(next) => cursor = format!("&cursor={}", encode(&next)),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[0], "web-0", "oldest first");

    let page = t
        .get("/v1/containers?fields=name,state&limit=1")
        .expect(200)
        .value();
    let fields: BTreeSet<&str> = page["items"][0]
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, BTreeSet::from(["name", "state"]));
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

#[test]
fn two_clients_starting_the_same_container_get_one_start() {
    let t = Bed::new();
    for _ in 0..5 {
        let c = id(&t.create(&sleeper_config()));
        let path = format!("/v1/containers/{c}/start");
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (client, path) = (t.client.clone(), path.clone());
                std::thread::spawn(move || client.send(&Request::new(Method::Post, path)))
            })
            .collect();
        let answers: Vec<u16> = clients
            .into_iter()
            .map(|c| c.join().unwrap().status())
            .collect();
        assert_eq!(
            answers.iter().filter(|s| **s == 200).count(),
            1,
            "{answers:?}"
        );
        assert!(
            answers.iter().all(|s| matches!(s, 200 | 409)),
            "{answers:?}"
        );
        t.remove(&c);
    }
    t.finish();
}

#[test]
fn two_clients_removing_the_same_container_remove_it_once() {
    let t = Bed::new();
    for _ in 0..5 {
        let container = t.sleeper();
        let path = format!("/v1/containers/{}?force=true&wait=20s", id(&container));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (client, path) = (t.client.clone(), path.clone());
                std::thread::spawn(move || client.send(&Request::new(Method::Delete, path)))
            })
            .collect();
        for client in clients {
            let response = client.join().unwrap();
            assert!(
                matches!(response.status(), 204 | 404),
                "{} {}",
                response.status(),
                response.text()
            );
        }
        let removed = t.events_of(&container);
        let removed = removed.iter().filter(|k| *k == "container.removed").count();
        assert_eq!(removed, 1);
    }
    t.finish();
}

#[test]
fn start_and_remove_at_once_end_in_one_of_the_two_orders() {
    let t = Bed::new();
    for _ in 0..8 {
        let c = id(&t.create(&sleeper_config()));
        let start = Request::new(Method::Post, format!("/v1/containers/{c}/start"));
        let remove = Request::new(
            Method::Delete,
            format!("/v1/containers/{c}?force=true&wait=20s"),
        );
        let client = t.client.clone();
        let starter = std::thread::spawn(move || client.send(&start));
        let removed = t.send(&remove).status();
        let started = starter.join().unwrap().status();
        assert!(matches!(started, 200 | 404 | 409), "start {started}");
        assert_eq!(removed, 204);
        t.get(&format!("/v1/containers/{c}"))
            .problem(404, "container_not_found");
    }
    t.finish();
}
