//! Recovery when not all is well: rows that do not know what runs, helpers that cannot be asked, a
//! machine without descriptors. No container is ended for what the daemon cannot do or know.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use littlebox_protocol::{Framed, FromHelper, HELPER_SOCKET, Launched, Reply, Status};
use littlebox_tests::prelude::*;
use littlebox_tests::{oracle, roots};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// SQL on the database of a daemon that does not run.
#[track_caller]
fn sql(t: &Bed, statement: &str) {
    let database = oracle::database(&t.dirs.state).expect("a database");
    roots::run(Command::new("sqlite3").arg(database).arg(statement));
}

/// Starts a container so that its row does not know: as if the daemon had been killed before the
/// commit. The daemon is gone afterwards.
#[track_caller]
fn start_unrecorded(t: &mut Bed, container: &str) -> Container {
    t.stop();
    sql(t, "CREATE TABLE before AS SELECT * FROM containers");
    t.start_again();
    let _started = t
        .post(&format!("/v1/containers/{container}/start"))
        .expect(200);
    let started = t.inspect(container);
    t.kill9();
    let back = "UPDATE containers SET (state, detail) = \
                (SELECT state, detail FROM before WHERE before.id = containers.id); \
                DROP TABLE before";
    sql(t, back);
    started
}

fn run_dir(t: &Bed, container: &str) -> PathBuf {
    t.dirs.run_path.join("run/c").join(container)
}

fn helper_pid(container: &Container) -> u32 {
    container.helper_pid.expect("it has a helper")
}

#[test]
fn a_start_that_was_not_recorded_is_found_and_taken_back() {
    let mut t = Bed::new();
    let c = id(&t.create(&sleeper_config()));
    let started = start_unrecorded(&mut t, &c);
    t.start_again();
    let now = t.inspect(&c);
    assert_eq!(now.summary.state, ContainerState::Running);
    assert_eq!(now.summary.pid, started.summary.pid);
    assert_eq!(t.exec(&c, &["echo", "here"]), "here\n");
    t.delete(&format!("/v1/containers/{c}"))
        .problem(409, "invalid_state");
    t.remove(&c);
    assert!(!proc::alive(pid1(&started)));
    t.finish();
}

#[test]
fn a_restart_that_was_not_recorded_is_found_and_taken_back() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=20s"))
        .expect(200);
    let started = start_unrecorded(&mut t, &c);
    t.start_again();
    let now = t.inspect(&c);
    assert_eq!(now.summary.state, ContainerState::Running);
    assert_eq!(now.summary.pid, started.summary.pid);
    assert!(now.summary.exit.is_none() && now.summary.finished_at.is_none());
    let begun = now.summary.started_at.expect("it has begun");
    assert!(begun >= now.summary.created_at);
    t.finish();
}

#[test]
fn a_run_that_was_not_recorded_ends_with_its_true_code() {
    let mut t = Bed::new();
    let go = t.dirs.base_path.join("go");
    std::fs::create_dir(&go).unwrap();
    let script = "while [ ! -e /m/go ]; do sleep 0.05; done; exit 7";
    let mount = json!([{"type": "bind", "source": go, "destination": "/m"}]);
    let config = with(busybox(&["sh", "-c", script]), json!({"mounts": mount}));
    let c = id(&t.create(&config));
    let started = start_unrecorded(&mut t, &c);
    std::fs::write(go.join("go"), "").unwrap();
    proc::until("it has ended", || !proc::alive(pid1(&started)));
    proc::until("its helper too", || !proc::alive(helper_pid(&started)));
    t.start_again();
    assert_eq!(t.state(&c), ContainerState::Exited);
    assert_eq!(code(&t.exit(&c)), Some(7));
    let kinds = t.events_of(&started);
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    assert_eq!(count("container.exited"), 1, "{kinds:?}");
    t.finish();
}

