//! Every operation with good and with bad input, until each documented status was seen, but for
//! those of `contract-unseen.txt`, each with its reason.

use std::io::{Read, Write};

use littlebox_tests::contract::{Contract, Seen};
use littlebox_tests::prelude::*;

/// One line each: `METHOD PATH STATUS reason`, where `*` stands for all.
const UNSEEN: &str = include_str!("../../../contract-unseen.txt");

#[test]
fn every_documented_status_is_met_or_has_a_reason() {
    let t = Bed::new();
    refusals_of_all(&t);
    the_daemon(&t);
    containers(&t);
    lifecycle(&t);
    observation(&t);
    files(&t);
    execs(&t);
    namespaces(&t);
    streams(&t);
    t.finish();
    a_full_disk();
    a_shutdown();
    compare();
}

fn compare() {
    let seen = Contract::get().seen();
    let documented = Contract::get().documented();
    let excused = Excuses::parse();
    let missing: Vec<String> = documented
        .iter()
        .filter(|s| !seen.contains(s) && !excused.has(s))
        .map(ToString::to_string)
        .collect();
    assert!(
        missing.is_empty(),
        "never seen, and without a reason:\n{}",
        missing.join("\n")
    );
    let stale: Vec<String> = excused
        .exact
        .iter()
        .filter(|s| seen.contains(s) || !documented.contains(s))
        .map(ToString::to_string)
        .collect();
    assert!(
        stale.is_empty(),
        "seen or not documented, and still excused:\n{}",
        stale.join("\n")
    );
}

struct Excuses {
    exact: BTreeSet<Seen>,
    every: BTreeSet<u16>,
}

impl Excuses {
    fn parse() -> Self {
        let mut excuses = Self {
            exact: BTreeSet::new(),
            every: BTreeSet::new(),
        };
        for line in UNSEEN
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [method, path, status, _reason, ..] = fields.as_slice() else {
                panic!("no reason: {line}");
            };
            let status = status
                .parse()
                .unwrap_or_else(|_| panic!("no status: {line}"));
            if (*method, *path) == ("*", "*") {
                excuses.every.insert(status);
            } else {
                let (method, path) = ((*method).to_owned(), (*path).to_owned());
                excuses.exact.insert(Seen {
                    method,
                    path,
                    status,
                });
            }
        }
        excuses
    }

    fn has(&self, seen: &Seen) -> bool {
        self.every.contains(&seen.status) || self.exact.contains(seen)
    }
}

// ---- what every operation refuses alike --------------------------------------------------------

const NOBODY: &str = "0198c0de-1b2c-7d3e-8f40-5a6b7c8d9e0f";

fn method(name: &str) -> Method {
    [
        Method::Get,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
    ]
    .into_iter()
    .find(|m| m.name() == name)
    .unwrap_or_else(|| panic!("the harness does not know {name}"))
}

/// A path of an operation with references that lead nowhere, and what its query needs.
fn nowhere(path: &str) -> String {
    let path = path
        .replace("{c}", "nobody")
        .replace("{e}", NOBODY)
        .replace("{type}", "net")
        .replace("{inode}", "1");
    match path.rsplit('/').next() {
        Some("files") => format!("{path}?path=/"),
        Some("diff") => format!("{path}?a=nobody&b=host"),
        _ => path,
    }
}

/// A request of an operation that is as it should be, but for what it refers to.
fn valid(verb: &str, path: &str) -> Request {
    let request = Request::new(method(verb), nowhere(path));
    let body = &Contract::get().document()["paths"][path][verb.to_lowercase()]["requestBody"];
    let content = &body["content"];
    if content.get("application/x-tar").is_some() {
        return request.body("application/x-tar", vec![0; 1024]);
    }
    match content.get("application/json") {
        Some(json) if json.get("example").is_some() => request.json(&json["example"]),
        Some(json) if json.get("examples").is_some() => {
            let mut examples = json["examples"].as_object().into_iter().flatten();
            let (_, first) = examples.next().expect("an example");
            request.json(&first["value"])
        }
        Some(_) => request.json(&json!({"rootfs": "host", "command": ["true"]})),
        None => request,
    }
}

fn with_query(path: &str, query: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{query}")
}

