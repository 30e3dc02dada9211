//! Waits, and removal at the end.

use littlebox_tests::prelude::*;

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
