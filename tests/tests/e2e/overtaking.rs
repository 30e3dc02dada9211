//! What ends a container goes before all that clients have queued, and what is held up gives up for it.

use std::io::Write as _;
use std::path::Path;

use littlebox_tests::dead_mount::{DeadMount, SharedDirectory};
use littlebox_tests::prelude::*;

/// Clients that ask for something and go away.
fn ask_and_leave(t: &Bed, path: &str, clients: usize) {
    let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let asked: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = t.client.connect().unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    // So that they are heard.
    std::thread::sleep(Duration::from_millis(300));
    drop(asked);
}

/// A container whose root has stopped answering since it was created.
fn held_up(t: &Bed) -> (Container, DeadMount) {
    let root = t.dirs.base_path.join("root");
    std::fs::create_dir(&root).unwrap();
    let config = json!({"rootfs": format!("dir:{}", root.display()), "command": ["/true"]});
    let container = t.create(&config);
    (container, DeadMount::new(root))
}

#[test]
fn a_forced_removal_goes_before_starts_that_are_held_up() {
    let t = Bed::new();
    let (container, dead) = held_up(&t);
    let c = id(&container);
    // Each of them may take a minute.
    ask_and_leave(&t, &format!("/v1/containers/{c}/start"), 20);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| t.post(&format!("/v1/containers/{c}/start")));
        // It goes on, or waits; whichever comes first makes no difference to the removal.
        std::thread::sleep(Duration::from_millis(300));
        let removal = format!("/v1/containers/{c}?force=true&wait=50s");
        let _removed = t.delete(&removal).expect(204);
        let refused = start.join().unwrap();
        assert!(matches!(refused.status(), 404 | 409), "{refused:?}");
    });
    drop(dead);
    t.finish();
}

#[test]
fn a_stop_cancels_a_start_whose_program_is_not_answered_for() {
    let t = Bed::new();
    let dead = DeadMount::new(t.dirs.base_path.join("shared/dead"));
    let shared = dead.path.parent().unwrap();
    let mount = json!({"type": "bind", "source": shared, "destination": "/m", "idmap": false});
    let config = with(busybox(&["/m/dead/program"]), json!({ "mounts": [mount] }));
    let container = t.create(&config);
    let c = id(&container);
    std::thread::scope(|scope| {
        let start = scope.spawn(|| t.post(&format!("/v1/containers/{c}/start")));
        proc::until("it is starting", || t.state(&c) == ContainerState::Starting);
        let _stopped = t
            .post(&format!("/v1/containers/{c}/stop?wait=50s"))
            .expect(200);
        let problem = start.join().unwrap().problem(409, "invalid_state");
        assert_eq!(problem.id.as_deref(), Some(c.as_str()));
    });
    let shown = t.inspect(&c);
    assert_eq!(shown.summary.state, ContainerState::Failed);
    let why = shown.failure.expect("why it does not run").detail;
    assert!(why.contains("being stopped"), "{why}");
    drop(dead);
    t.finish();
}

#[test]
fn a_file_system_that_does_not_answer_is_the_same_problem_at_create_and_at_start() {
    let t = Bed::builder().config("start_timeout_s = 2").build();
    let source = t.dirs.base_path.join("source");
    std::fs::create_dir(&source).unwrap();
    let mount = json!({"type": "bind", "source": source, "destination": "/m"});
    let config = with(busybox(&["true"]), json!({ "mounts": [mount] }));
    let c = id(&t.create(&config));
    let dead = DeadMount::new(&source);
    t.post_json("/v1/containers?start=true", &config)
        .problem(503, "unavailable");
    let start = format!("/v1/containers/{c}/start");
    t.post(&start).problem(503, "unavailable");
    assert_eq!(t.state(&c), ContainerState::Created);
    drop(dead);
    let _started = t.post(&start).expect(200);
    assert_eq!(code(&t.exit(&c)), Some(0));
    t.finish();
}

#[test]
fn input_that_no_program_reads_takes_no_threads() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let path = format!("/v1/containers/{c}/execs");
    // More than a pipe holds, and more of them than there are threads for blocking work.
    let input = "x".repeat(100_000);
    let exec = json!({"command": ["sleep", "1000"], "input": input});
    let mut first = None;
    for _ in 0..140 {
        let started: Exec = t.post_json(&path, &exec).expect(201).json();
        first.get_or_insert(started.id);
    }
    // The output is read by such a thread.
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    let fed = json!({"command": ["wc", "-c"], "input": input});
    let counted = t.exec_with(&c, &fed).output.expect("its output").stdout;
    assert_eq!(counted.trim(), "100000");
    // With an exec its input ends.
    let before = t.descriptors();
    let first = first.expect("there are execs").to_string();
    let _killed = t
        .post_json(
            &format!("/v1/execs/{first}/signal"),
            &json!({"signal": "KILL"}),
        )
        .expect(204);
    proc::until("its stdin is closed", || t.descriptors() < before);
    t.finish();
}

