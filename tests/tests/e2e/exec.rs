//! Execs: processes started inside a running container.

use littlebox_tests::prelude::*;

#[test]
fn output_exit_code_and_streams_come_inline() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "echo out; echo err >&2; exit 5"]}),
    );
    assert_eq!(exec_code(&exec), Some(5));
    let output = exec.output.expect("inline output");
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert!(!output.truncated);
    t.finish();
}

#[test]
fn it_joins_every_namespace_and_the_cgroup() {
    let t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let exec = t.exec_start(&c, &json!({"command": ["sleep", "1000"]}));
    let pid = exec.pid.expect("it runs");
    for kind in proc::NAMESPACES {
        assert_eq!(
            proc::namespace(pid, kind),
            proc::namespace(pid1(&container), kind),
            "{kind}"
        );
    }
    assert_eq!(proc::cgroup(pid), proc::cgroup(pid1(&container)));
    t.finish();
}

#[test]
fn input_is_read_to_its_end() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(&c, &json!({"command": ["sort"], "input": "b\na\nü\n"}));
    assert_eq!(exec.output.expect("output").stdout, "a\nb\nü\n");
    let big = "x".repeat(700_000);
    let exec = t.exec_with(&c, &json!({"command": ["wc", "-c"], "input": big}));
    assert_eq!(exec.output.expect("output").stdout.trim(), "700000");
    t.finish();
}

#[test]
fn a_program_that_cannot_get_all_of_its_input_is_killed_and_does_not_take_a_part_for_it() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let input = "x".repeat(500_000);
    let command = ["sh", "-c", "sleep 2; wc -c"];
    let exec = t.exec_start(&c, &json!({"command": command, "input": input}));
    kill_workers(&t);
    let exec = t.exec_wait(&exec.id.to_string());
    let status = &exec.exit.as_ref().expect("it has ended").status;
    assert!(
        matches!(status, ExitStatus::Signaled { signal: 9, .. }),
        "{exec:?}"
    );
    t.finish();
}

#[test]
fn an_attached_client_is_told_when_its_input_cannot_be_passed_on() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(&c, &json!({"command": ["cat"], "stdin": true}));
    let mut ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true&from=0", exec.id));
    ws.stdin(b"one\n");
    ws.until("one");
    kill_workers(&t);
    let control = loop {
        if let Some(control) = ws.ended() {
            break control;
        }
    };
    assert!(matches!(control, ServerControl::Error(_)), "{control:?}");
    t.finish();
}

/// Kills the worker that writes to a program.
fn kill_workers(t: &Bed) {
    proc::until("a worker has the input", || {
        // The one to the daemon is its standard input; the other one brings the input.
        let has_input = |pid: &u32| {
            let files = proc::descriptors(*pid).into_iter();
            let sockets = files.filter(|file| file.to_string_lossy().starts_with("socket:"));
            sockets.count() > 1
        };
        let mut workers = proc::workers(t.pid()).into_iter();
        let Some(writing) = workers.find(has_input) else {
            return false;
        };
        proc::kill(writing, Signal::KILL);
        true
    });
}

#[test]
fn bytes_that_are_no_text_come_as_base64() {
    use base64::Engine;
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(&c, &json!({"command": ["printf", "\\377\\000\\200x"]}));
    let output = exec.output.expect("output");
    assert_eq!(output.encoding, OutputEncoding::Base64);
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(output.stdout)
        .unwrap();
    assert_eq!(bytes, b"\xff\0\x80x");
    t.finish();
}

#[test]
fn user_directory_and_environment_are_as_asked() {
    let t = Bed::new();
    let c = id(&t.start(&with(
        sleeper_config(),
        json!({"env": {"A": "container", "B": "container"}, "working_dir": "/var"}),
    )));
    let script = "id -u; id -g; pwd; echo $A $B $HOME";
    let exec = t.exec_with(&c, &json!({"command": ["sh", "-c", script]}));
    assert_eq!(
        exec.output.expect("output").stdout,
        "0\n0\n/var\ncontainer container /root\n"
    );
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", script], "user": "user", "working_dir": "/tmp", "env": {"B": "exec"}}),
    );
    assert_eq!(
        exec.output.expect("output").stdout,
        "1000\n1000\n/tmp\ncontainer exec /home/user\n"
    );
    t.finish();
}