fn refusals_of_all(t: &Bed) {
    for Seen {
        method: verb,
        path,
        status,
    } in Contract::get().documented()
    {
        let request = valid(&verb, &path);
        let large = vec![b' '; (1 << 20) + 1];
        let (request, code) = match status {
            400 => {
                let path = with_query(&request.path, "nonsense=1");
                (Request { path, ..request }, "invalid_request")
            }
            403 => (request.host("evil.example"), "forbidden"),
            404 => (request, ""),
            // Of what is sent as an archive, or of an answer that would be too long.
            413 if verb == "PUT" || verb == "GET" => continue,
            413 => (
                Request {
                    headers: Vec::new(),
                    ..request
                }
                .body("application/json", large),
                "body_too_large",
            ),
            415 => (
                Request {
                    headers: Vec::new(),
                    ..request
                }
                .body("text/plain", b"{}".to_vec()),
                "unsupported_media_type",
            ),
            _ => continue,
        };
        let problem: Problem = t.send(&request).expect(status).json();
        assert!(
            code.is_empty() || problem.code == code,
            "{verb} {path}: {problem:?}"
        );
    }
    for (verb, path) in [
        (Method::Get, "/v2"),
        (Method::Get, "/"),
        (Method::Post, "/v1/nothing"),
    ] {
        t.send(&Request::new(verb, path)).problem(404, "not_found");
    }
    for (verb, path) in [
        (Method::Post, "/v1"),
        (Method::Put, "/v1/containers"),
        (Method::Delete, "/v1/events"),
    ] {
        t.send(&Request::new(verb, path))
            .problem(405, "method_not_allowed");
    }
    // Bytes that are no UTF-8 are no reference either.
    t.get("/v1/containers/%FF")
        .problem(400, "invalid_reference");
}

// ---- by subject --------------------------------------------------------------------------------

fn the_daemon(t: &Bed) {
    for path in ["/v1", "/v1/health", "/v1/system", "/metrics"] {
        let _checked = t.get(path).expect(200);
    }
    let served = t.get("/v1/openapi.yaml").expect(200).text();
    let same = served == littlebox_tests::contract::TEXT;
    assert!(same, "the daemon was built with another api.yaml");
}

fn containers(t: &Bed) {
    let named = with(
        sleeper_config(),
        json!({"name": "first", "labels": {"a": "b"}}),
    );
    let _plan = t
        .post_json("/v1/containers?dry_run=true", &named)
        .expect(200);
    let first = t.post_json("/v1/containers", &named).expect(201);
    let etag = first.header("etag").expect("an ETag").to_owned();
    let path = first.header("location").expect("a location").to_owned();
    t.post_json("/v1/containers", &named)
        .problem(409, "name_in_use");
    t.post_json("/v1/containers?start=true", &busybox(&["/no/such"]))
        .problem(422, "start_failed");

    let _page = t.get("/v1/containers?limit=1&filter=label=a").expect(200);
    let _part = t.get("/v1/containers?fields=id,state").expect(200);
    let _whole = t.get(&path).expect(200);
    let known = Request::new(Method::Get, path.as_str()).header("if-none-match", etag.as_str());
    let _same = t.send(&known).expect(304);

    let patch = |body: &Value, tag: &str| {
        t.send(
            &Request::new(Method::Patch, path.as_str())
                .header("if-match", tag)
                .json(body),
        )
    };
    let _renamed = patch(&json!({"name": "renamed"}), &etag).expect(200);
    patch(&json!({"labels": {}}), &etag).problem(412, "precondition_failed");
    let other = id(&t.create(&sleeper_config()));
    let taken = Request::new(Method::Patch, format!("/v1/containers/{other}"));
    t.send(&taken.json(&json!({"name": "renamed"})))
        .problem(409, "name_in_use");

    let running = id(&t.sleeper());
    // No host has both: one is of cgroup v2, the other of v1.
    let limits = json!({"resources": {"memory_high": 1 << 30, "memory_swappiness": 10}});
    let update = Request::new(Method::Patch, format!("/v1/containers/{running}"));
    t.send(&update.json(&limits)).problem(422, "update_failed");
    t.delete(&format!("/v1/containers/{running}"))
        .problem(409, "invalid_state");
    let _being_removed = t
        .delete(&format!("/v1/containers/{running}?force=true&wait=0"))
        .expect(202);
    let _removed = t.wait_for(&running, "removed");
    let _gone = t.delete(&path).expect(204);
}

