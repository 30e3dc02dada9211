//! Nothing that a container, a client or a file system does makes the engine wait for ever: helpers
//! that are stopped, programs that stop whoever enters, mounts that never answer, frozen cgroups.

use std::time::{Duration, Instant};

use littlebox_tests::dead_mount::DeadMount;
use littlebox_tests::oracle;
use littlebox_tests::prelude::*;

/// A bed whose starts may take two seconds.
fn hasty() -> Bed {
    Bed::builder().config("start_timeout_s = 2").build()
}

fn helper_pid(container: &Container) -> u32 {
    container.helper_pid.expect("it has a helper")
}

/// A container whose helper has been stopped, under a daemon that does not know it yet.
#[track_caller]
fn stopped_helper(t: &Bed) -> Container {
    let container = t.sleeper();
    proc::kill(helper_pid(&container), Signal::STOP);
    container
}

fn exec_request(container: &str, command: &[&str]) -> (String, Value) {
    let path = format!("/v1/containers/{container}/execs");
    (path, json!({ "command": command }))
}

#[test]
fn a_helper_that_is_stopped_is_noticed_and_taken_back() {
    let t = hasty();
    let container = stopped_helper(&t);
    let c = id(&container);
    let (path, exec) = exec_request(&c, &["sleep", "777"]);
    t.post_json(&path, &exec).problem(503, "helper_unreachable");
    proc::until("it is shown", || {
        t.inspect(&c).helper == Some(HelperCondition::Silent)
    });
    let _degraded = t.get("/v1/health").expect(503);
    assert!(proc::alive(pid1(&container)));
    proc::kill(helper_pid(&container), Signal::CONT);
    proc::eventually_within(Duration::from_secs(60), "it is taken back", || {
        t.inspect(&c).helper.is_none().then_some(())
    });
    let _ok = t.get("/v1/health").expect(200);
    assert_eq!(t.exec(&c, &["echo", "here"]), "here\n");
    // What its client was told has failed does not run.
    proc::until("the exec has been ended", || {
        t.exec(&c, &["ps", "-o", "args"])
            .lines()
            .all(|line| line != "sleep 777")
    });
    t.finish();
}

#[test]
fn stop_does_not_need_the_helper() {
    let t = hasty();
    let container = stopped_helper(&t);
    let c = id(&container);
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=60s"))
        .expect(200);
    assert_eq!(t.state(&c), ContainerState::Exited);
    assert!(!proc::alive(pid1(&container)));
    t.finish();
}

#[test]
fn a_forced_removal_does_not_need_the_helper() {
    let t = hasty();
    let container = stopped_helper(&t);
    let path = format!("/v1/containers/{}?force=true&wait=60s", id(&container));
    let _removed = t.delete(&path).expect(204);
    assert!(!proc::alive(pid1(&container)));
    t.finish();
}

