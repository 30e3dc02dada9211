//! File systems whose servers take a request and never answer: whoever asked cannot even be killed.
//! The daemon must not be the one who asks, and must remain killable and replaceable.

use littlebox_tests::attacker;
use littlebox_tests::dead_mount::{DeadMount, SharedDirectory};
use littlebox_tests::prelude::*;
use littlebox_tests::proc::eventually_within;

/// A bed whose starts may take two seconds. With faults, so that its workers bear its mark, and the
/// oracle finds those that are left.
fn hasty() -> Bed {
    Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_IDLE_S", "2")
        .config("start_timeout_s = 2")
        .build()
}

/// `kill -9` of the daemon: it is gone at once, and another one serves.
#[track_caller]
fn replace(t: &mut Bed) {
    let pid = t.pid();
    proc::kill(pid, Signal::KILL);
    eventually_within(Duration::from_secs(10), "the daemon is reaped", || {
        (!t.daemon_runs()).then_some(())
    });
    t.start_again();
    let _ok = t.get("/v1/health").expect(200);
}

/// A container that sees what is mounted below a directory of the host, and a mount there that has
/// hung.
struct Hung {
    container: String,
    dead: DeadMount,
    _shared: SharedDirectory,
}

impl Hung {
    #[track_caller]
    fn new(t: &Bed) -> Self {
        let shared = SharedDirectory::new(t.dirs.base_path.join("shared"));
        let mounts = json!([{
            "type": "bind", "source": shared.path, "destination": "/m", "propagation": "rslave",
        }]);
        let container = id(&t.sleeper_with(json!({ "mounts": mounts })));
        let dead = DeadMount::unkillable(shared.path.join("dead"));
        assert!(
            t.exec(&container, &["cat", "/proc/self/mountinfo"])
                .contains("/m/dead"),
            "the mount has come into the container"
        );
        Self {
            container,
            dead,
            _shared: shared,
        }
    }

    fn files(&self, query: &str) -> String {
        format!("/v1/containers/{}/files?path={query}", self.container)
    }
}

fn put(path: &str) -> Request {
    Request::new(Method::Put, path).body("application/x-tar", vec![0; 1024])
}

#[test]
fn a_start_that_names_a_mount_that_has_hung_fails_in_time() {
    let mut t = hasty();
    let dead = DeadMount::unkillable(t.dirs.base_path.join("dead"));
    let at = |name: &str| dead.path.join(name).to_str().unwrap().to_owned();
    let mounts = json!([{"type": "bind", "source": dead.path, "destination": "/m"}]);
    let made = json!([{"type": "bind", "source": at("x"), "destination": "/m", "create": true}]);
    let limits = json!({"io_limits": [{"device": at("disk"), "read_bps": 1_000_000}]});
    // Behind a link that the path does not show.
    let link = t.dirs.base_path.join("link");
    std::os::unix::fs::symlink(&dead.path, &link).unwrap();
    for config in [
        json!({"rootfs": format!("dir:{}", at("root")), "command": ["true"]}),
        json!({"rootfs": format!("dir:{}/root", link.display()), "command": ["true"]}),
        json!({"bundle": at("bundle")}),
        with(busybox(&["true"]), json!({ "mounts": mounts })),
        with(busybox(&["true"]), json!({ "mounts": made })),
        with(
            busybox(&["true"]),
            json!({"devices": [{"path": at("device")}]}),
        ),
        with(busybox(&["true"]), json!({ "resources": limits })),
    ] {
        t.post_json("/v1/containers?start=true", &config)
            .problem(503, "unavailable");
    }
    assert!(dead.taken() > 0);
    let c = id(&t.sleeper());
    let change = Request::new(Method::Patch, format!("/v1/containers/{c}"));
    t.send(&change.json(&json!({ "resources": limits })))
        .problem(503, "unavailable");
    replace(&mut t);
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    let _another = t.sleeper();
    drop(dead);
    t.finish();
}

#[test]
fn many_starts_from_a_mount_that_has_hung_leave_room_for_others() {
    let t = hasty();
    let dead = DeadMount::unkillable(t.dirs.base_path.join("dead"));
    let config =
        json!({"rootfs": format!("dir:{}/root", dead.path.display()), "command": ["true"]});
    let codes: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..60)
            .map(|_| scope.spawn(|| t.post_json("/v1/containers?start=true", &config)))
            .collect();
        let answers = starts.into_iter().map(|start| start.join().unwrap());
        answers
            .map(|a| a.expect(503).json::<Problem>().code)
            .collect()
    });
    let of = |code: &str| codes.iter().filter(|c| *c == code).count();
    // None of those who came there is back, and none of them counts no more.
    assert_eq!(of("unavailable"), 32, "{codes:?}");
    assert_eq!(of("resources_exhausted"), 28, "{codes:?}");
    t.post_json("/v1/containers", &config)
        .problem(503, "resources_exhausted");
    // Who does not go there does not wait for them.
    let c = id(&t.sleeper());
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    drop(dead);
    proc::until("it can be asked again", || {
        t.post_json("/v1/containers", &config).status() == 400
    });
    t.finish();
}

