//! Requests that are wrong: each has its status, its code, its pointer, and a sentence.

use std::io::{Read, Write};

use littlebox_tests::prelude::*;

#[test]
fn wrong_container_configurations_are_400_with_a_pointer() {
    let t = Bed::new();
    let long = "x".repeat(64);
    let table = [
        (json!({"unknown": 1}), "/unknown"),
        (json!({"resources": {"memroy": 1}}), "/resources/memroy"),
        (json!({"command": "sh"}), "/command"),
        (json!({"command": []}), "/command"),
        (json!({"command": ["a\u{0}b"]}), "/command/0"),
        (json!({"command": [1]}), "/command/0"),
        (json!({"rootfs": 1}), "/rootfs"),
        (json!({"rootfs": "dir:/a/../b"}), ""),
        (json!({"name": ""}), "/name"),
        (json!({"name": "../etc"}), "/name"),
        (json!({"name": "-x"}), "/name"),
        (json!({"name": "a b"}), "/name"),
        (json!({"name": long}), "/name"),
        (
            json!({"name": "0191d7a0-0000-7000-8000-000000000000"}),
            "/name",
        ),
        (json!({"working_dir": "relative"}), "/working_dir"),
        (json!({"umask": "9"}), "/umask"),
        (json!({"umask": "10000"}), "/umask"),
        (json!({"hostname": "a/b"}), "/hostname"),
        (json!({"hostname": "x".repeat(65)}), "/hostname"),
        (json!({"env": {"A=B": "c"}}), "/env/A=B"),
        (json!({"env": {"": "c"}}), "/env/"),
        (json!({"env": {"A": "b\u{0}"}}), "/env/A"),
        (json!({"namespaces": {"nett": "new"}}), "/namespaces/nett"),
        (json!({"namespaces": {"net": "bridge"}}), "/namespaces/net"),
        (json!({"namespaces": {"net": "pid:x"}}), "/namespaces/net"),
        (
            json!({"rlimits": {"nofiles": {"soft": 1}}}),
            "/rlimits/nofiles",
        ),
        (
            json!({"rlimits": {"nofile": {"soft": 9, "hard": 1}}}),
            "/rlimits/nofile",
        ),
        (
            json!({"capabilities": {"add": ["FLY"]}}),
            "/capabilities/add/0",
        ),
        (json!({"stop_signal": "SIGNONE"}), "/stop_signal"),
        (json!({"stop_signal": "65"}), "/stop_signal"),
        (json!({"oom_score_adj": 1001}), "/oom_score_adj"),
        (json!({"propagation": "sideways"}), "/propagation"),
        (json!({"resources": {"cpus": -1.0}}), "/resources/cpus"),
        (
            json!({"resources": {"cpu_weight": 0}}),
            "/resources/cpu_weight",
        ),
        (json!({"resources": {"memory": -1}}), "/resources/memory"),
        (
            json!({"resources": {"cpuset_cpus": "a-b"}}),
            "/resources/cpuset_cpus",
        ),
        (
            json!({"mounts": [{"type": "nfs", "destination": "/x"}]}),
            "/mounts/0/type",
        ),
        (
            json!({"mounts": [{"type": "bind", "destination": "/x"}]}),
            "/mounts/0/source",
        ),
        (
            json!({"mounts": [{"type": "bind", "source": "rel", "destination": "/x"}]}),
            "/mounts/0/source",
        ),
        (
            json!({"mounts": [{"type": "tmpfs", "destination": "x"}]}),
            "/mounts/0/destination",
        ),
        (
            json!({"mounts": [{"type": "tmpfs", "destination": "/x", "mode": "8"}]}),
            "/mounts/0/mode",
        ),
        (
            json!({"mounts": [{"type": "tmpfs", "destination": "/x", "options": ["suid=1"]}]}),
            "/mounts/0/options/0",
        ),
        (
            json!({"sysctls": {"kernel.panic": "1"}}),
            "/sysctls/kernel.panic",
        ),
        (json!({"terminal": "yes"}), "/terminal"),
        (json!({"labels": {"a": 1}}), "/labels/a"),
    ];
    let mut wrong = Vec::new();
    for (more, pointer) in table {
        let config = with(busybox(&["true"]), more.clone());
        let response = t.post_json("/v1/containers", &config);
        // A path with `..` may also be accepted and cleaned; nothing else may.
        if pointer.is_empty() {
            continue;
        }
        if response.status() != 400 {
            wrong.push(format!("{more}: {} {}", response.status(), response.text()));
            continue;
        }
        let problem: Problem = response.json();
        if problem.code != "invalid_request" || problem.pointer.as_deref() != Some(pointer) {
            wrong.push(format!("{more}: expected {pointer}, got {problem:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for missing in [json!({"command": ["true"]}), json!({"rootfs": "host"})] {
        t.post_json("/v1/containers", &missing)
            .problem(400, "invalid_request");
    }
    t.finish();
}

#[test]
fn bodies_that_are_no_json_of_the_right_type_are_refused() {
    let t = Bed::new();
    let send = |content_type: &str, body: &[u8]| {
        t.send(&Request::new(Method::Post, "/v1/containers").body(content_type, body.to_vec()))
    };
    send("application/json", b"{").problem(400, "invalid_request");
    send("application/json", b"").problem(400, "invalid_request");
    send("application/json", b"[]").problem(400, "invalid_request");
    send("application/json", b"\xff\xfe").problem(400, "invalid_request");
    send("text/plain", b"{}").problem(415, "unsupported_media_type");
    let deep = "[".repeat(100_000);
    send("application/json", deep.as_bytes()).problem(400, "invalid_request");
    t.finish();
}

#[test]
fn a_body_over_the_limit_is_413() {
    let t = Bed::new();
    let config = with(
        busybox(&["true"]),
        json!({"env": {"A": "x".repeat(1 << 20)}}),
    );
    t.post_json("/v1/containers", &config)
        .problem(413, "body_too_large");
    // Whoever writes everything before reading anything has the answer as well.
    let body = vec![b' '; 4 << 20];
    for (method, path, status) in [
        ("POST", "/v1/containers", "413"),
        ("PUT", "/v1/containers/nobody/files?path=/", "415"),
        ("POST", "/v1/nowhere", "404"),
    ] {
        for _ in 0..10 {
            let mut client = t.client.connect().unwrap();
            write!(
                client,
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .unwrap();
            client.write_all(&body).unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
            let answer = std::str::from_utf8(&answer).unwrap();
            assert_eq!(answer, format!("HTTP/1.1 {status}"), "{path}");
        }
    }
    t.finish();
}

#[test]
fn wrong_queries_are_400() {
    let t = Bed::new();
    // Also where there is nothing to select them from.
    t.get("/v1/containers?fields=nothing")
        .problem(400, "invalid_request");
    let c = id(&t.sleeper());
    for path in [
        "/v1/containers?limit=0".to_owned(),
        "/v1/containers?limit=1001".to_owned(),
        "/v1/containers?limit=x".to_owned(),
        "/v1/containers?nonsense=1".to_owned(),
        "/v1/containers?filter=state=dancing".to_owned(),
        "/v1/containers?filter=colour=red".to_owned(),
        "/v1/containers?cursor=%00".to_owned(),
        "/v1/containers?fields=nothing".to_owned(),
        format!("/v1/containers/{c}/wait?for=godot"),
        format!("/v1/containers/{c}/wait?timeout=soon"),
        format!("/v1/containers/{c}/logs?tail=-1"),
        format!("/v1/containers/{c}/logs?since=yesterday"),
        format!("/v1/containers/{c}/logs?follow=perhaps"),
        format!("/v1/containers/{c}/stats?interval=0"),
        "/v1/events?since_seq=-1".to_owned(),
        "/v1/events?filter=planet=mars".to_owned(),
        "/v1/namespaces?type=nett".to_owned(),
        "/v1/namespaces/diff?a=host".to_owned(),
        "/v1/namespaces/tree?by=age".to_owned(),
    ] {
        let response = t.get(&path);
        assert_eq!(response.status(), 400, "{path}: {}", response.text());
        let problem: Problem = response.json();
        assert_eq!(problem.code, "invalid_request", "{path}: {problem:?}");
    }
    t.finish();
}

#[test]
fn unknown_routes_methods_and_things_are_told_apart() {
    let t = Bed::new();
    t.get("/v1/nonsense").problem(404, "not_found");
    t.get("/").problem(404, "not_found");
    t.get("/v2/containers").problem(404, "not_found");
    t.delete("/v1/containers")
        .problem(405, "method_not_allowed");
    t.send(&Request::new(Method::Put, "/v1/events"))
        .problem(405, "method_not_allowed");
    for path in [
        "", "/start", "/stop", "/kill", "/pause", "/resume", "/restart",
    ] {
        let path = format!("/v1/containers/nobody{path}");
        let response = if path.ends_with("nobody") {
            t.get(&path)
        } else {
            t.post(&path)
        };
        response.problem(404, "container_not_found");
    }
    t.get("/v1/execs/0191d7a0-0000-7000-8000-000000000000")
        .problem(404, "exec_not_found");
    for reference in ["..", "%2e%2e", "a%00b", "%ff", "a%2fb"] {
        let response = t.get(&format!("/v1/containers/{reference}"));
        assert!(
            matches!(response.status(), 400 | 404),
            "{reference}: {} {}",
            response.status(),
            response.text()
        );
    }
    t.finish();
}

#[test]
fn what_cannot_be_served_as_asked_is_406() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let request =
        Request::new(Method::Get, format!("/v1/containers/{c}/logs")).header("accept", "image/png");
    t.send(&request).problem(406, "not_acceptable");
    t.finish();
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let t = Bed::new();
    for host in ["evil.example", "169.254.169.254", "localhost.evil.example"] {
        t.send(&Request::new(Method::Get, "/v1").host(host))
            .problem(403, "forbidden");
    }
    let origin = Request::new(Method::Get, "/v1").header("origin", "https://evil.example");
    t.send(&origin).problem(403, "forbidden");
    t.finish();
}

#[test]
fn a_taken_name_is_409() {
    let t = Bed::new();
    let config = with(busybox(&["true"]), json!({"name": "only-one"}));
    t.create(&config);
    let problem = t
        .post_json("/v1/containers", &config)
        .problem(409, "name_in_use");
    assert!(problem.detail.contains("only-one"), "{problem:?}");
    t.finish();
}

#[test]
fn wrong_signals_sizes_and_execs_are_400() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    for (call, body, pointer) in [
        ("kill", json!({"signal": "SIGNOTHING"}), "/signal"),
        ("kill", json!({"signal": "0"}), "/signal"),
        ("kill", json!({"sig": "TERM"}), "/sig"),
        ("stop", json!({"timeout_s": -1}), "/timeout_s"),
        ("resize", json!({"rows": 1}), ""),
        ("resize", json!({"rows": 70_000, "cols": 1}), "/rows"),
        ("execs", json!({"command": []}), "/command"),
        ("execs", json!({"command": ["true"], "user": "-1"}), "/user"),
        (
            "execs",
            json!({"command": ["true"], "working_dir": "x"}),
            "/working_dir",
        ),
        (
            "execs",
            json!({"command": ["true"], "stdin": true, "input": "x"}),
            "/input",
        ),
        (
            "execs",
            json!({"command": ["true"], "timeout_ms": "soon"}),
            "/timeout_ms",
        ),
    ] {
        let response = t.post_json(&format!("/v1/containers/{c}/{call}"), &body);
        let problem = response.problem(400, "invalid_request");
        if !pointer.is_empty() {
            assert_eq!(
                problem.pointer.as_deref(),
                Some(pointer),
                "{call} {body}: {problem:?}"
            );
        }
    }
    t.finish();
}

#[test]
fn every_problem_carries_the_id_of_its_request() {
    let t = Bed::new();
    let response = t.get("/v1/containers/nobody");
    let request_id = response.header("x-request-id").expect("an id").to_owned();
    let problem: Problem = response.json();
    assert_eq!(problem.instance, Some(format!("urn:uuid:{request_id}")));
    proc::until("the daemon logged it", || {
        t.dirs.log_text().contains(&request_id)
    });
    t.finish();
}
