//! A full disk, no descriptors, clients that misbehave: a clear answer, nothing lost, nothing leaked.

use std::io::{Read, Write};
use std::process::Command;

use littlebox_tests::prelude::*;

#[test]
fn a_full_disk_is_507_and_passes() {
    let t = Bed::builder().state_size(8 << 20).build();
    let container = t.sleeper();
    let filler = t.dirs.state.join("filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = [1u8; 4096];
        while file.write_all(&block).is_ok() {}
    };
    fill();
    let mut refused = None;
    for _ in 0..200 {
        let response = t.post_json("/v1/containers?start=true", &busybox(&["true"]));
        if response.status() != 201 {
            refused = Some(response);
            break;
        }
        fill();
    }
    let response = refused.expect("the disk is never full");
    assert!(
        matches!(response.status(), 507 | 422),
        "{} {}",
        response.status(),
        response.text()
    );
    let problem: Problem = response.json();
    assert!(
        problem.code == "no_space" || problem.errno.as_deref() == Some("ENOSPC"),
        "{problem:?}"
    );
    assert!(!problem.detail.is_empty());
    // Reading and what runs go on.
    assert_eq!(t.state(&id(&container)), ContainerState::Running);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(t.sh("echo space again"), "space again\n");
    t.finish();
}

#[test]
fn output_that_finds_no_space_is_counted_as_lost() {
    let t = Bed::builder().state_size(6 << 20).build();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "yes 0123456789 | head -c 20000000; exit 3",
    ])));
    let exit = t.exit(&c);
    assert_eq!(code(&exit), Some(3), "{exit:?}");
    assert!(exit.lost_output_bytes > 10_000_000, "{exit:?}");
    let kept = t.logs_raw(&c, "");
    assert!(kept.starts_with(b"0123456789\n") && kept.len() < 8_000_000);
    // A removal is recorded before it is done, and the disk may be full to the last byte.
    let log = t.dirs.state.join(format!("containers/{c}/log"));
    std::fs::remove_dir_all(log).unwrap();
    // The room is there when the last who has the log open closes it.
    let path = format!("/v1/containers/{c}?force=true&wait=30s");
    proc::until("there is room", || t.delete(&path).status() == 204);
    t.finish();
}

#[test]
fn no_descriptors_left_is_a_503_and_passes() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    // At rest: what a start or a request holds for a moment would be room to spare below.
    let open = (0..20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            t.descriptors()
        })
        .min()
        .expect("samples");
    let limit = |soft: usize| {
        littlebox_tests::roots::run(
            Command::new("prlimit")
                .arg(format!("--pid={}", t.pid()))
                .arg(format!("--nofile={soft}:")),
        );
    };
    let before = std::fs::read_to_string(format!("/proc/{}/limits", t.pid())).unwrap();
    let before: usize = before
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .and_then(|l| l.split_whitespace().nth(3)?.parse().ok())
        .expect("a limit");
    // One for the connection, and ever more for what it asks.
    let mut answers = BTreeMap::new();
    for spare in 0..12 {
        limit(open + spare);
        for _ in 0..3 {
            let request =
                Request::new(Method::Post, "/v1/containers?start=true").json(&sleeper_config());
            // Without one for the connection it waits in the backlog until the client gives up.
            let Ok(response) = t.client.try_send(&request) else {
                *answers.entry(0).or_insert(0) += 1;
                continue;
            };
            *answers.entry(response.status()).or_insert(0) += 1;
            if response.status() == 201 {
                limit(before);
                t.remove(&id(&response.json()));
                limit(open + spare);
            } else {
                let problem = response.problem(503, "resources_exhausted");
                assert_eq!(problem.errno.as_deref(), Some("EMFILE"), "{problem:?}");
            }
        }
    }
    limit(before);
    assert!(
        answers.contains_key(&503) && answers.contains_key(&201),
        "{answers:?}"
    );
    assert_eq!(t.state(&c), ContainerState::Running);
    assert_eq!(t.exec(&c, &["echo", "recovered"]), "recovered\n");
    t.finish();
}