#[test]
fn files_behind_a_mount_that_has_hung_are_answered_for_in_time() {
    let mut t = hasty();
    let hung = Hung::new(&t);
    let other = id(&t.sleeper());
    for path in [
        hung.files("/m/dead&stat=true"),
        hung.files("/m/dead/x"),
        hung.files("/m"),
    ] {
        t.get(&path).problem(503, "unavailable");
    }
    t.send(&put(&hung.files("/m/dead/x")))
        .problem(503, "unavailable");
    assert!(hung.dead.taken() > 0);
    // An export leaves other mounts out, and so never comes there.
    let export = format!("/v1/containers/{}/export", hung.container);
    let _whole = t.get(&export).expect(200);
    // What does not lead there is answered as ever.
    let _file = t.get(&hung.files("/etc/passwd")).expect(200);
    replace(&mut t);
    let _file = t
        .get(&format!("/v1/containers/{other}/files?path=/etc"))
        .expect(200);
    let _file = t.get(&hung.files("/etc/passwd")).expect(200);
    drop(hung);
    t.finish();
}

#[test]
fn one_container_with_a_mount_that_has_hung_leaves_the_turns_of_others() {
    let t = hasty();
    let hung = Hung::new(&t);
    let other = id(&t.sleeper());
    let files = format!("/v1/containers/{other}/files?path=/etc");
    let paths = [hung.files("/m/dead&stat=true"), hung.files("/m/dead/x")];
    let codes: Vec<String> = std::thread::scope(|scope| {
        let (t, paths) = (&t, &paths);
        let asked: Vec<_> = (0..40)
            .map(|n| scope.spawn(move || t.get(&paths[n % 2])))
            .collect();
        for _ in 0..20 {
            let _file = t.get(&files).expect(200);
        }
        let answers = asked.into_iter().map(|answer| answer.join().unwrap());
        answers
            .map(|a| a.expect(503).json::<Problem>().code)
            .collect()
    });
    let of = |code: &str| codes.iter().filter(|c| *c == code).count();
    assert_eq!(of("unavailable"), 8, "{codes:?}");
    assert_eq!(of("resources_exhausted"), 32, "{codes:?}");
    // They are not back, so they count; but only for this container.
    t.get(&hung.files("/etc"))
        .problem(503, "resources_exhausted");
    let _file = t.get(&files).expect(200);
    let (container, etc) = (hung.container.clone(), hung.files("/etc"));
    drop(hung);
    proc::until("they are back", || t.get(&etc).status() == 200);
    assert_eq!(t.exec(&container, &["echo", "on"]), "on\n");
    t.finish();
}

#[test]
fn a_container_is_not_started_while_a_worker_of_an_earlier_daemon_has_its_root() {
    let mut t = hasty();
    let hung = Hung::new(&t);
    let c = hung.container.clone();
    t.get(&hung.files("/m/dead/x")).problem(503, "unavailable");
    replace(&mut t);
    let stop = format!("/v1/containers/{c}/stop?wait=20s");
    let _stopped = t.post_json(&stop, &json!({"timeout_s": 0})).expect(200);
    // Two overlays on one upper directory are undefined behaviour.
    let start = format!("/v1/containers/{c}/start");
    t.post(&start).problem(409, "invalid_state");
    drop(hung.dead);
    proc::until("the worker is gone", || t.post(&start).status() == 200);
    drop(hung._shared);
    t.finish();
}

#[test]
fn a_container_is_not_mounted_while_a_worker_of_an_earlier_daemon_has_its_root() {
    let mut t = hasty();
    let hung = Hung::new(&t);
    let etc = hung.files("/etc");
    t.get(&hung.files("/m/dead/x")).problem(503, "unavailable");
    replace(&mut t);
    let stop = format!("/v1/containers/{}/stop?wait=20s", hung.container);
    let _stopped = t.post_json(&stop, &json!({"timeout_s": 0})).expect(200);
    t.get(&etc).problem(409, "invalid_state");
    drop(hung.dead);
    proc::until("the worker is gone", || t.get(&etc).status() == 200);
    drop(hung._shared);
    t.finish();
}