#[test]
fn a_restart_does_not_need_the_helper_and_leaves_the_next_run_alone() {
    let t = hasty();
    let container = stopped_helper(&t);
    let c = id(&container);
    let before = pid1(&container);
    let _restarted = t
        .post_json(
            &format!("/v1/containers/{c}/restart"),
            &json!({"timeout_s": 1}),
        )
        .expect(200);
    let again = t.inspect(&c);
    assert_eq!(again.summary.state, ContainerState::Running);
    assert!(!proc::alive(before) && pid1(&again) != before);
    // Longer than the questions to the first helper may take.
    let deadline = Instant::now() + Duration::from_secs(12);
    while Instant::now() < deadline {
        assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(pid1(&t.inspect(&c)), pid1(&again));
    t.finish();
}

#[test]
fn files_of_a_container_whose_helper_is_silent_are_not_mounted_a_second_time() {
    let t = hasty();
    let container = stopped_helper(&t);
    let c = id(&container);
    let files = format!("/v1/containers/{c}/files?path=/etc");
    for _ in 0..2 {
        t.get(&files).problem(503, "helper_unreachable");
    }
    proc::kill(helper_pid(&container), Signal::CONT);
    // Before its silence is recorded it looks as if it had been taken back.
    proc::eventually_within(Duration::from_secs(60), "it is taken back", || {
        (t.get(&files).status() == 200).then_some(())
    });
    t.finish();
}

#[test]
fn a_change_that_names_a_dead_device_fails_in_time() {
    let t = hasty();
    let dead = DeadMount::new(t.dirs.base_path.join("dead"));
    let c = id(&t.sleeper());
    let limits = json!([{"device": dead.path.join("disk"), "read_bps": 1_000_000}]);
    let change = json!({"resources": {"io_limits": limits}});
    let path = format!("/v1/containers/{c}");
    t.send(&Request::new(Method::Patch, &path).json(&change))
        .problem(503, "unavailable");
    drop(dead);
    t.finish();
}

#[test]
fn a_signal_reaches_the_program_of_a_stopped_helper() {
    let t = hasty();
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    let container = t.start(&busybox(&["sh", "-c", script]));
    let c = id(&container);
    t.ready(&c);
    proc::kill(helper_pid(&container), Signal::STOP);
    let path = format!("/v1/containers/{c}/kill");
    // Which signals have no other way is told, not lost.
    let all = json!({"signal": "USR2", "all": true});
    t.post_json(&path, &all).problem(503, "helper_unreachable");
    let _sent = t.post_json(&path, &json!({"signal": "USR1"})).expect(204);
    proc::until("the program has ended", || !proc::alive(pid1(&container)));
    // To one that has ended none has anything left to do.
    let _sent = t.post_json(&path, &all).expect(204);
    proc::kill(helper_pid(&container), Signal::CONT);
    assert_eq!(code(&t.exit(&c)), Some(5));
    t.finish();
}

#[test]
fn a_program_that_stops_whoever_enters_holds_nobody_up() {
    let t = hasty();
    let stopper = "trap '' TERM; while :; do kill -STOP -1; done";
    let container = t.start(&busybox(&["sh", "-c", stopper]));
    let c = id(&container);
    let (path, exec) = exec_request(&c, &["sleep", "1000"]);
    // Now and then one is quick enough.
    let caught = (0..20).any(|_| {
        let answer = t.post_json(&path, &exec);
        assert!(matches!(answer.status(), 201 | 422), "{answer:?}");
        answer.status() == 422
    });
    assert!(caught);
    // The helper has not waited with it.
    assert!(t.inspect(&c).helper.is_none());
    let _none = t
        .post_json(
            &format!("/v1/containers/{c}/kill"),
            &json!({"signal": "USR1"}),
        )
        .expect(204);
    let before = Instant::now();
    let _removed = t
        .delete(&format!("/v1/containers/{c}?force=true&wait=60s"))
        .expect(204);
    assert!(before.elapsed() < Duration::from_secs(10) * proc::patience());
    t.finish();
}

#[test]
fn an_exec_that_is_starting_can_be_killed() {
    let t = Bed::builder().config("start_timeout_s = 600").build();
    let stopper = "trap '' TERM; while :; do kill -STOP -1; done";
    let c = id(&t.start(&busybox(&["sh", "-c", stopper])));
    let (path, exec) = exec_request(&c, &["sleep", "1000"]);
    let mut known = 0;
    // Now and then one is quick enough, and runs: that one is killed as well.
    let caught = (0..20).any(|_| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| t.post_json(&path, &exec));
            proc::until("it is there", || t.inspect(&c).execs.len() > known);
            known += 1;
            std::thread::sleep(Duration::from_millis(200));
            let newest = t.inspect(&c).execs.pop().expect("one is there");
            let signal = format!("/v1/execs/{newest}/signal");
            proc::until("it is killed", || {
                let killed = t.post_json(&signal, &json!({"signal": "KILL"}));
                killed.status() == 204
            });
            let answer = asked.join().unwrap();
            assert!(matches!(answer.status(), 201 | 422), "{answer:?}");
            answer.status() == 422
        })
    });
    assert!(caught);
    assert!(t.inspect(&c).helper.is_none());
    t.finish();
}