#[test]
fn a_removal_ends_what_is_left_in_the_cgroup() {
    let t = Bed::new();
    let container = t.create(&busybox(&["true"]));
    let cgroup = format!("{}/{}", t.subject.cgroup_parent, id(&container));
    let mut left = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut dirs = Vec::new();
    for mount in oracle::cgroup_mounts() {
        // Where a process may enter a new directory without more ado.
        let freezer = mount.ends_with("freezer") || mount.join("cgroup.controllers").exists();
        if freezer {
            let dir = mount.join(cgroup.trim_start_matches('/'));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cgroup.procs"), left.id().to_string()).unwrap();
            dirs.push(dir);
        }
    }
    let path = format!("/v1/containers/{}?wait=30s", id(&container));
    let _none = t.delete(&path).expect(204);
    assert!(!left.wait().unwrap().success(), "it was not killed");
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    t.finish();
}

/// A bed with one container whose helper is stopped, and a daemon that was started after that.
#[track_caller]
fn silent() -> (Bed, Container) {
    let mut t = Bed::new();
    let container = t.sleeper();
    t.kill9();
    proc::kill(helper_pid(&container), Signal::STOP);
    t.start_again();
    (t, container)
}

#[test]
fn a_silent_helper_is_shown_and_its_container_goes_on() {
    let (t, container) = silent();
    let c = id(&container);
    let now = t.inspect(&c);
    assert_eq!(now.summary.state, ContainerState::Running);
    assert_eq!(now.helper, Some(HelperCondition::Silent));
    assert!(proc::alive(pid1(&container)));
    let health: Health = t.get("/v1/health").expect(503).json();
    assert_ne!(health.checks["helpers"], "ok");
    let metrics = t.get("/metrics").expect(200).text();
    assert!(
        metrics.contains("littlebox_helpers_unreachable 1"),
        "{metrics}"
    );
    t.post_json(
        &format!("/v1/containers/{c}/execs"),
        &json!({"command": ["true"]}),
    )
    .problem(503, "helper_unreachable");
    proc::kill(helper_pid(&container), Signal::CONT);
    proc::until("it is taken back", || t.inspect(&c).helper.is_none());
    assert_eq!(t.exec(&c, &["echo", "still here"]), "still here\n");
    assert_eq!(t.inspect(&c).summary.pid, container.summary.pid);
    let _ok = t.get("/v1/health").expect(200);
    t.finish();
}

#[test]
fn a_container_with_a_silent_helper_can_be_stopped_and_removed() {
    let (t, container) = silent();
    let c = id(&container);
    let _stopped = t
        .post(&format!("/v1/containers/{c}/stop?wait=30s"))
        .expect(200);
    assert_eq!(t.state(&c), ContainerState::Exited);
    assert!(!proc::alive(pid1(&container)));
    t.finish();
    let (t, container) = silent();
    t.remove(&id(&container));
    assert!(!proc::alive(pid1(&container)));
    t.finish();
}

#[test]
fn a_start_that_was_not_recorded_can_be_removed_though_its_helper_is_silent() {
    let mut t = Bed::new();
    let c = id(&t.create(&sleeper_config()));
    let started = start_unrecorded(&mut t, &c);
    proc::kill(helper_pid(&started), Signal::STOP);
    t.start_again();
    let now = t.inspect(&c);
    assert_eq!(now.summary.state, ContainerState::Running);
    assert_eq!(now.helper, Some(HelperCondition::Silent));
    t.remove(&c);
    assert!(!proc::alive(pid1(&started)) && !proc::alive(helper_pid(&started)));
    t.finish();
}

