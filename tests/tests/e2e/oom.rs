//! The kernel's OOM killer: who was hit is told, and only who was hit.

use littlebox_tests::prelude::*;

/// A shell command that takes memory until it is killed.
const GREEDY: &str = "x=a; while :; do x=$x$x$x$x; done";

fn limited() -> Value {
    json!({"resources": {"memory": 16_777_216, "memory_swap": 16_777_216}})
}

/// How many kills the events of a container tell, each event's count and the last total.
fn told(t: &Bed, container: &str) -> (u64, u64) {
    let events = t.events();
    let of = events
        .iter()
        .filter(|e| e.kind == "container.oom" && e.container_id.as_deref() == Some(container));
    let number = |e: &Event, key: &str| e.data[key].as_u64().expect("a number");
    of.fold((0, 0), |(sum, _), e| {
        (sum + number(e, "count"), number(e, "total"))
    })
}

#[test]
fn a_container_that_was_hit_says_so() {
    let t = Bed::new();
    let c = id(&t.start(&with(busybox(&["sh", "-c", GREEDY]), limited())));
    let exit = t.exit(&c);
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.status.shell_code(), Some(137));
    let shown = t.inspect(&c);
    assert_eq!(shown.oom_kills, 1);
    assert_eq!(told(&t, &c), (1, 1));
    t.finish();
}

#[test]
fn a_kill_that_the_container_survives_is_an_event_and_is_counted() {
    let t = Bed::new();
    let script = format!("({GREEDY}); ({GREEDY}); echo ready; while :; do sleep 0.05; done");
    let c = id(&t.start(&with(busybox(&["sh", "-c", &script]), limited())));
    t.ready(&c);
    proc::until("both kills are told", || told(&t, &c).1 == 2);
    let shown = t.inspect(&c);
    assert_eq!(
        (shown.summary.state, shown.oom_kills),
        (ContainerState::Running, 2)
    );
    assert_eq!(told(&t, &c).0, 2);
    let stats: Stats = t
        .get(&format!("/v1/containers/{c}/stats"))
        .expect(200)
        .json();
    assert_eq!(stats.oom_kills, 2);
    t.finish();
}

#[test]
fn an_exec_that_was_hit_says_so_and_its_container_does_not() {
    let t = Bed::new();
    let config = with(
        busybox(&[
            "sh",
            "-c",
            // It forks nothing while the memory is gone: that would be its own end.
            "trap 'exit 0' TERM; sleep 1000 & echo ready; wait",
        ]),
        limited(),
    );
    let c = id(&t.start(&config));
    t.ready(&c);
    let hit = t.exec_with(&c, &json!({"command": ["sh", "-c", GREEDY]}));
    assert!(hit.exit.expect("it ended").oom_killed);
    // Killed, but not for its memory.
    let other = t.exec_with(&c, &json!({"command": ["sh", "-c", "kill -9 $$"]}));
    let other = other.exit.expect("it ended");
    assert_eq!(other.status.shell_code(), Some(137));
    assert!(!other.oom_killed, "{other:?}");
    assert_eq!(t.inspect(&c).oom_kills, 1);
    let _stopped = t.post(&format!("/v1/containers/{c}/stop")).expect(200);
    let exit = t.exit(&c);
    assert_eq!(exit.status, ExitStatus::Exited { code: 0 });
    assert!(!exit.oom_killed, "{exit:?}");
    t.finish();
}

#[test]
fn sigkill_is_not_taken_for_the_oom_killer() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(limited()));
    let _killed = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
    let exit = t.exit(&c);
    assert!(!exit.oom_killed, "{exit:?}");
    assert_eq!(told(&t, &c), (0, 0));
    t.finish();
}

#[test]
fn kills_while_the_daemon_was_away_are_told_afterwards() {
    let mut t = Bed::new();
    let shared = t.dirs.base_path.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let script = format!(
        "echo ready; while [ ! -e /mnt/go ]; do sleep 0.05; done; ({GREEDY}); touch /mnt/done; \
         while :; do sleep 0.05; done"
    );
    let mounts = json!({"mounts": [{"type": "bind", "source": shared, "destination": "/mnt"}]});
    let config = with(with(busybox(&["sh", "-c", &script]), limited()), mounts);
    let c = id(&t.start(&config));
    t.ready(&c);
    t.kill9();
    std::fs::write(shared.join("go"), "").unwrap();
    proc::until("it was hit", || shared.join("done").exists());
    t.start_again();
    assert_eq!(t.inspect(&c).oom_kills, 1);
    assert_eq!(told(&t, &c), (1, 1));
    t.finish();
}