#[test]
fn a_start_into_the_processes_of_one_that_stops_whoever_enters_fails_in_time() {
    let t = hasty();
    let stopper = "trap '' TERM; while :; do kill -STOP -1; done";
    let host = id(&t.start(&busybox(&["sh", "-c", stopper])));
    // In a user namespace of its own it could not be signalled.
    let of_host = format!("container:{host}");
    let joins = json!({"namespaces": {"pid": of_host, "user": of_host}});
    // Now and then one is quick enough.
    let caught = (0..20).any(|_| {
        let config = with(busybox(&["sleep", "1000"]), joins.clone());
        let answer = t.post_json("/v1/containers?start=true", &config);
        assert!(matches!(answer.status(), 201 | 422), "{answer:?}");
        answer.status() == 422
    });
    assert!(caught);
    assert!(t.inspect(&host).helper.is_none());
    for container in t.list() {
        let path = format!("/v1/containers/{}?force=true&wait=60s", container.id);
        let _removed = t.delete(&path).expect(204);
    }
    t.finish();
}

/// Holds a write lease on a file until it is dropped (fcntl(2), F_SETLEASE): whoever opens the file
/// waits, for as long as `/proc/sys/fs/lease-break-time` says.
struct Leased(std::process::Child);

impl Leased {
    fn new(path: &std::path::Path) -> Self {
        let script = "import fcntl, signal, sys\n\
             signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
             file = open(sys.argv[1], 'r+')\n\
             fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
             print('leased', flush=True)\n\
             sys.stdin.read()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 7];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_lease_on_a_programs_file_holds_nobody_up() {
    let t = hasty();
    let lent = t.dirs.base_path.join("lent");
    std::fs::create_dir(&lent).unwrap();
    let program = lent.join("program");
    std::fs::copy("/bin/busybox", &program).unwrap();
    let mounts = json!({"mounts": [{"type": "bind", "source": lent, "destination": "/lent"}]});
    let c = id(&t.sleeper_with(mounts.clone()));
    let lease = Leased::new(&program);
    let before = Instant::now();
    let start = with(busybox(&["/lent/program", "true"]), mounts);
    let problem = t
        .post_json("/v1/containers?start=true", &start)
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("exec"), "{problem:?}");
    let (path, exec) = exec_request(&c, &["/lent/program", "true"]);
    t.post_json(&path, &exec).problem(422, "start_failed");
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    let path = format!("/v1/containers/{c}?force=true&wait=60s");
    let _removed = t.delete(&path).expect(204);
    assert!(before.elapsed() < Duration::from_secs(20) * proc::patience());
    drop(lease);
    t.finish();
}

#[test]
fn a_container_that_was_frozen_from_outside_can_be_stopped() {
    let t = hasty();
    let container = t.sleeper();
    let c = id(&container);
    oracle::freeze(&c, pid1(&container));
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=60s"))
        .expect(200);
    assert_eq!(t.state(&c), ContainerState::Exited);
    t.finish();
}

#[test]
fn a_start_from_a_dead_file_system_fails_in_time() {
    let t = hasty();
    let dead = DeadMount::new(t.dirs.base_path.join("dead"));
    let root = json!({"rootfs": format!("dir:{}/root", dead.path.display()), "command": ["true"]});
    let source = dead.path.join("source");
    let mounts = json!([{"type": "bind", "source": source, "destination": "/m"}]);
    let bind = with(busybox(&["true"]), json!({ "mounts": mounts }));
    let bundle = json!({"bundle": dead.path.join("bundle")});
    for config in [root, bind, bundle] {
        t.post_json("/v1/containers?start=true", &config)
            .problem(503, "unavailable");
    }
    drop(dead);
    t.finish();
}