#[test]
fn a_client_that_neither_takes_nor_sends_gives_its_turn_back() {
    let t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_IDLE_S", "1")
        .build();
    let c = id(&t.sleeper());
    let make = "dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null";
    t.exec(&c, &["sh", "-c", make]);
    let export = format!("/v1/containers/{c}/export");
    let streams: Vec<_> = (0..8).map(|_| t.stream(&export)).collect();
    proc::until("their workers have been ended", || workers(&t) <= 1);
    let _whole = t.get(&export).expect(200);
    // What they have of it does not look whole.
    for stream in streams {
        assert!(read_to_end(stream.into_reader()).is_err());
    }
    let request = format!(
        "PUT /v1/containers/{c}/files?path=/ HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/x-tar\r\nContent-Length: 10240\r\nConnection: close\r\n\r\n"
    );
    let mut client = t.client.connect().unwrap();
    std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
    let answer = String::from_utf8(read_all(client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("the client sent nothing for 1 s"),
        "{answer}"
    );
    t.finish();
}

fn workers(t: &Bed) -> usize {
    proc::workers(t.pid()).len()
}

fn read_to_end(mut stream: impl std::io::Read) -> std::io::Result<usize> {
    stream.read_to_end(&mut Vec::new())
}

/// A container with the attacker, which sees what is mounted below a directory of the host.
fn attackers(t: &Bed) -> (SharedDirectory, String) {
    let shared = SharedDirectory::new(t.dirs.base_path.join("shared"));
    let mounts = json!([
        {"type": "bind", "source": shared.path, "destination": "/m", "propagation": "rslave"},
        attacker::mount(),
    ]);
    let container = id(&t.sleeper_with(json!({ "mounts": mounts })));
    (shared, container)
}

#[test]
fn a_terminal_that_cannot_be_hung_up_holds_neither_its_helper_nor_the_daemon_up() {
    let mut t = hasty();
    let (shared, container) = attackers(&t);
    let dead = DeadMount::with_files(shared.path.join("dead"));
    let command = ["/attacker", "hold-terminal", "/m/dead/file"];
    let holds = json!({"command": command, "terminal": true, "stdin": true});
    let exec = t.exec_start(&container, &holds);
    // Whoever is attached has the terminal, too, and longer than the helper.
    let ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true", exec.id));
    let exec = t.exec_wait(&exec.id.to_string());
    assert_eq!(exec_code(&exec), Some(0), "{exec:?}");
    assert_eq!(dead.taken(), 1, "a process of it is stuck");
    drop(ws);
    assert_eq!(t.exec(&container, &["echo", "served"]), "served\n");
    replace(&mut t);
    assert_eq!(t.exec(&container, &["echo", "served"]), "served\n");
    drop(dead);
    t.remove(&container);
}

/// Whether a thread of a process is in uninterruptible sleep (proc_pid_status(5)).
fn is_stuck(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads.flatten().any(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        proc::parse_status(&status)
            .get("State")
            .is_some_and(|state| state.starts_with('D'))
    })
}

#[test]
fn input_for_a_program_that_keeps_its_pipe_locked_holds_nobody_up() {
    // More than the daemon has threads.
    const PROGRAMS: usize = 4;
    let mut t = hasty();
    let (shared, container) = attackers(&t);
    let hold = |n: usize| {
        let name = format!("dead{n}");
        let dead = DeadMount::with_files(shared.path.join(&name));
        let file = format!("/m/{name}/file");
        (dead, json!(["/attacker", "hold-input", file]))
    };
    let stuck = || {
        let workers = proc::workers(t.pid()).into_iter();
        workers.filter(|pid| is_stuck(*pid)).count()
    };
    let attached: Vec<_> = (0..PROGRAMS)
        .map(|already| {
            let (dead, command) = hold(already);
            let exec = t.exec_start(&container, &json!({"command": command, "stdin": true}));
            let mut ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true", exec.id));
            proc::until("whoever writes is stuck", || {
                ws.stdin(b"x");
                stuck() > already
            });
            (ws, dead)
        })
        .collect();
    let (dead, command) = hold(PROGRAMS);
    let input = "x".repeat(128 * 1024);
    let _exec = t.exec_start(&container, &json!({"command": command, "input": input}));
    proc::until("it keeps its pipe locked", || dead.taken() == 1);
    assert_eq!(t.exec(&container, &["echo", "served"]), "served\n");
    let (clients, all_dead): (Vec<_>, Vec<_>) = attached.into_iter().unzip();
    drop(clients);
    // A child of an exec that has ended keeps the pipe locked of which the helper has the last end.
    let (last, _) = hold(PROGRAMS + 1);
    let script = format!(
        "exec 3<&0; read _; /attacker hold-input /m/dead{}/file <&3 & sleep 1",
        PROGRAMS + 1
    );
    let exec = t.exec_start(
        &container,
        &json!({"command": ["sh", "-c", script], "stdin": true}),
    );
    let mut ws = t.ws(&format!("/v1/execs/{}/attach?stdin=true", exec.id));
    for _ in 0..10 {
        ws.stdin(b"x\n");
    }
    let _exit = ws.exit();
    proc::until("its child is stuck", || last.taken() == 1);
    drop(ws);
    assert_eq!(t.exec(&container, &["echo", "served"]), "served\n");
    replace(&mut t);
    assert_eq!(t.exec(&container, &["echo", "served"]), "served\n");
    drop((all_dead, dead, last));
    t.remove(&container);
    drop(shared);
    t.finish();
}