fn lifecycle(t: &Bed) {
    let c = id(&t.create(&sleeper_config()));
    let post = |what: &str| t.post(&format!("/v1/containers/{c}/{what}"));
    for what in ["stop", "kill", "pause", "resume"] {
        post(what).problem(409, "invalid_state");
    }
    let size = json!({"rows": 10, "cols": 20});
    t.post_json(&format!("/v1/containers/{c}/resize"), &size)
        .problem(409, "invalid_state");
    let _started = post("start").expect(200);
    post("start").problem(409, "invalid_state");
    let _paused = post("pause").expect(200);
    let _thawed = post("resume").expect(200);
    let _signalled = t
        .post_json(
            &format!("/v1/containers/{c}/kill"),
            &json!({"signal": "CONT"}),
        )
        .expect(204);
    let _waited = t
        .get(&format!("/v1/containers/{c}/wait?timeout=10ms"))
        .expect(200);
    let again = t.post_json(
        &format!("/v1/containers/{c}/restart"),
        &json!({"timeout_s": 0}),
    );
    let _again = again.expect(200);
    let stopped = t.post_json(
        &format!("/v1/containers/{c}/stop"),
        &json!({"timeout_s": 0}),
    );
    let _stopped = stopped.expect(200);

    let deaf = busybox(&[
        "sh",
        "-c",
        "trap '' TERM; echo deaf; while :; do sleep 1; done",
    ]);
    let deaf = id(&t.start(&deaf));
    proc::until("it ignores SIGTERM", || t.stdout(&deaf) == "deaf\n");
    let _ending = t
        .post(&format!("/v1/containers/{deaf}/stop?wait=0"))
        .expect(202);
    t.remove(&deaf);

    let failing = id(&t.create(&busybox(&["/no/such"])));
    t.post(&format!("/v1/containers/{failing}/start"))
        .problem(422, "start_failed");
    t.post(&format!("/v1/containers/{failing}/restart"))
        .problem(422, "start_failed");

    let terminal = id(&t.start(&with(sleeper_config(), json!({"terminal": true}))));
    let _resized = t
        .post_json(&format!("/v1/containers/{terminal}/resize"), &size)
        .expect(204);
    t.remove(&terminal);
}

fn observation(t: &Bed) {
    let created = id(&t.create(&sleeper_config()));
    let c = id(&t.sleeper());
    for what in ["top", "stats", "namespaces"] {
        t.get(&format!("/v1/containers/{created}/{what}"))
            .problem(409, "invalid_state");
        let _now = t.get(&format!("/v1/containers/{c}/{what}")).expect(200);
    }
    let _plan = t.get(&format!("/v1/containers/{c}/plan")).expect(200);
    let accept = |path: &str, media: &str| {
        t.send(
            &Request::new(Method::Get, format!("/v1/containers/{c}/{path}"))
                .header("accept", media),
        )
    };
    for media in ["application/x-ndjson", "text/plain", "text/event-stream"] {
        let _log = accept("logs?tail=10", media).expect(200);
    }
    accept("logs", "image/png").problem(406, "not_acceptable");
    accept("stats", "image/png").problem(406, "not_acceptable");
    t.get(&format!("/v1/containers/{c}/attach"))
        .problem(426, "upgrade_required");
    let mut ws = t.ws(&format!("/v1/containers/{c}/attach"));
    ws.control(&ClientControl::Detach);
    assert_eq!(ws.ended(), Some(ServerControl::Detached));
    t.remove(&c);
}

fn files(t: &Bed) {
    let c = id(&t.sleeper());
    let base = format!("/v1/containers/{c}");
    let archive = t
        .get(&format!("{base}/files?path=/etc/passwd"))
        .expect(200)
        .body;
    let _stat = t
        .get(&format!("{base}/files?path=/etc/passwd&stat=true"))
        .expect(200);
    t.get(&format!("{base}/files?path=/no/such"))
        .problem(404, "path_not_found");
    let put = |path: &str, body: &[u8]| {
        let path = format!("{base}/files?path={path}");
        t.send(&Request::new(Method::Put, path).body("application/x-tar", body.to_vec()))
    };
    let _unpacked = put("/tmp", &archive).expect(204);
    put("/tmp", &[7; 1024]).problem(400, "bad_archive");
    let changes: Changes = t.get(&format!("{base}/changes")).expect(200).json();
    assert!(
        changes.items.iter().any(|i| i.path == "/tmp/passwd"),
        "{changes:?}"
    );
    let _archive = t.get(&format!("{base}/export")).expect(200);
    t.remove(&c);
}

fn execs(t: &Bed) {
    let created = id(&t.create(&sleeper_config()));
    let command = json!({"command": ["echo", "hello"]});
    t.post_json(&format!("/v1/containers/{created}/execs"), &command)
        .problem(409, "invalid_state");
    let c = id(&t.sleeper());
    let execs = format!("/v1/containers/{c}/execs");
    t.post_json(&execs, &json!({"command": ["/no/such"]}))
        .problem(422, "start_failed");
    let finished = t.exec_with(&c, &command).id;
    let _page = t.get(&format!("{execs}?limit=1")).expect(200);
    let _again = t.get(&format!("/v1/execs/{finished}?wait=1s")).expect(200);
    for media in [
        "application/x-ndjson",
        "application/octet-stream",
        "text/event-stream",
    ] {
        let path = format!("/v1/execs/{finished}/output");
        let _output = t
            .send(&Request::new(Method::Get, path).header("accept", media))
            .expect(200);
    }
    let path = format!("/v1/execs/{finished}/output");
    t.send(&Request::new(Method::Get, path).header("accept", "image/png"))
        .problem(406, "not_acceptable");
    let (signal, size) = (json!({"signal": "TERM"}), json!({"rows": 10, "cols": 20}));
    t.post_json(&format!("/v1/execs/{finished}/signal"), &signal)
        .problem(409, "invalid_state");
    t.post_json(&format!("/v1/execs/{finished}/resize"), &size)
        .problem(409, "invalid_state");

    let running = t
        .exec_start(&c, &json!({"command": ["sleep", "1000"], "terminal": true}))
        .id;
    let _resized = t
        .post_json(&format!("/v1/execs/{running}/resize"), &size)
        .expect(204);
    t.get(&format!("/v1/execs/{running}/attach"))
        .problem(426, "upgrade_required");
    let mut ws = t.ws(&format!("/v1/execs/{running}/attach"));
    let _signalled = t
        .post_json(&format!("/v1/execs/{running}/signal"), &signal)
        .expect(204);
    let _exit = ws.exit();
    t.remove(&c);
}

