//! The engine itself: its sockets, directories, streams, logs, names.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use littlebox_tests::http::Client;

use super::prelude::*;

/// The inodes of the sockets that the daemon and its processes hold.
fn sockets_of_ours(t: &Bed) -> BTreeSet<String> {
    let members = littlebox_tests::oracle::members(&t.subject, Some(t.pid()));
    let targets = members.into_iter().flat_map(proc::descriptors);
    targets
        .filter_map(|target| {
            let target = target.to_string_lossy().into_owned();
            Some(
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect()
}

#[test]
fn no_socket_of_ours_is_abstract_or_speaks_a_network_protocol() {
    // Row 15, CVE-2020-15257, and row 23, CVE-2025-9074.
    let t = Bed::new();
    let shown = t.sh_with("cat /proc/net/unix", json!({"namespaces": {"net": "host"}}));
    let _container = t.sleeper();
    let ours = sockets_of_ours(&t);
    assert!(!ours.is_empty(), "the daemon listens on nothing");
    let unix = fs::read_to_string("/proc/net/unix").unwrap();
    for line in unix.lines().chain(shown.lines()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(inode), Some(name)) = (fields.get(6), fields.get(7)) else {
            continue;
        };
        let abstract_one = name.starts_with('@');
        assert!(!abstract_one || !ours.contains(*inode), "{line}");
        assert!(!abstract_one || !name.contains("littlebox"), "{line}");
    }
    for table in [
        "tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink",
    ] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let mut fields = line.split_whitespace();
            assert!(!fields.any(|f| ours.contains(f)), "{table}: {line}");
        }
    }
    t.finish();
}

#[test]
fn nothing_answers_a_container_on_any_port() {
    // Row 23. In its own network nothing listens at all.
    let t = Bed::new();
    let script = "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp | grep -vc sl; \
        for p in 80 443 2375 2376 4243 8080; do \
        nc -w 1 127.0.0.1 $p </dev/null && echo ANSWERED $p; done 2>/dev/null; true";
    assert_eq!(t.sh(script), "0\n");
    t.finish();
}

#[test]
fn requests_on_behalf_of_a_foreign_page_are_refused() {
    // Row 23: DNS rebinding, should somebody bridge the socket to TCP.
    let t = Bed::new();
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:80@evil.example",
        "localhost:evil",
        "[::1].evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "host.docker.internal",
    ] {
        let request = Request::new(Method::Get, "/v1/containers").host(host);
        t.send(&request).problem(403, "forbidden");
    }
    let create = || Request::new(Method::Post, "/v1/containers").json(&busybox(&["true"]));
    for origin in [
        "null",
        "http://evil.example",
        "https://localhost.evil.example",
        "file://",
        "http://localhost:80@evil.example",
    ] {
        t.send(&create().header("origin", origin))
            .problem(403, "forbidden");
        let twice = create()
            .header("origin", "http://localhost")
            .header("origin", origin);
        t.send(&twice).problem(403, "forbidden");
    }
    let twice = create().header("host", "evil.example");
    let response = t.send(&twice);
    assert!(
        matches!(response.status(), 400 | 403),
        "{}",
        response.text()
    );
    // What a page may send without asking first (a form) is no JSON.
    let form = Request::new(Method::Post, "/v1/containers")
        .body("text/plain", busybox(&["true"]).to_string().into_bytes());
    t.send(&form).problem(415, "unsupported_media_type");
    assert!(t.list().is_empty());
    t.finish();
}

/// Runs a command as uid 1000.
fn as_user(program: &Path, args: &[&str]) -> std::process::Output {
    let ids = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(ids).arg(program).args(args).output().unwrap()
}