#[test]
fn it_has_the_containers_capabilities_unless_changed() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let caps = |more: Value| {
        let config = with(json!({"command": ["cat", "/proc/self/status"]}), more);
        let exec = t.exec_with(&c, &config);
        proc::parse_status(&exec.output.expect("output").stdout)
    };
    let pid1 = proc::parse_status(&t.exec(&c, &["cat", "/proc/1/status"]));
    let own = caps(json!({}));
    for field in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
    ] {
        assert_eq!(own[field], pid1[field], "{field}");
    }
    let plain = caps(json!({"user": "1000"}));
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(plain[field], "0000000000000000", "{field}");
    }
    let dropped = caps(json!({"capabilities": {"drop": ["ALL"]}}));
    assert_eq!(dropped["CapEff"], "0000000000000000");
    t.finish();
}

#[test]
fn a_terminal_works_in_an_exec() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "tty; stty size; echo err >&2"], "terminal": true,
            "terminal_size": {"rows": 12, "cols": 34}}),
    );
    let output = exec.output.expect("output");
    let lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(&lines[1..], ["12 34", "err"]);
    assert!(output.stderr.is_empty());
    t.finish();
}

#[test]
fn a_timeout_kills_it_and_says_so() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let begin = Instant::now();
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "echo begun; sleep 1000"], "timeout_ms": 300}),
    );
    assert!(begin.elapsed() < Duration::from_secs(10));
    let exit = exec.exit.expect("it ended");
    assert!(exit.timed_out, "{exit:?}");
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal: 9, .. }),
        "{exit:?}"
    );
    assert_eq!(exec.output.expect("output").stdout, "begun\n");
    t.finish();
}

#[test]
fn a_signal_reaches_it() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let script = "trap 'exit 33' USR1; echo ready; while :; do sleep 0.05; done";
    let exec = t.exec_start(&c, &json!({"command": ["sh", "-c", script]}));
    let e = exec.id.to_string();
    proc::until("its trap is set", || {
        t.get(&format!("/v1/execs/{e}/output"))
            .text()
            .contains("ready")
    });
    let _none = t
        .post_json(&format!("/v1/execs/{e}/signal"), &json!({"signal": "USR1"}))
        .expect(204);
    assert_eq!(exec_code(&t.exec_wait(&e)), Some(33));
    t.post_json(&format!("/v1/execs/{e}/signal"), &json!({"signal": "USR1"}))
        .problem(409, "invalid_state");
    t.finish();
}

#[test]
fn execs_are_listed_and_found_by_id() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(
            t.exec_start(&c, &json!({"command": ["sleep", (1000 + n).to_string()]}))
                .id,
        );
    }
    let page: Page<Exec> = t
        .get(&format!("/v1/containers/{c}/execs"))
        .expect(200)
        .json();
    let listed: Vec<ExecId> = page.items.iter().map(|e| e.id).collect();
    assert_eq!(listed, made);
    let page: Page<Exec> = t
        .get(&format!("/v1/containers/{c}/execs?limit=2"))
        .expect(200)
        .json();
    assert_eq!(page.items.len(), 2);
    let next = page.next.expect("one more");
    let page: Page<Exec> = t
        .get(&format!(
            "/v1/containers/{c}/execs?limit=2&cursor={}",
            encode(&next)
        ))
        .expect(200)
        .json();
    assert_eq!(page.items.len(), 1);
    assert_eq!(t.inspect(&c).execs.len(), 3);
    assert_eq!(
        t.exec_inspect(&made[0].to_string()).state,
        ExecState::Running
    );
    t.get("/v1/execs/00000000-0000-7000-8000-000000000000")
        .problem(404, "exec_not_found");
    t.finish();
}

#[test]
fn output_is_read_again_by_position() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "echo one; echo two; echo three"]}),
    );
    let path = format!("/v1/execs/{}/output", exec.id);
    let lines: Vec<LogLine> = t.get(&path).expect(200).ndjson();
    let data: Vec<&str> = lines.iter().map(|l| l.data.as_str()).collect();
    assert_eq!(data, ["one", "two", "three"]);
    let rest: Vec<LogLine> = t
        .get(&format!("{path}?from={}", lines[0].position))
        .expect(200)
        .ndjson();
    assert_eq!(rest, lines[1..]);
    let raw = t
        .send(&Request::new(Method::Get, &path).header("accept", "application/octet-stream"))
        .expect(200);
    assert_eq!(raw.body, b"one\ntwo\nthree\n");
    t.finish();
}