fn namespaces(t: &Bed) {
    let created = t.create(&with(sleeper_config(), json!({"name": "asleep"})));
    let c = id(&t.sleeper());
    let _all = t.get("/v1/namespaces?type=net").expect(200);
    let _tree = t.get("/v1/namespaces/tree").expect(200);
    let _tree = t.get("/v1/namespaces/tree?by=parent").expect(200);
    let _diff = t
        .get(&format!("/v1/namespaces/diff?a={c}&b=host"))
        .expect(200);
    t.get(&format!("/v1/namespaces/diff?a={}&b=host", id(&created)))
        .problem(409, "invalid_state");
    let own: ContainerNamespaces = t
        .get(&format!("/v1/containers/{c}/namespaces"))
        .expect(200)
        .json();
    let net = own
        .namespaces
        .iter()
        .find(|n| n.kind == "net")
        .expect("a network namespace");
    let _one = t
        .get(&format!("/v1/namespaces/net/{}", net.inode))
        .expect(200);
    t.remove(&c);
}

fn streams(t: &Bed) {
    for media in ["application/x-ndjson", "text/event-stream"] {
        let request = Request::new(Method::Get, "/v1/events?since_seq=0&follow=false");
        let _events = t.send(&request.header("accept", media)).expect(200);
    }
    let request = Request::new(Method::Get, "/v1/events").header("accept", "image/png");
    t.send(&request).problem(406, "not_acceptable");

    let short = with(
        busybox(&["sh", "-c", "sleep 0.5"]),
        json!({"name": "short"}),
    );
    let _running = t.start(&short);
    let _measurements = t
        .stream("/v1/containers/short/stats?stream=true&interval=100ms")
        .finish();
}

/// 507 by a state directory without room.
fn a_full_disk() {
    let t = Bed::builder().state_size(8 << 20).build();
    let c = id(&t.sleeper());
    let filler = t.dirs.state.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    // The first commits may still fit into pages that the database has already.
    let until_full = |send: &dyn Fn(usize) -> Response| {
        let full = |n| {
            while file.try_clone().unwrap().write_all(&[1; 512]).is_ok() {}
            let response = send(n);
            assert!(
                matches!(response.status(), 200 | 201 | 507),
                "{}",
                response.text()
            );
            Some(response).filter(|r| r.status() == 507)
        };
        let refused = (0..300).find_map(full).expect("the disk is never full");
        refused.problem(507, "no_space");
    };
    let labels = |n: usize| json!({"labels": {"filler": format!("{n}").repeat(1000)}});
    until_full(&|n| t.post_json("/v1/containers", &with(sleeper_config(), labels(n))));
    let refused = std::cell::RefCell::new(String::new());
    until_full(&|n| {
        *refused.borrow_mut() = format!("renamed-{n}");
        let patch = with(labels(n), json!({"name": *refused.borrow()}));
        t.send(&Request::new(Method::Patch, format!("/v1/containers/{c}")).json(&patch))
    });
    // What was refused is not done.
    t.get(&format!("/v1/containers/{}", refused.borrow()))
        .problem(404, "container_not_found");
    // Its space is given back when it has no name and no descriptor left.
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    t.finish();
}

/// 503: a wait that is pending when the daemon is told to end.
fn a_shutdown() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let mut pending = t.client.connect().unwrap();
    let head = format!("GET /v1/containers/{c}/wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    pending.write_all(head.as_bytes()).unwrap();
    let path = format!("/v1/containers/{c}/wait");
    let client = t.client.clone();
    let waiting = std::thread::spawn(move || client.send(&Request::new(Method::Get, path)));
    std::thread::sleep(Duration::from_millis(300));
    t.stop();
    waiting.join().unwrap().problem(503, "unavailable");
    let mut rest = String::new();
    pending.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 503 "), "{rest}");
    t.start_again();
    t.remove(&c);
    t.finish();
}