#[test]
fn others_are_refused_everywhere_whatever_the_umask_is() {
    // Row 16, CVE-2024-25621.
    for umask in [0o000, 0o077] {
        let t = Bed::builder().umask(umask).build();
        // The test's own directories would keep them out.
        for dir in [&t.dirs.base_path, &t.dirs.run_path] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let c = id(&t.sleeper());
        t.exec(&c, &["sh", "-c", "echo secret > /written"]);
        for dir in [t.dirs.state.clone(), t.dirs.run_path.join("run")] {
            let mode = fs::metadata(&dir).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{} with umask {umask:o}", dir.display());
            let out = as_user(Path::new("/bin/ls"), &[dir.to_str().unwrap()]);
            assert!(!out.status.success(), "{}", dir.display());
            assert!(fs::read_dir(&dir).unwrap().count() > 0);
        }
        for dir in fs::read_dir(t.dirs.run_path.join("run/c")).unwrap() {
            let dir = dir.unwrap().path();
            let meta = fs::metadata(&dir).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o700, 0));
            for file in fs::read_dir(&dir).unwrap() {
                let meta = file.unwrap().metadata().unwrap();
                assert_eq!(meta.mode() & 0o077, 0, "{}", dir.display());
            }
        }
        let socket = t.dirs.socket.to_str().unwrap();
        assert_eq!(fs::metadata(socket).unwrap().mode() & 0o007, 0);
        let lbctl = littlebox_tests::daemon::binary("lbctl");
        let out = as_user(&lbctl, &["--socket", socket, "ps"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.to_lowercase().contains("permission"), "{said}");
        t.finish();
    }
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let rss = &proc::status(pid)["VmRSS"];
    rss.trim_end_matches(" kB").trim().parse().unwrap()
}

/// A WebSocket handshake, or the beginning of one.
const HANDSHAKE: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: littlebox.exec.v1\r\n\r\n";

#[test]
fn thousands_of_aborted_streams_cost_neither_descriptors_nor_memory() {
    // Row 24, CVE-2022-31030, CVE-2022-23471, CVE-2025-64329.
    let t = Bed::new();
    let script = "while :; do echo a line that somebody may read; sleep 0.05; done";
    let c = id(&t.start(&with(
        busybox(&["sh", "-c", script]),
        json!({"stdin": true}),
    )));
    let abort_all = |count: usize| {
        for n in 0..count {
            let (path, rest) = match n % 4 {
                0 => ("attach?logs=true&stdin=true", HANDSHAKE),
                1 => ("logs?follow=true", "Host: localhost\r\n\r\n"),
                2 => ("stats", "Host: localhost\r\n\r\n"),
                _ => ("attach", "Host: localhost\r\nConnection: Upg"),
            };
            let mut stream = t.client.connect().unwrap();
            let request = format!("GET /v1/containers/{c}/{path} HTTP/1.1\r\n{rest}");
            stream.write_all(request.as_bytes()).unwrap();
        }
    };
    let settled = || {
        let mut last = usize::MAX;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = t.unpooled_descriptors();
            if now >= last {
                return last;
            }
            last = now;
        }
    };
    // Caches and threads that the first ones make are no leak.
    abort_all(400);
    let helper = t.inspect(&c).helper_pid.expect("a helper");
    let (fds, helper_fds) = (settled(), proc::descriptors(helper).len());
    let (memory, helper_memory) = (resident(t.pid()), resident(helper));
    abort_all(2000);
    proc::until("the daemon's descriptors are closed", || {
        t.unpooled_descriptors() <= fds + 2
    });
    assert!(proc::descriptors(helper).len() <= helper_fds + 1);
    let (grown, helper_grown) = (
        resident(t.pid()).saturating_sub(memory),
        resident(helper).saturating_sub(helper_memory),
    );
    assert!(grown < 16 * 1024, "the daemon grew by {grown} KiB");
    assert!(helper_grown < 1024, "the helper grew by {helper_grown} KiB");
    t.finish();
}

