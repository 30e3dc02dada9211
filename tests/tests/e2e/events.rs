//! Events: contiguous, durable, resumable.

use littlebox_tests::prelude::*;

#[track_caller]
fn contiguous(events: &[Event]) {
    for pair in events.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "{pair:?}");
    }
}

#[test]
fn the_sequence_is_contiguous_under_many_clients() {
    let t = Bed::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = t.client.clone();
            std::thread::spawn(move || {
                for _ in 0..3 {
                    let config = busybox(&["true"]);
                    let request = Request::new(Method::Post, "/v1/containers?start=true&wait=30s")
                        .json(&config);
                    let container: Container = client.send(&request).expect(201).json();
                    let path = format!("/v1/containers/{}", id(&container));
                    let _none = client.send(&Request::new(Method::Delete, path)).expect(204);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let events = t.events();
    assert_eq!(events[0].seq, 1);
    contiguous(&events);
    let count = |kind: &str| events.iter().filter(|e| e.kind == kind).count();
    for kind in ["created", "starting", "started", "exited", "removed"] {
        assert_eq!(count(&format!("container.{kind}")), 24, "{kind}");
    }
    assert_eq!(
        t.system().last_event_seq,
        events.last().expect("events").seq
    );
    t.finish();
}

#[test]
fn a_reader_resumes_after_the_last_one_it_saw() {
    let t = Bed::new();
    t.create(&busybox(&["true"]));
    let seen = t.events().last().expect("one").seq;
    t.create(&busybox(&["true"]));
    let rest: Vec<Event> = t
        .get(&format!("/v1/events?follow=false&since_seq={seen}"))
        .expect(200)
        .ndjson();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].seq, seen + 1);
    t.finish();
}

#[test]
fn follow_shows_what_happens_next() {
    let t = Bed::new();
    let seen = t.events().last().map_or(0, |e| e.seq);
    let mut stream = t.stream(&format!("/v1/events?since_seq={seen}"));
    assert_eq!(stream.head.content_type(), Some("application/x-ndjson"));
    let container = t.sleeper();
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        let event: Event = stream.record().expect("it goes on");
        assert_eq!(event.container_id, Some(id(&container)));
        kinds.push(event.kind);
    }
    assert_eq!(
        kinds,
        [
            "container.created",
            "container.starting",
            "container.started"
        ]
    );
    drop(stream);
    t.finish();
}

#[test]
fn server_sent_events_resume_by_last_event_id() {
    let t = Bed::new();
    for _ in 0..3 {
        t.create(&busybox(&["true"]));
    }
    let events = t.events();
    let from = events[events.len() - 3].seq;
    let request = Request::new(Method::Get, "/v1/events?follow=false")
        .header("accept", "text/event-stream")
        .header("last-event-id", from.to_string());
    let mut stream = t.client.stream(&request).expect(200);
    let mut ids = Vec::new();
    while let Some(event) = stream.server_sent_event() {
        let field = |name: &str| {
            event
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.clone())
        };
        let data: Event = serde_json::from_str(&field("data").expect("data")).unwrap();
        assert_eq!(field("id"), Some(data.seq.to_string()));
        ids.push(data.seq);
    }
    assert_eq!(ids, [from + 1, from + 2]);
    t.finish();
}

#[test]
fn filters_choose_by_kind_and_container() {
    let t = Bed::new();
    let a = t.start(&busybox(&["true"]));
    let b = t.start(&busybox(&["true"]));
    t.wait(&id(&a));
    t.wait(&id(&b));
    let get = |query: &str| -> Vec<Event> {
        t.get(&format!("/v1/events?follow=false&since_seq=0&{query}"))
            .expect(200)
            .ndjson()
    };
    let exits = get("filter=kind=container.exited");
    assert_eq!(exits.len(), 2);
    assert_eq!(exits[0].data["exit_code"], json!(0));
    let of_a = get(&format!("filter=container={}", id(&a)));
    assert!(of_a.len() >= 4 && of_a.iter().all(|e| e.container_id == Some(id(&a))));
    let both = get(&format!(
        "filter=container={}&filter=kind=container.exited",
        id(&a)
    ));
    assert_eq!(both.len(), 1);
    t.finish();
}

#[test]
fn events_survive_a_crash_of_the_daemon_and_go_on() {
    let mut t = Bed::new();
    let container = t.sleeper();
    let before = t.events();
    t.crash();
    t.remove(&id(&container));
    let after = t.events();
    assert_eq!(after[..before.len()], before[..]);
    contiguous(&after);
    let kinds: Vec<&str> = after[before.len()..]
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(kinds[0], "daemon.started");
    assert!(kinds.contains(&"container.removed"), "{kinds:?}");
    t.finish();
}

#[test]
fn a_failed_start_and_execs_are_told() {
    let t = Bed::new();
    let problem = t
        .post_json("/v1/containers?start=true", &busybox(&["/no/such"]))
        .problem(422, "start_failed");
    let c = id(&t.sleeper());
    t.exec(&c, &["true"]);
    t.post_json(
        &format!("/v1/containers/{c}/execs"),
        &json!({"command": ["/no/such"]}),
    )
    .problem(422, "start_failed");
    proc::until("the exec's end is told", || {
        t.events().iter().any(|e| e.kind == "exec.exited")
    });
    let events = t.events();
    let failed = events
        .iter()
        .find(|e| e.kind == "container.start_failed")
        .expect("it is told");
    assert_eq!(failed.container_id, problem.id);
    assert_eq!(failed.data["step"], json!("exec"));
    for kind in ["exec.started", "exec.exited", "exec.failed"] {
        assert!(events.iter().any(|e| e.kind == kind), "{kind}");
    }
    t.finish();
}

#[test]
fn the_end_of_an_exec_is_told_as_that_of_a_container() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(
        &c,
        &json!({"command": ["sh", "-c", "kill -TERM $$; sleep 9"]}),
    );
    t.exec_wait(&exec.id.to_string());
    let late = json!({"command": ["sleep", "1000"], "timeout_ms": 10});
    let late = t.exec_start(&c, &late);
    t.exec_wait(&late.id.to_string());
    let _killed = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
    t.wait(&c);
    let told = |kind: &str| -> Vec<Value> {
        let events = t.events().into_iter().filter(|e| e.kind == kind);
        events.map(|e| json!(e.data)).collect()
    };
    proc::until("both ends are told", || told("exec.exited").len() == 2);
    let by = |signal: i32, name: &str| json!({"signal": signal, "signal_name": name});
    let timed_out = with(by(9, "SIGKILL"), json!({"timed_out": true}));
    assert_eq!(told("exec.exited"), [by(15, "SIGTERM"), timed_out]);
    assert_eq!(told("container.exited"), [by(9, "SIGKILL")]);
    t.finish();
}
