//! The interactive protocol: attach to a container and to an exec.

use littlebox_tests::prelude::*;

fn attach(t: &Bed, c: &str, query: &str) -> Ws {
    t.ws(&format!("/v1/containers/{c}/attach?{query}"))
}

/// A container that echoes what it reads, line by line.
fn echo() -> Value {
    with(
        busybox(&[
            "sh",
            "-c",
            "while read line; do echo \"got $line\"; done; echo bye >&2; exit 3",
        ]),
        json!({"stdin": true}),
    )
}

#[test]
fn stdin_goes_in_and_both_streams_come_out() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let mut ws = attach(&t, &c, "stdin=true");
    assert!(!ws.terminal);
    ws.stdin(b"one\n");
    ws.until("got one\n");
    ws.stdin(b"two\n");
    ws.until("got two\n");
    ws.control(&ClientControl::CloseStdin);
    let exit = ws.exit();
    assert_eq!(code(&exit), Some(3));
    assert_eq!(ws.stdout, b"got one\ngot two\n");
    assert_eq!(ws.stderr, b"bye\n");
    assert_eq!(ws.frame(), Frame::Closed);
    t.finish();
}

#[test]
fn a_large_input_arrives_whole() {
    let t = Bed::new();
    let c = id(&t.start(&with(
        busybox(&["md5sum"]),
        json!({"stdin": true, "attach": true}),
    )));
    let mut ws = attach(&t, &c, "stdin=true");
    let block: Vec<u8> = (0..65_536u32).flat_map(|n| n.to_le_bytes()).collect();
    for _ in 0..16 {
        for part in block.chunks(60_000) {
            ws.stdin(part);
        }
    }
    ws.control(&ClientControl::CloseStdin);
    assert_eq!(code(&ws.exit()), Some(0));
    let file = t.dirs.base_path.join("input");
    std::fs::write(&file, block.repeat(16)).unwrap();
    let out = std::process::Command::new("md5sum")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(ws.stdout[..32], out.stdout[..32]);
    t.finish();
}

#[test]
fn logs_true_replays_from_the_start_and_ends_with_the_exit() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["sh", "-c", "echo early; echo late >&2; exit 2"])));
    t.wait(&c);
    let mut ws = attach(&t, &c, "logs=true");
    assert_eq!(code(&ws.exit()), Some(2));
    assert_eq!(
        (ws.stdout.as_slice(), ws.stderr.as_slice()),
        (&b"early\n"[..], &b"late\n"[..])
    );
    t.finish();
}

#[test]
fn without_logs_only_what_comes_later_is_seen() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let mut first = attach(&t, &c, "stdin=true");
    first.stdin(b"before\n");
    first.until("got before");
    let mut second = attach(&t, &c, "stdin=true");
    second.stdin(b"after\n");
    second.until("got after\n");
    assert_eq!(second.stdout, b"got after\n");
    t.finish();
}

#[test]
fn a_stream_resumes_where_it_was_cut() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let mut ws = attach(&t, &c, "stdin=true&logs=true");
    ws.stdin(b"1\n");
    ws.until("got 1\n");
    drop(ws);
    let lines = t.logs(&c, "");
    let mut ws = attach(&t, &c, &format!("stdin=true&from={}", lines[0].position));
    assert_eq!(ws.position, lines[0].position);
    ws.stdin(b"2\n");
    ws.until("got 2\n");
    assert_eq!(ws.stdout, b"got 2\n");
    t.finish();
}

#[test]
fn a_stream_tells_how_far_it_is_and_is_resumed_there() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["seq", "400000"])));
    let mut ws = attach(&t, &c, "logs=true");
    let start = ws.position;
    assert_eq!(code(&ws.exit()), Some(0));
    assert!(ws.position > start, "no position was told");
    let mut rest = attach(&t, &c, &format!("from={}", ws.position));
    assert_eq!(code(&rest.exit()), Some(0));
    assert!(ws.stdout.len() > rest.stdout.len() && ws.stdout.ends_with(&rest.stdout));
    // Every record has a header beside its line, so fewer bytes are left than positions.
    assert!(ws.stdout.len() - rest.stdout.len() > 100_000);
    t.finish();
}

#[test]
fn detach_leaves_the_program_running() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let mut ws = attach(&t, &c, "stdin=true");
    ws.control(&ClientControl::Detach);
    assert_eq!(ws.ended(), Some(ServerControl::Detached));
    assert_eq!(ws.frame(), Frame::Closed);
    assert_eq!(t.state(&c), ContainerState::Running);
    let mut ws = attach(&t, &c, "stdin=true");
    ws.stdin(b"again\n");
    ws.until("got again\n");
    t.finish();
}