#[test]
fn clients_that_do_not_take_their_archives_hold_nobody_up() {
    // Row 24: each archive is packed at the speed of its client, by a worker of its own.
    let t = Bed::new();
    let large = "dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null";
    let containers: Vec<String> = (0..5)
        .map(|_| {
            let c = id(&t.sleeper());
            t.exec(&c, &["sh", "-c", large]);
            c
        })
        .collect();
    let export = |c: &String| format!("/v1/containers/{c}/export");
    let stalled = |c: &String| -> Vec<_> { (0..8).map(|_| t.stream(&export(c))).collect() };
    let mut streams = stalled(&containers[0]);
    // One container has its share, and others theirs.
    t.get(&export(&containers[0]))
        .problem(503, "resources_exhausted");
    let _whole = t.get(&export(&containers[4])).expect(200);
    streams.extend(containers[1..4].iter().flat_map(stalled));
    t.get(&export(&containers[4]))
        .problem(503, "resources_exhausted");
    assert!(t.stdout(&containers[4]).contains("ready"));
    let stat = |c: &String| format!("/v1/containers/{c}/files?path=/etc&stat=true");
    let _stat = t.get(&stat(&containers[4])).expect(200);
    drop(streams);
    proc::until("there is room for another archive", || {
        t.get(&export(&containers[0])).status() == 200
    });
    t.finish();
}

#[test]
fn a_body_without_an_end_is_bounded() {
    // Row 24: a request's body, and an archive's header, are read up to a bound.
    let t = Bed::new();
    let before = resident(t.pid());
    let mut huge = busybox(&["true"]);
    huge["env"] = json!({"A": "x".repeat(3 * 1024 * 1024)});
    let response = t.post_json("/v1/containers", &huge);
    response.problem(413, "body_too_large");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let request =
        Request::new(Method::Post, "/v1/containers").body("application/json", deep.into_bytes());
    assert_eq!(t.send(&request).status(), 400);
    let grown = resident(t.pid()).saturating_sub(before);
    assert!(grown < 32 * 1024, "the daemon grew by {grown} KiB");
    t.finish();
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    // Row 24: a client that reads nothing while the program prints; others see all of it.
    let t = Bed::new();
    let script = "seq 1 200000; echo done";
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    let mut slow = Client::new(&t.dirs.socket).connect().unwrap();
    let request = format!("GET /v1/containers/{c}/attach?logs=true HTTP/1.1\r\n{HANDSHAKE}");
    slow.write_all(request.as_bytes()).unwrap();
    let before = resident(t.pid());
    assert_eq!(code(&t.exit(&c)), Some(0));
    let out = t.stdout(&c);
    assert!(out.ends_with("200000\ndone\n"));
    let grown = resident(t.pid()).saturating_sub(before);
    assert!(grown < 32 * 1024, "the daemon grew by {grown} KiB");
    drop(slow);
    t.finish();
}

#[test]
fn whatever_bytes_a_program_prints_come_back_as_they_were() {
    // Row 27: no byte of the output is mistaken for the log's own framing.
    let t = Bed::new();
    let file = t.dirs.base_path.join("bytes");
    let mut bytes = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < 300_000 {
        // xorshift64: the same bytes in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 64 {
            0 => bytes.extend(b"2026-01-01T00:00:00.000000000Z stdout F forged\n"),
            1 => bytes.extend(b"{\"time\":\"x\",\"stream\":\"stderr\",\"data\":\"forged\"}\n"),
            2 => bytes.extend(b"\x1b]0;title\x07\x1b[2J\r\n\n\0\n"),
            // The header of a file of ours.
            3 => bytes.extend(littlebox_protocol::FILE_MAGIC),
            _ => bytes.extend(state.to_le_bytes()),
        }
    }
    fs::write(&file, &bytes).unwrap();
    let config = with(
        busybox(&["cat", "/bytes"]),
        json!({"mounts": [bind(&file, "/bytes")]}),
    );
    let c = id(&t.start(&config));
    t.exit(&c);
    assert!(t.logs_raw(&c, "stdout=true&stderr=false") == bytes);
    let records = t.logs(&c, "");
    assert!(records.iter().all(|record| record.stream == "stdout"));
    // Shown to a terminal, no byte of it is a command.
    let mut pty = t.lbctl_pty(&["logs", &c]);
    assert_eq!(pty.wait(), 0);
    assert!(!contains(&pty.seen(), b"\x1b]0;title"));
    assert!(!contains(&pty.seen(), b"\x1b[2J"));
    fs::remove_file(file).unwrap();
    t.finish();
}

