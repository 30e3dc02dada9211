//! Copies beside what else happens to a container, its removal and its end, and workers that fail.

use std::path::Path;

use littlebox_tests::prelude::*;

fn files(c: &str, query: &str) -> Request {
    Request::new(
        Method::Get,
        format!("/v1/containers/{c}/files?path={query}"),
    )
}

fn put(c: &str) -> Request {
    let path = format!("/v1/containers/{c}/files?path=/tmp");
    Request::new(Method::Put, path).body("application/x-tar", vec![0; 1024])
}

/// Asks for files of a container, again and again, until it is gone. Whatever the answers are, they
/// show nothing of the host and are no faults.
fn copy_until_it_is_gone(t: &Bed, request: &Request) {
    loop {
        let response = t.send(request);
        if matches!(response.status(), 200 | 204) {
            continue;
        }
        let text = response.text();
        assert!(!text.contains(t.dirs.state.to_str().unwrap()), "{text}");
        // A program that ends under a request is told as such.
        if response.status() != 409 {
            response.problem(404, "container_not_found");
            return;
        }
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn copies_that_race_with_a_removal_leave_no_directory() {
    let t = Bed::new();
    let etc = |c: &str| files(c, "/etc");
    let stat = |c: &str| files(c, "/etc/passwd&stat=true");
    let changes = |c: &str| Request::new(Method::Get, format!("/v1/containers/{c}/changes"));
    for round in 0..40 {
        let c = match round % 2 {
            0 => id(&t.create(&busybox(&["true"]))),
            _ => id(&t.sleeper()),
        };
        std::thread::scope(|scope| {
            let t = &t;
            for request in [etc(&c), stat(&c), stat(&c), changes(&c), put(&c)] {
                scope.spawn(move || copy_until_it_is_gone(t, &request));
            }
            std::thread::sleep(Duration::from_millis(round % 7));
            t.remove(&c);
        });
    }
    for dir in ["containers", "trash"] {
        let dir = t.dirs.state.join(dir);
        proc::until("everything is removed", || entries(&dir).is_empty());
    }
    // A copy that was late would make them again.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(entries(&t.dirs.state.join("containers")), [""; 0]);
    t.finish();
}

/// Fills a file that no client takes at once.
fn fill(t: &Bed, c: &str) {
    let make = "dd if=/dev/zero of=/large bs=1M count=16 2>/dev/null";
    t.exec(c, &["sh", "-c", make]);
}

fn stop(t: &Bed, c: &str) {
    let path = format!("/v1/containers/{c}/stop?wait=20s");
    let _stopped = t.post_json(&path, &json!({"timeout_s": 0})).expect(200);
}

#[test]
fn a_container_that_has_ended_is_not_mounted_while_a_copy_has_the_root_of_its_run() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    fill(&t, &c);
    let slow = t.stream(&format!("/v1/containers/{c}/files?path=/large"));
    stop(&t, &c);
    // Two overlays on one upper directory are undefined behaviour.
    let stat = files(&c, "/large&stat=true");
    let problem = t.send(&stat).problem(409, "invalid_state");
    assert!(problem.detail.contains("still being copied"), "{problem:?}");
    // Who waits gets it as soon as that copy has ended.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| t.send(&stat));
        std::thread::sleep(Duration::from_millis(300));
        drop(slow);
        let _found = waits.join().unwrap().expect(200);
    });
    t.finish();
}

#[test]
fn a_worker_that_panics_is_answered_for_at_once_and_logged_with_the_cause() {
    let t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_PANIC", "worker.answer")
        .build();
    let c = id(&t.create(&busybox(&["true"])));
    let began = Instant::now();
    let problem = t.send(&files(&c, "/etc&stat=true"));
    let problem = problem.problem(503, "unavailable");
    assert!(
        problem.detail.contains("it ended before it answered"),
        "{problem:?}"
    );
    // It waits for an answer as long as for a start: a minute.
    assert!(began.elapsed() < Duration::from_secs(20));
    let log = t.dirs.log_text();
    let line = log.lines().find(|line| line.contains("request failed"));
    let line = line.expect("failed requests are logged");
    assert!(
        line.contains("a worker process failed: it ended before it answered"),
        "{line}"
    );
    t.finish();
}