#[test]
fn two_clients_see_the_same_and_both_can_type() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let (mut a, mut b) = (attach(&t, &c, "stdin=true"), attach(&t, &c, "stdin=true"));
    a.stdin(b"from a\n");
    a.until("got from a\n");
    b.until("got from a\n");
    b.stdin(b"from b\n");
    a.until("got from b\n");
    b.until("got from b\n");
    assert_eq!(a.stdout, b.stdout);
    t.finish();
}

#[test]
fn resize_reaches_the_terminal() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "stty size; while read x; do stty size; done"]),
        json!({"terminal": true, "stdin": true, "terminal_size": {"rows": 10, "cols": 20}}),
    );
    let c = id(&t.start(&config));
    let mut ws = attach(&t, &c, "stdin=true&logs=true");
    assert!(ws.terminal);
    ws.until("10 20");
    ws.control(&ClientControl::Resize { rows: 44, cols: 55 });
    ws.stdin(b"\n");
    ws.until("44 55");
    let _none = t
        .post_json(
            &format!("/v1/containers/{c}/resize"),
            &json!({"rows": 7, "cols": 8}),
        )
        .expect(204);
    ws.stdin(b"\n");
    ws.until("7 8");
    t.finish();
}

#[test]
fn control_characters_work_on_a_terminal() {
    let t = Bed::new();
    let config = with(
        busybox(&[
            "sh",
            "-c",
            "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done",
        ]),
        json!({"terminal": true, "stdin": true}),
    );
    let c = id(&t.start(&config));
    let mut ws = attach(&t, &c, "stdin=true&logs=true");
    ws.until("ready");
    ws.stdin(b"\x03");
    ws.until("interrupted");
    assert_eq!(code(&ws.exit()), Some(9));
    t.finish();
}

/// Closes the terminal, so that for a while nobody in the container has it open, and opens it again.
const REOPENS: &str = "echo ready; exec 0<&- 1>&- 2>&-; sleep 0.5; exec 0<>/dev/tty 1>&0; \
                       read line; echo \"got $line\"; exit 7";

#[test]
fn a_program_that_opens_its_terminal_again_is_heard_and_hears() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", REOPENS]),
        json!({"terminal": true, "stdin": true}),
    );
    let c = id(&t.start(&config));
    let mut ws = attach(&t, &c, "stdin=true&logs=true");
    ws.until("ready");
    // Typed while nobody has it.
    ws.stdin(b"typed\n");
    ws.until("got typed");
    assert_eq!(code(&ws.exit()), Some(7));
    t.finish();
}

#[test]
fn an_exec_that_opens_its_terminal_again_is_heard_and_hears() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let config = json!({"command": ["sh", "-c", REOPENS], "terminal": true, "stdin": true});
    let exec = t.exec_start(&c, &config);
    let path = format!("/v1/execs/{}/attach?stdin=true", exec.id);
    let mut ws = t.ws(&path);
    ws.until("ready");
    ws.stdin(b"typed\n");
    ws.until("got typed");
    assert_eq!(code(&ws.exit()), Some(7));
    t.finish();
}

#[test]
fn a_signal_frame_reaches_the_program() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "trap 'exit 8' USR2; echo ready; while :; do sleep 0.05; done",
    ])));
    let mut ws = attach(&t, &c, "logs=true");
    ws.until("ready");
    ws.control(&ClientControl::Signal {
        signal: littlebox_types::Signal::USR2,
    });
    assert_eq!(code(&ws.exit()), Some(8));
    t.finish();
}