#[test]
fn a_log_replaced_by_a_link_is_not_written_through() {
    // Row 27, both sides; the place is one that no container reaches.
    let t = weak_bed();
    for (labels, reaches) in [(json!({}), false), (without(Defence::LogNoFollow), true)] {
        let canary = Canary::new();
        let config = with(busybox(&["echo", "printed"]), json!({"labels": labels}));
        let c = id(&t.create(&config));
        let log = t
            .dirs
            .state
            .join(format!("containers/{c}/log/container.log"));
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        for target in ["file", "new"] {
            let _none = fs::remove_file(&log);
            symlink(canary.path().join(target), &log).unwrap();
            if reaches {
                continue;
            }
            let response = t.post(&format!("/v1/containers/{c}/start"));
            response.problem(422, "start_failed");
        }
        if reaches {
            let _ran = t.post(&format!("/v1/containers/{c}/start?wait=10s"));
        }
        assert_eq!(!canary.is_untouched(), reaches);
        fs::remove_file(&log).unwrap();
        t.remove(&c);
    }
    t.finish();
}

/// Names made of what has led others astray.
fn hostile_names() -> Vec<String> {
    const PARTS: [&str; 22] = [
        "..",
        ".",
        "/",
        "\\",
        "\0",
        "\n",
        "\r",
        "\t",
        "\u{1b}[2J",
        "%2e%2e",
        "%2f",
        "~",
        "$(id)",
        "`id`",
        ";",
        "-",
        "--",
        "@",
        ":",
        "\u{202e}",
        "é",
        "a",
    ];
    let mut names: Vec<String> = PARTS.iter().map(|part| (*part).to_owned()).collect();
    for a in PARTS {
        for b in ["/", "..", "a", "\0"] {
            names.push(format!("{a}{b}"));
            names.push(format!("a{b}{a}"));
            names.push(format!("{a}/{b}/etc/passwd"));
        }
    }
    // Some of it is a name like others (`a..`).
    names.retain(|name| Name::try_from(name.clone()).is_err());
    names.push("../".repeat(40));
    names.push("a".repeat(5000));
    names
}

#[test]
fn names_are_names_and_never_paths() {
    // Row 28. The oracle at the end sees files, cgroups and rows that were made by them.
    let t = Bed::new();
    let _one = t.sleeper_with(json!({"name": "one"}));
    for name in hostile_names() {
        for config in [
            json!({"name": name}),
            json!({"namespaces": {"net": format!("container:{name}")}}),
            json!({"namespaces": {"net": format!("set:{name}")}}),
            json!({"hostname": format!("{name}/")}),
        ] {
            let response = t.post_json("/v1/containers", &with(busybox(&["true"]), config.clone()));
            let status = response.status();
            assert!((400..500).contains(&status), "{config}: {status}");
        }
        for path in ["containers", "execs", "namespaces/net"] {
            for below in ["", "/logs", "/files?path=/", "/attach"] {
                let path = format!("/v1/{path}/{}{below}", encode(&name));
                let response = t.get(&path);
                assert!((400..500).contains(&response.status()), "{path}");
            }
        }
        let response = t.delete(&format!("/v1/containers/{}?force=true", encode(&name)));
        assert!((400..500).contains(&response.status()), "{name:?}");
    }
    t.finish();
}

/// What `lbctl ps` says in a container that sees the API's socket at `path`, with its exit code.
fn asks_from_inside(t: &Bed, path: &str, more: Value) -> String {
    let dir = t.dirs.socket.parent().unwrap();
    let lbctl = littlebox_tests::daemon::binary("lbctl");
    let mut mounts = json!([bind(&lbctl, "/lbctl"), bind(dir, "/host")]);
    mounts[1]["read_only"] = json!(true);
    if path == "/sock" {
        mounts[1] = bind(&t.dirs.socket, path);
    }
    let config = with(json!({"mounts": mounts}), more);
    t.sh_with(&format!("/lbctl --socket {path} ps 2>&1; echo $?"), config)
}