#[test]
fn many_starts_from_a_dead_file_system_leave_room_for_others() {
    let t = hasty();
    let dead = DeadMount::new(t.dirs.base_path.join("dead"));
    let config =
        json!({"rootfs": format!("dir:{}/root", dead.path.display()), "command": ["true"]});
    let codes: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| t.post_json("/v1/containers?start=true", &config)))
            .collect();
        // Files, logs and health have threads all the same.
        assert_eq!(t.list().len(), 0);
        let _ok = t.get("/v1/health").expect(200);
        let answers = starts.into_iter().map(|start| start.join().unwrap());
        answers
            .map(|a| a.expect(503).json::<Problem>().code)
            .collect()
    });
    let of = |code: &str| codes.iter().filter(|c| *c == code).count();
    assert_eq!(of("unavailable") + of("resources_exhausted"), 100);
    assert!(
        of("unavailable") > 0 && of("resources_exhausted") > 0,
        "{codes:?}"
    );
    drop(dead);
    let container = t.sleeper();
    assert_eq!(t.exec(&id(&container), &["echo", "on"]), "on\n");
    t.finish();
}

#[test]
fn a_start_waits_for_those_who_copy_files_and_not_for_ever() {
    let t = Bed::new();
    let make = [
        "sh",
        "-c",
        "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null",
    ];
    let container = t.start(&busybox(&make));
    let c = id(&container);
    assert_eq!(code(&t.exit(&c)), Some(0));
    let files = format!("/v1/containers/{c}/files?path=/big");
    let start = format!("/v1/containers/{c}/start");
    // Nobody reads the first; the second shares its mount.
    let copy = t.stream(&files);
    let second = t.get(&files).expect(200);
    assert!(second.body.len() > 64 << 20);
    t.post(&start).problem(409, "invalid_state");
    assert_eq!(t.state(&c), ContainerState::Exited);
    drop(copy);
    let _started = t.post(&start).expect(200);
    assert_eq!(code(&t.exit(&c)), Some(0));
    // A copy that began while the program ran counts as well.
    let runs = id(&t.sleeper());
    let make = "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null";
    let _made = t.exec(&runs, &["sh", "-c", make]);
    let copy = t.stream(&format!("/v1/containers/{runs}/files?path=/big"));
    let _stopped = t
        .post_json(
            &format!("/v1/containers/{runs}/stop?wait=20s"),
            &json!({"timeout_s": 0}),
        )
        .expect(200);
    let start = format!("/v1/containers/{runs}/start");
    t.post(&start).problem(409, "invalid_state");
    drop(copy);
    let _started = t.post(&start).expect(200);
    t.finish();
}

#[test]
fn execs_that_fail_are_forgotten_like_others() {
    let t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let (path, exec) = exec_request(&c, &["/nothing/there"]);
    for _ in 0..70 {
        t.post_json(&path, &exec).problem(422, "start_failed");
    }
    assert_eq!(t.inspect(&c).execs.len(), 64);
    let directory = t.dirs.state.join("containers").join(&c).join("execs");
    let logs = std::fs::read_dir(&directory).unwrap().flatten();
    let logs = logs.filter(|e| e.file_name().to_string_lossy().ends_with(".log"));
    assert!(logs.count() <= 64, "{}", directory.display());
    t.finish();
}

#[test]
fn an_exec_is_started_once_and_its_warnings_are_told() {
    let t = Bed::new();
    // More than /proc/sys/fs/nr_open lets anybody have.
    let rlimits = json!({"nofile": {"soft": 1024, "hard": 4_000_000_000u32}});
    let container = t.sleeper_with(json!({ "rlimits": rlimits }));
    let c = id(&container);
    let execs: Vec<Exec> = (0..50)
        .map(|_| t.exec_with(&c, &json!({"command": ["true"]})))
        .collect();
    for exec in &execs {
        let told = exec.warnings.iter().any(|w| w.contains("nofile"));
        assert!(told, "{exec:?}");
    }
    let events = t.events();
    for exec in &execs {
        let id = exec.id.to_string();
        let of = events.iter().filter(|e| e.id == id);
        let kinds: Vec<_> = of.map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["exec.started", "exec.exited"]);
    }
    t.finish();
}