/// A helper of another version, as far as a daemon can see.
struct Foreign {
    over: std::sync::Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Foreign {
    fn listen(path: &Path, container: &str) -> Self {
        // Not for the daemon that is started next.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let listener = socket.unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&listener, 8).unwrap();
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let (ends, container) = (over.clone(), container.to_owned());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
                    Ok(connection) => answer(&connection, &container),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { over, thread }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn answer(connection: &OwnedFd, container: &str) {
    let status = Status {
        version: u32::MAX,
        id: container.to_owned(),
        launched: Launched::default(),
        exit: None,
        running_execs: Vec::new(),
        frozen: false,
        oom_kills: 0,
    };
    let mut request = [0; 4096];
    let (length, _) = rustix::net::recv(connection, &mut request, RecvFlags::empty()).unwrap();
    let Ok(Framed::Inline(request)) = serde_json::from_slice::<Framed<Value>>(&request[..length])
    else {
        return;
    };
    let reply = FromHelper::Reply {
        seq: request["seq"].as_u64().expect("a number"),
        reply: Reply::Status(Box::new(status)),
    };
    let message = serde_json::to_vec(&Framed::Inline(reply)).unwrap();
    rustix::net::send(connection, &message, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn a_helper_of_another_version_keeps_its_container() {
    let mut t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    t.kill9();
    let socket = run_dir(&t, &c).join(HELPER_SOCKET);
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    let foreign = Foreign::listen(&socket, &c);
    t.start_again();
    let now = t.inspect(&c);
    assert_eq!(now.summary.state, ContainerState::Running);
    assert_eq!(now.helper, Some(HelperCondition::Foreign));
    assert!(proc::alive(pid1(&container)));
    std::fs::rename(&aside, &socket).unwrap();
    foreign.end();
    proc::until("its own helper is taken back", || {
        t.inspect(&c).helper.is_none()
    });
    assert_eq!(t.exec(&c, &["echo", "still here"]), "still here\n");
    t.finish();
}

#[test]
fn a_daemon_without_descriptors_ends_no_container() {
    let mut t = Bed::new();
    let containers: Vec<Container> = (0..24).map(|_| t.sleeper()).collect();
    let enough = t.descriptors();
    t.kill9();
    // Fewer and fewer, until they do not do for a connection and a pidfd to each.
    let mut unanswered = 0;
    for missing in (20..enough).step_by(8) {
        let limit = format!("ulimit -Sn {}; exec \"$@\"", enough - missing);
        t.options.surroundings = ["sh", "-c", &limit, "sh"].map(str::to_owned).to_vec();
        let began = t.dirs.log_text().len();
        let mut daemon = littlebox_tests::Daemon::spawn(&t.dirs, &t.options);
        proc::eventually_within(Duration::from_secs(60), "it serves or refuses", || {
            let ready = t.dirs.log_text()[began..].contains("ready socket");
            (ready || !daemon.is_running()).then_some(())
        });
        let log = t.dirs.log_text()[began..].to_owned();
        for c in &containers {
            assert!(proc::alive(pid1(c)), "{log}");
        }
        unanswered += log.matches("a helper does not answer").count();
        daemon.kill9();
        if unanswered > 0 {
            break;
        }
    }
    assert!(unanswered > 0, "it had enough descriptors");
    t.options.surroundings.clear();
    t.start_again();
    for c in &containers {
        let now = t.inspect(&id(c));
        assert_eq!(now.summary.state, ContainerState::Running);
        assert_eq!(now.summary.pid, c.summary.pid);
    }
    t.finish();
}

/// The limit of processes of a container, as the kernel has it.
fn kernel_limit(container: &Container) -> String {
    let file = match container.cgroups.get("pids") {
        Some(dir) => Path::new(dir).join("pids.max"),
        None => Path::new(&container.cgroups["unified"]).join("pids.max"),
    };
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[test]
fn limits_of_a_patch_that_was_not_recorded_are_set_back() {
    let mut t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_CRASH", "patch.written")
        .build();
    let container = t.sleeper_with(json!({"resources": {"pids_limit": 50}}));
    let c = id(&container);
    let patch = Request::new(Method::Patch, format!("/v1/containers/{c}"))
        .json(&json!({"resources": {"pids_limit": 20}}));
    assert!(t.client.try_send(&patch).is_err());
    t.wait_crashed();
    assert_eq!(kernel_limit(&container), "20");
    t.options
        .env
        .retain(|(name, _)| name != "LITTLEBOX_TEST_CRASH");
    t.start_again();
    assert_eq!(t.inspect(&c).config.resources.pids_limit, Some(50));
    assert_eq!(kernel_limit(&container), "50");
    t.finish();
}

#[test]
fn a_patch_whose_name_is_taken_changes_nothing_else() {
    let t = Bed::new();
    t.create(&with(busybox(&["true"]), json!({"name": "taken"})));
    let container = t.sleeper_with(json!({"name": "mine", "resources": {"pids_limit": 50}}));
    let patch = Request::new(Method::Patch, "/v1/containers/mine".to_owned())
        .json(&json!({"name": "taken", "labels": {"a": "b"}, "resources": {"pids_limit": 20}}));
    t.send(&patch).problem(409, "name_in_use");
    let now = t.inspect("mine");
    assert!(now.summary.labels.is_empty());
    assert_eq!(now.config.resources.pids_limit, Some(50));
    assert_eq!(kernel_limit(&container), "50");
    // The name that it did not get is not its own either, and the one that it has is.
    let name = |from: &str, to: &str| {
        let path = format!("/v1/containers/{from}");
        t.send(&Request::new(Method::Patch, path).json(&json!({"name": to})))
    };
    let _ok = name("mine", "other").expect(200);
    let _ok = name("taken", "mine").expect(200);
    let _ok = name("other", "taken").expect(200);
    t.finish();
}

#[test]
fn without_inodes_no_name_is_taken_by_a_container_that_is_not_there() {
    let mut t = Bed::builder().state_size(8 << 20).build();
    let remount = |inodes: u64| {
        let options = format!("remount,nr_inodes={inodes}");
        roots::run(
            Command::new("mount")
                .args(["-o", &options])
                .arg(&t.dirs.state),
        );
    };
    let space = rustix::fs::statvfs(&t.dirs.state).unwrap();
    remount(space.f_files - space.f_ffree);
    let config = with(busybox(&["true"]), json!({"name": "mine"}));
    let refused = t.post_json("/v1/containers", &config);
    refused.problem(507, "no_space");
    let health: Health = t.get("/v1/health").expect(503).json();
    assert_ne!(health.checks["state_dir"], "ok");
    remount(space.f_files);
    t.crash();
    assert!(t.list().is_empty());
    assert_eq!(name(&t.create(&config)), "mine");
    t.finish();
}

#[test]
fn a_hangup_does_not_end_the_daemon() {
    let t = Bed::new();
    proc::kill(t.pid(), Signal::HUP);
    proc::until("it says so", || t.dirs.log_text().contains("SIGHUP"));
    let _ok = t.get("/v1/health").expect(200);
    t.finish();
}

#[test]
fn a_full_disk_is_told_by_health_and_does_not_hold_removals() {
    let t = Bed::builder().state_size(8 << 20).build();
    let containers: Vec<Container> = (0..8).map(|_| t.create(&busybox(&["true"]))).collect();
    let filler = t.dirs.state.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    let health: Health = t.get("/v1/health").expect(503).json();
    assert_ne!(health.checks["state_dir"], "ok", "{health:?}");
    for container in &containers {
        let path = format!("/v1/containers/{}?wait=30s", id(container));
        let _none = t.delete(&path).expect(204);
    }
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    proc::until("the room is kept again", || {
        t.get("/v1/health").status() == 200
    });
    t.finish();
}

#[test]
fn a_daemon_whose_writer_panics_ends_and_the_next_takes_its_containers_back() {
    let mut t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_PANIC", "store.commit:40")
        .build();
    let container = t.sleeper();
    // Each writes to the database.
    let health = Request::new(Method::Get, "/v1/health".to_owned());
    let alive = (0..100).all(|_| t.client.try_send(&health).is_ok());
    assert!(!alive, "it goes on without a writer");
    t.wait_crashed();
    let log = t.dirs.log_text();
    assert!(log.contains("part=\"database writer\""), "{log}");
    t.options
        .env
        .retain(|(name, _)| name != "LITTLEBOX_TEST_PANIC");
    t.start_again();
    let now = t.inspect(&id(&container));
    assert_eq!(now.summary.pid, container.summary.pid);
    t.finish();
}

#[test]
fn an_exec_of_a_container_whose_end_was_recorded_has_ended_too() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let exec = t.exec_start(&c, &json!({"command": ["sleep", "1000"]}));
    let exec = exec.id.to_string();
    let _stopped = t
        .post_json(
            &format!("/v1/containers/{c}/stop"),
            &json!({"timeout_s": 0}),
        )
        .expect(200);
    let _ended = t.exec_wait(&exec);
    t.kill9();
    // As a daemon leaves it that dies between the one and the other.
    let running = "UPDATE execs SET state = 'running', detail = json_set(detail, \
                   '$.state', 'running', '$.exit', NULL, '$.finished_at', NULL)";
    sql(&t, running);
    t.start_again();
    let exec = t.exec_wait(&exec);
    assert_eq!(exec.state, ExecState::Exited);
    let how = exec.exit.expect("it ended").status;
    assert!(matches!(how, ExitStatus::Unknown { .. }), "{how:?}");
    t.finish();
}