#[test]
fn a_container_that_sees_the_socket_may_not_ask_for_anything() {
    // Row 34: a read-only bind of the directory; the id map makes the container's root its owner. By
    // its ids, and with other ids by its user namespace.
    let t = Bed::new();
    let map = json!([{"container_id": 0, "host_id": 0, "size": 65_536}]);
    let custom = json!({"namespaces": {"user": "new"}, "id_maps": {"uid": map, "gid": map}});
    for more in [json!({}), custom] {
        let out = asks_from_inside(&t, "/host/sock", more);
        assert!(out.contains("inside a container"), "{out}");
        assert!(out.contains("the socket itself"), "no hint: {out}");
        assert!(!out.ends_with("\n0\n"), "{out}");
    }
    let refused = "a request from inside a container is refused";
    assert!(t.dirs.log_text().contains(refused));
    t.finish();
    let weak = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_WEAKEN", "outside_peers")
        .build();
    let out = asks_from_inside(&weak, "/host/sock", json!({}));
    assert!(out.ends_with("\n0\n"), "the attack is no attack: {out}");
    weak.finish();
}

#[test]
fn a_container_that_was_given_the_socket_itself_may_use_it_and_inspect_says_so() {
    let t = Bed::new();
    let out = asks_from_inside(&t, "/sock", json!({"name": "trusted"}));
    assert!(out.ends_with("\n0\n"), "{out}");
    let told = t.inspect("trusted").relaxations;
    assert!(
        told.iter().any(|line| line.contains("own socket")),
        "{told:?}"
    );
    t.finish();
}

#[test]
fn a_process_that_opens_connections_and_says_nothing_leaves_places_for_others() {
    // Row 34: here of 8; one process has 4 of them.
    let t = Bed::builder().config("max_connections = 8").build();
    let idle: Vec<_> = (0..12)
        .map(|_| Client::new(&t.dirs.socket).connect().unwrap())
        .collect();
    t.lbctl_ok(&["ps"]);
    drop(idle);
    proc::until("the places are free again", || {
        let request =
            littlebox_tests::http::Request::new(littlebox_tests::http::Method::Get, "/v1");
        Client::new(&t.dirs.socket).try_send(&request).is_ok()
    });
    t.finish();
}

#[test]
fn no_capability_uncovers_the_directories_of_any_littlebox() {
    // Row 35: they are absent from the root, the other daemon's too. One side: there is no mount that
    // could be taken away.
    let (t, other) = (Bed::new(), Bed::new());
    let dirs = format!("{} {}", t.dirs.state.display(), other.dirs.state.display());
    let script = format!(
        "for d in {dirs}; do
            umount -l $d; umount -l ${{d%/*}}
            ls -a $d/ && echo SEEN; cat $d/littlebox.db && echo SEEN
            mkdir -p /tmp/m; mount --rbind / /tmp/m && echo MOUNTED; ls -a /tmp/m$d/ && echo SEEN; umount -l /tmp/m
            mkdir -p $d && ls $d && rmdir $d && ls -a $d/ && echo SEEN
            mv ${{d%/*}} /moved && ls -a /moved/state/ && echo SEEN
        done 2>/dev/null; echo done"
    );
    let all = json!({"capabilities": {"add": ["ALL"]}, "seccomp": "unconfined"});
    let config = json!({"rootfs": "host", "command": ["sh", "-c", script]});
    let (_, out) = t.run(&with(config, all));
    assert_eq!(out, "MOUNTED\nMOUNTED\ndone\n");
    // A directory that holds them.
    let below = json!({
        "rootfs": format!("dir:{}", t.dirs.base_path.display()),
        "command": ["/busybox/bin/busybox", "ls", "/"],
        "mounts": [bind(&busybox_root(), "/busybox")],
        "name": "below",
    });
    let (_, out) = t.run(&below);
    assert!(out.contains("sock") && !out.contains("state"), "{out}");
    let changes = t.get("/v1/containers/below/changes").expect(200).text();
    assert!(!changes.contains("state"), "{changes}");
    other.finish();
    t.finish();
}