#[test]
fn clients_that_vanish_in_the_middle_leave_nothing() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let before = t.unpooled_descriptors();
    for _ in 0..20 {
        // Half a request, a request without a reader, a stream that is dropped, a body cut off.
        let mut half = t.client.connect().unwrap();
        half.write_all(b"POST /v1/containers HTTP/1.1\r\nHost: loc")
            .unwrap();
        let mut unread = t.client.connect().unwrap();
        unread
            .write_all(
                format!("GET /v1/containers/{c} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
            )
            .unwrap();
        let mut cut = t.client.connect().unwrap();
        cut.write_all(
            b"POST /v1/containers HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
        )
        .unwrap();
        let mut waiting = t.client.connect().unwrap();
        waiting
            .write_all(
                format!("GET /v1/containers/{c}/wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
    }
    proc::until("the descriptors are back", || {
        t.unpooled_descriptors() <= before
    });
    assert_eq!(t.list().len(), 1);
    t.finish();
}

#[test]
fn a_start_whose_client_vanished_is_finished_or_undone() {
    let t = Bed::new();
    for _ in 0..10 {
        let body = sleeper_config().to_string();
        let mut client = t.client.connect().unwrap();
        client
            .write_all(
                format!(
                    "POST /v1/containers?start=true HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            )
            .unwrap();
        drop(client);
    }
    // How many of the requests were read before their connections ended is open, and so is when.
    let mut looks_at_rest = 0;
    proc::until("every one has long been at rest", || {
        let at_rest = t
            .list()
            .iter()
            .all(|c| matches!(c.state, ContainerState::Running | ContainerState::Created));
        looks_at_rest = if at_rest { looks_at_rest + 1 } else { 0 };
        looks_at_rest == 50
    });
    for c in t.list() {
        if let Some(pid) = c.pid {
            assert!(proc::alive(pid));
        }
    }
    t.finish();
}

#[test]
fn what_is_no_http_gets_a_400_or_is_closed() {
    let t = Bed::new();
    let long = format!(
        "GET /v1/{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(300_000)
    );
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"hello\r\n\r\n",
        long.as_bytes(),
    ] {
        let mut stream = t.client.connect().unwrap();
        // It may close before it has read everything.
        let _early = stream.write_all(bytes);
        let _early = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let head = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || head.starts_with("HTTP/1.1 4"),
            "{head}"
        );
    }
    assert_eq!(t.get("/v1/health").status(), 200);
    t.finish();
}

#[test]
fn a_fork_bomb_at_its_limit_does_not_hold_the_removal() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "f() { f | f & }; f; while :; do sleep 1; done"]),
        json!({"resources": {"pids_limit": 64}}),
    );
    let c = id(&t.start(&config));
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    t.remove(&c);
    assert!(begin.elapsed() < Duration::from_secs(15));
    t.finish();
}

#[test]
fn a_hundred_containers_come_and_go_without_a_trace() {
    let t = Bed::new();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = t.client.clone();
            std::thread::spawn(move || {
                for n in 0..25 {
                    let config = with(
                        busybox(&["sh", "-c", &format!("exit {n}")]),
                        json!({"auto_remove": true}),
                    );
                    let request = Request::new(Method::Post, "/v1/containers?start=true&wait=30s")
                        .json(&config);
                    let container: Container = client.send(&request).expect(201).json();
                    assert_eq!(container.summary.exit.as_ref().and_then(code), Some(n));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    proc::until("all are gone", || t.list().is_empty());
    t.finish();
}

#[test]
fn removal_does_not_mind_a_process_that_looks_into_the_container() {
    let t = Bed::new();
    let container = t.sleeper();
    let root = std::fs::File::open(format!("/proc/{}/root/etc", pid1(&container))).unwrap();
    t.remove(&id(&container));
    drop(root);
    t.finish();
}