#[test]
fn output_can_be_followed_while_it_comes() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(
        &c,
        &json!({"command": ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"]}),
    );
    let mut stream = t.stream(&format!("/v1/execs/{}/output?follow=true", exec.id));
    let mut seen = Vec::new();
    while let Some(line) = stream.record::<LogLine>() {
        seen.push(line.data);
    }
    assert_eq!(seen, ["1", "2", "3"]);
    t.finish();
}

#[test]
fn output_over_its_limit_is_cut_and_said_to_be() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]}),
    );
    let output = exec.output.expect("output");
    assert!(output.truncated);
    // Cut between records.
    let shown = output.stdout.len();
    assert!((900_000..=1024 * 1024).contains(&shown), "{shown}");
    let raw = t
        .send(
            &Request::new(Method::Get, format!("/v1/execs/{}/output", exec.id))
                .header("accept", "application/octet-stream"),
        )
        .expect(200);
    assert_eq!(raw.body.len(), 3_000_000);
    t.finish();
}

#[test]
fn a_missing_program_is_127_and_recorded() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    for (command, errno, shell_code) in [
        ("/no/such", "ENOENT", 127),
        ("missing", "ENOENT", 127),
        ("/etc/passwd", "EACCES", 126),
    ] {
        let problem = t
            .post_json(
                &format!("/v1/containers/{c}/execs?wait=10s"),
                &json!({"command": [command]}),
            )
            .problem(422, "start_failed");
        assert_eq!(problem.step.as_deref(), Some("exec"), "{problem:?}");
        assert_eq!(problem.errno.as_deref(), Some(errno), "{problem:?}");
        assert_eq!(problem.exit_code, Some(shell_code), "{problem:?}");
        let exec = t.exec_inspect(&problem.id.expect("it is recorded"));
        assert_eq!(exec.state, ExecState::Failed);
        assert!(exec.failure.is_some());
    }
    assert_eq!(t.state(&c), ContainerState::Running);
    t.finish();
}

#[test]
fn a_background_child_that_keeps_stdout_does_not_hold_the_exec() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let begin = Instant::now();
    let exec = t.exec_with(
        &c,
        &json!({"command": ["sh", "-c", "echo done; sleep 600 &"]}),
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(exec_code(&exec), Some(0));
    assert_eq!(exec.output.expect("output").stdout, "done\n");
    assert!(exec.exit.expect("it ended").output_truncated);
    t.finish();
}

#[test]
fn execs_end_with_their_container() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(&c, &json!({"command": ["sleep", "1000"]}));
    let _none = t.post(&format!("/v1/containers/{c}/kill")).expect(204);
    t.wait(&c);
    let exec = t.exec_wait(&exec.id.to_string());
    assert_eq!(exec.state, ExecState::Exited);
    let exit = exec.exit.expect("it ended");
    assert_ne!(exit.status, ExitStatus::Exited { code: 0 }, "{exit:?}");
    t.finish();
}

#[test]
fn many_at_once_each_have_their_own_code_and_output() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let threads: Vec<_> = (0..24)
        .map(|n| {
            let (client, path) = (
                t.client.clone(),
                format!("/v1/containers/{c}/execs?wait=30s"),
            );
            let body = json!({"command": ["sh", "-c", format!("echo number {n}; exit {n}")]});
            std::thread::spawn(move || client.send(&Request::new(Method::Post, path).json(&body)))
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        let exec: Exec = thread.join().unwrap().expect(201).json();
        assert_eq!(exec_code(&exec), i32::try_from(n).ok());
        assert_eq!(exec.output.expect("output").stdout, format!("number {n}\n"));
    }
    t.finish();
}

#[test]
fn an_idempotency_key_runs_it_once() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let ask = || -> Exec {
        let request = Request::new(Method::Post, format!("/v1/containers/{c}/execs?wait=10s"))
            .header("idempotency-key", "once")
            .json(&json!({"command": ["sh", "-c", "echo x >> /ran"]}));
        t.send(&request).expect(201).json()
    };
    assert_eq!(ask().id, ask().id);
    assert_eq!(t.exec(&c, &["cat", "/ran"]), "x\n");
    t.finish();
}