#[test]
fn frames_outside_the_protocol_end_the_stream_with_a_problem() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    for bad in [
        "{\"type\":\"dance\"}",
        "no json",
        "{\"type\":\"resize\",\"rows\":1}",
        "{\"type\":\"signal\",\"signal\":\"SIGNOTHING\"}",
    ] {
        let mut ws = attach(&t, &c, "stdin=true");
        ws.text(bad);
        match ws.ended() {
            Some(ServerControl::Error(problem)) => {
                assert_eq!(problem.code, "invalid_request", "{bad}");
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
    let mut ws = attach(&t, &c, "stdin=true");
    ws.raw(vec![7, 1, 2, 3]);
    assert!(matches!(ws.ended(), Some(ServerControl::Error(_))));
    assert_eq!(t.state(&c), ContainerState::Running);
    t.finish();
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_the_container() {
    let t = Bed::new();
    let c = id(&t.start(&with(
        busybox(&[
            "sh",
            "-c",
            "read go; yes 0123456789abcdef | head -c 30000000; echo end",
        ]),
        json!({"stdin": true}),
    )));
    let mut slow = attach(&t, &c, "logs=true");
    let mut ws = attach(&t, &c, "stdin=true");
    ws.stdin(b"go\n");
    drop(ws);
    assert_eq!(code(&t.exit(&c)), Some(0));
    // It was kept for the slow one all the same.
    assert_eq!(code(&slow.exit()), Some(0));
    assert_eq!(slow.stdout.len(), 30_000_004);
    assert!(slow.stdout.ends_with(b"end\n"));
    t.finish();
}

#[test]
fn a_foreground_client_loses_nothing_and_holds_the_program_back() {
    let t = Bed::new();
    let config = with(
        busybox(&[
            "sh",
            "-c",
            "read go; yes 0123456789abcdef | head -c 40000000; echo end",
        ]),
        json!({"stdin": true, "attach": true, "log": {"max_size": 1_048_576, "max_files": 1}}),
    );
    let c = id(&t.start(&config));
    let mut ws = attach(&t, &c, "stdin=true&logs=true");
    ws.stdin(b"go\n");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(t.state(&c), ContainerState::Running, "it was not held back");
    assert_eq!(code(&ws.exit()), Some(0));
    assert_eq!(ws.stdout.len(), 40_000_004);
    t.finish();
}

#[test]
fn auto_remove_waits_for_the_foreground_client() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "echo quick; exit 6"]),
        json!({"attach": true, "auto_remove": true}),
    );
    let c = id(&t.start(&config));
    t.wait(&c);
    std::thread::sleep(Duration::from_millis(300));
    let mut ws = attach(&t, &c, "logs=true");
    assert_eq!(code(&ws.exit()), Some(6));
    assert_eq!(ws.stdout, b"quick\n");
    drop(ws);
    t.wait_for(&c, "removed");
    t.finish();
}

#[test]
fn an_exec_is_attached_the_same_way() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(
        &c,
        &json!({"command": ["sort"], "stdin": true, "attach": true}),
    );
    let mut ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true&from=0", exec.id));
    ws.stdin(b"b\na\n");
    ws.control(&ClientControl::CloseStdin);
    assert_eq!(code(&ws.exit()), Some(0));
    assert_eq!(ws.stdout, b"a\nb\n");

    let exec = t.exec_start(
        &c,
        &json!({"command": ["sh"], "stdin": true, "terminal": true, "attach": true}),
    );
    let mut ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true&from=0", exec.id));
    assert!(ws.terminal);
    ws.control(&ClientControl::Resize { rows: 5, cols: 6 });
    ws.stdin(b"stty size; exit 4\n");
    assert_eq!(code(&ws.exit()), Some(4));
    assert!(contains(&ws.stdout, b"5 6"));
    t.finish();
}

#[test]
fn the_end_of_a_container_ends_every_attached_stream() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let mut streams: Vec<Ws> = (0..5).map(|_| attach(&t, &c, "")).collect();
    let _none = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
    for ws in &mut streams {
        let exit = ws.exit();
        assert!(matches!(
            exit.status,
            ExitStatus::Signaled { signal: 9, .. }
        ));
    }
    t.finish();
}

#[test]
fn attach_without_an_upgrade_is_426() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    t.get(&format!("/v1/containers/{c}/attach"))
        .problem(426, "upgrade_required");
    t.finish();
}

#[test]
fn clients_that_vanish_leave_no_descriptor_behind() {
    let t = Bed::new();
    let c = id(&t.start(&echo()));
    let before = t.unpooled_descriptors();
    for _ in 0..10 {
        let held: Vec<Ws> = (0..10)
            .map(|_| attach(&t, &c, "stdin=true&logs=true"))
            .collect();
        drop(held);
    }
    for _ in 0..20 {
        drop(t.stream(&format!("/v1/containers/{c}/logs?follow=true")));
        drop(t.stream("/v1/events"));
        drop(t.stream(&format!(
            "/v1/containers/{c}/stats?stream=true&interval=100ms"
        )));
    }
    proc::until("the descriptors are back", || {
        t.unpooled_descriptors() <= before
    });
    t.finish();
}