#[test]
fn an_exec_that_waits_for_its_turn_is_not_there_yet_and_gives_up_in_time() {
    let t = Bed::builder().config("start_timeout_s = 3").build();
    let shared = SharedDirectory::new(t.dirs.base_path.join("shared"));
    let mounts = json!([{
        "type": "bind", "source": shared.path, "destination": "/m", "propagation": "rslave",
    }]);
    let c = id(&t.sleeper_with(json!({ "mounts": mounts })));
    let dead = DeadMount::new(shared.path.join("dead"));
    let exec = json!({"command": ["/m/dead/program"]});
    let path = format!("/v1/containers/{c}/execs");
    let most = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..80)
            .map(|_| scope.spawn(|| t.post_json(&path, &exec)))
            .collect();
        let mut most = 0;
        while asked.iter().any(|asked| !asked.is_finished()) {
            let execs = t.inspect(&c).execs.into_iter();
            let starts = |e: &ExecId| t.get(&format!("/v1/execs/{e}")).text().contains("starting");
            most = most.max(execs.filter(starts).count());
        }
        let answers: Vec<_> = asked.into_iter().map(|a| a.join().unwrap()).collect();
        let of = |status: u16| answers.iter().filter(|a| a.status() == status).count();
        assert_eq!(of(422) + of(503), 80, "{answers:?}");
        // Two rounds of 32 fit in: one that begins at once, and one behind it.
        assert!(of(503) >= 16, "{}", of(503));
        let busy = answers.into_iter().find(|a| a.status() == 503);
        busy.unwrap().problem(503, "resources_exhausted");
        most
    });
    assert!((1..=32).contains(&most), "{most}");
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    drop((dead, shared));
    t.finish();
}

#[test]
fn an_exec_into_a_container_that_ends_is_started_or_told_so() {
    let t = Bed::new();
    let exec = json!({"command": ["true"]});
    let mut late = 0;
    for _ in 0..10 {
        let c = id(&t.sleeper());
        let path = format!("/v1/containers/{c}/execs");
        let answers: usize = std::thread::scope(|scope| {
            let ask_on = || {
                (1..)
                    .find(|_| {
                        let answer = t.post_json(&path, &exec);
                        let status = answer.status();
                        assert!([201, 409].contains(&status), "{}", answer.text());
                        status == 409
                    })
                    .unwrap()
            };
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask_on)).collect();
            std::thread::sleep(Duration::from_millis(50));
            let _killed = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
            asked.into_iter().map(|a| a.join().unwrap()).sum()
        });
        late += answers;
        t.remove(&c);
    }
    assert!(late > 40);
    t.finish();
}

#[test]
fn a_signal_to_all_of_a_container_that_ends_is_no_fault() {
    let t = Bed::new();
    for _ in 0..40 {
        let c = id(&t.start(&busybox(&["sleep", "0.01"])));
        let path = format!("/v1/containers/{c}/kill");
        loop {
            let answer = t.post_json(&path, &json!({"signal": "USR2", "all": true}));
            match answer.status() {
                204 => {}
                409 => break,
                _ => panic!("{answer:?}"),
            }
        }
        t.remove(&c);
    }
    t.finish();
}

#[test]
fn a_neighbour_on_a_dead_server_holds_no_daemon_up() {
    let dirs = tempfile::tempdir().unwrap();
    let registry = dirs.path().join("ids");
    let dead = DeadMount::unkillable(dirs.path().join("dead"));
    let state = dead.path.join("state");
    let link = |name: &Path| std::os::unix::fs::symlink(&state, registry.join(name)).unwrap();
    std::fs::create_dir_all(registry.join("daemons")).unwrap();
    link(Path::new("daemons/0badcafe"));
    // Three of the four ranges of this pool.
    for unit in [20_000, 20_001, 20_003] {
        link(Path::new(&unit.to_string()));
    }
    let start = 20_000_u32 * 65_536;
    let config = format!(
        "[id_pool]\nregistry = {:?}\nstart = {start}\ncount = {}\n",
        registry,
        4 * 65_536
    );
    let mut t = Bed::builder().config(&config).build();
    let c = id(&t.sleeper());
    // Whoever does not answer is not known to be gone.
    t.post_json("/v1/containers", &sleeper_config())
        .problem(503, "resources_exhausted");
    assert!(dead.taken() > 0, "it was looked for");
    t.kill9();
    t.start_again();
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    drop(dead);
    // Now it is, once whoever has looked is back.
    proc::until("the range of a daemon that is gone is free", || {
        let answer = t.post_json("/v1/containers", &sleeper_config());
        assert!(matches!(answer.status(), 201 | 503), "{answer:?}");
        answer.status() == 201
    });
    t.finish();
}
