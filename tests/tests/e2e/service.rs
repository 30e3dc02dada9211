//! The daemon as a service: readiness, socket activation, configuration, several side by side.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use littlebox_tests::daemon::{Daemon, Dirs, Options, littleboxd};
use littlebox_tests::oracle;
use littlebox_tests::prelude::*;

#[test]
fn it_says_ready_only_when_the_socket_answers_and_stopping_when_it_ends() {
    let dirs = Dirs::new(None);
    let path = dirs.base_path.join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let options = Options {
        env: vec![("NOTIFY_SOCKET".into(), path.to_str().unwrap().into())],
        ..Options::default()
    };
    let daemon = Daemon::spawn(&dirs, &options);
    let next = || {
        let mut buf = [0u8; 4096];
        let n = notify.recv(&mut buf).expect("a word to systemd");
        String::from_utf8_lossy(&buf[..n]).into_owned()
    };
    let until = |word: &str| {
        for _ in 0..20 {
            let message = next();
            if message.lines().any(|l| l == word) {
                return;
            }
        }
        panic!("{word} never came");
    };
    until("READY=1");
    let client = littlebox_tests::http::Client::new(&dirs.socket);
    assert_eq!(client.send(&Request::new(Method::Get, "/v1")).status(), 200);
    proc::kill(daemon.pid(), Signal::TERM);
    until("STOPPING=1");
    assert!(daemon.wait().success());
}

/// A `systemctl` that says of the machine what is written in the file `machine` beside it.
fn fake_systemctl(dirs: &Dirs) -> String {
    let bin = dirs.base_path.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = bin.join("systemctl");
    let text = "#!/bin/sh\n[ \"$*\" = is-system-running ] && cat \"${0%/*}/machine\"\nexit 1\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn with_the_machine_containers_end_by_their_own_signal_and_policies_count_afterwards() {
    let mut t = Bed::new();
    let notify = UnixDatagram::bind(t.dirs.base_path.join("notify")).unwrap();
    let (path, socket) = (fake_systemctl(&t.dirs), t.dirs.base_path.join("notify"));
    let machine = t.dirs.base_path.join("bin/machine");
    let env = [
        ("PATH", path.as_str()),
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    t.options.env.extend(env);
    std::fs::write(&machine, "running\n").unwrap();
    t.stop();
    t.start_again();
    let script = "trap 'exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let more = json!({"stop_signal": "INT"});
    let no = id(&t.start(&with(busybox(&["sh", "-c", script]), more)));
    t.ready(&no);
    let deaf = busybox(&[
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 1; done",
    ]);
    let deaf = id(&t.start(&with(deaf, json!({"stop_timeout_s": 1}))));
    t.ready(&deaf);
    let policies = ["on-failure", "always", "unless-stopped"];
    let policies = policies.map(|p| id(&t.sleeper_with(json!({"restart": {"policy": p}}))));
    let by_hand = id(&t.sleeper_with(json!({"restart": {"policy": "unless-stopped"}})));
    let _stopped = t
        .post(&format!("/v1/containers/{by_hand}/stop?wait=20s"))
        .expect(200);

    // The daemon alone: nothing happens to them.
    t.stop();
    t.start_again();
    assert_eq!(t.state(&no), ContainerState::Running);

    let running: Vec<u32> = t.list().iter().filter_map(|c| c.pid).collect();
    assert_eq!(running.len(), 5);
    std::fs::write(&machine, "stopping\n").unwrap();
    t.stop();
    assert!(!running.iter().any(|pid| proc::alive(*pid)));
    std::fs::write(&machine, "running\n").unwrap();
    t.start_again();
    assert_eq!(code(&t.exit(&no)), Some(3));
    let exit = t.exit(&deaf);
    assert!(matches!(
        exit.status,
        ExitStatus::Signaled { signal: 9, .. }
    ));
    for c in &policies {
        proc::until("its policy has started it", || {
            t.state(c) == ContainerState::Running
        });
    }
    for c in [&no, &deaf, &by_hand] {
        assert_eq!(t.state(c), ContainerState::Exited);
    }
    notify.set_nonblocking(true).unwrap();
    let mut said = String::new();
    let mut buf = [0u8; 4096];
    while let Ok(n) = notify.recv(&mut buf) {
        said += &String::from_utf8_lossy(&buf[..n]);
    }
    assert!(said.contains("EXTEND_TIMEOUT_USEC="), "{said}");
    t.finish();
}

#[test]
fn the_machine_goes_down_whatever_its_containers_do() {
    let mut t = Bed::new();
    let notify = t.dirs.base_path.join("notify");
    let _notify = UnixDatagram::bind(&notify).unwrap();
    let (path, socket) = (fake_systemctl(&t.dirs), notify.to_str().unwrap().to_owned());
    let machine = t.dirs.base_path.join("bin/machine");
    let env = [("PATH", path), ("NOTIFY_SOCKET", socket)];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    t.options.env.extend(env);
    std::fs::write(&machine, "running\n").unwrap();
    t.stop();
    t.start_again();
    let grace = json!({"stop_timeout_s": 1});
    let silent = t.sleeper_with(grace.clone());
    proc::kill(silent.helper_pid.expect("it runs"), Signal::STOP);
    let frozen = t.sleeper_with(grace.clone());
    oracle::freeze(&id(&frozen), pid1(&frozen));
    let stopper = "trap '' TERM; while :; do kill -STOP -1; done";
    let stopper = t.start(&with(busybox(&["sh", "-c", stopper]), grace));
    std::fs::write(&machine, "stopping\n").unwrap();
    t.stop();
    for container in [&silent, &frozen, &stopper] {
        assert!(!proc::alive(pid1(container)), "{container:?}");
    }
    std::fs::write(&machine, "running\n").unwrap();
    t.start_again();
    for container in [silent, frozen, stopper] {
        assert_eq!(t.state(&id(&container)), ContainerState::Exited);
    }
    t.finish();
}

#[test]
fn a_socket_handed_over_by_systemd_is_used() {
    let t = Bed::builder().socket_activation().build();
    assert_eq!(t.sh("echo activated"), "activated\n");
    assert!(t.dirs.socket.exists());
    t.finish();
}

#[test]
fn its_own_socket_goes_when_it_stops_and_a_stale_one_is_replaced() {
    let mut t = Bed::new();
    t.stop();
    assert!(!t.dirs.socket.exists(), "the socket is still there");
    t.start_again();
    t.crash();
    assert_eq!(t.sh("echo back"), "back\n");
    t.finish();
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused() {
    let t = Bed::new();
    let out = littleboxd(&[
        "--socket",
        t.dirs.base_path.join("other-sock").to_str().unwrap(),
        "--state-dir",
        t.dirs.state.to_str().unwrap(),
        "--run-dir",
        t.dirs.run_path.join("run").to_str().unwrap(),
    ]);
    assert!(!out.status.success());
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(!stderr.is_empty());
    assert_eq!(t.sh("echo undisturbed"), "undisturbed\n");
    t.finish();
}

#[test]
fn two_daemons_side_by_side_do_not_see_each_other() {
    let (a, b) = (Bed::new(), Bed::new());
    let config = with(sleeper_config(), json!({"name": "same-name"}));
    let (in_a, in_b) = (a.start(&config), b.start(&config));
    assert_ne!(id(&in_a), id(&in_b));
    assert_ne!(a.subject.cgroup_parent, b.subject.cgroup_parent);
    a.remove("same-name");
    assert!(proc::alive(pid1(&in_b)));
    assert_eq!(b.exec("same-name", &["echo", "mine"]), "mine\n");
    a.finish();
    assert!(proc::alive(pid1(&in_b)));
    b.finish();
}

#[test]
fn check_config_accepts_a_good_file_and_names_what_is_wrong_in_a_bad_one() {
    let dirs = Dirs::new(None);
    std::fs::create_dir_all(&dirs.base_path).unwrap();
    let file = dirs.base_path.join("littlebox.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let out = littleboxd(&["--check-config", "--config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned()
            + &String::from_utf8_lossy(&out.stdout);
        (out.status.success(), said)
    };
    assert!(check("").0);
    let socket = dirs.socket.to_str().unwrap();
    let (good, said) = check(&format!("socket = \"{socket}\"\n"));
    assert!(good, "{said}");
    let (good, said) = check("sokcet = \"/x\"\n");
    assert!(!good && said.contains("sokcet"), "{said}");
    let (good, said) = check("socket = 7\n");
    assert!(!good && said.contains("socket"), "{said}");
    let (good, said) = check("socket = \n");
    assert!(!good && !said.is_empty());
    std::fs::remove_file(&file).unwrap();
    let out = littleboxd(&["--check-config", "--config", file.to_str().unwrap()]);
    assert!(!out.status.success());
    assert!(!dirs.state.exists(), "a check makes nothing");
}

#[test]
fn a_configuration_file_is_used_and_flags_win() {
    let dirs = Dirs::new(None);
    let elsewhere = dirs.base_path.join("from-file");
    let options = Options {
        config: Some(format!(
            "socket = \"{0}/ignored\"\nstate_dir = \"{0}/ignored\"\n",
            elsewhere.display()
        )),
        ..Options::default()
    };
    let daemon = Daemon::start(&dirs, &options);
    assert!(!elsewhere.exists());
    assert!(daemon.stop().success());
}

#[test]
fn the_log_is_json_when_asked_and_names_the_peer_of_each_request() {
    let dirs = Dirs::new(None);
    let options = Options {
        json_log: true,
        ..Options::default()
    };
    let daemon = Daemon::start(&dirs, &options);
    let client = littlebox_tests::http::Client::new(&dirs.socket);
    let _missing = client.send(&Request::new(Method::Get, "/v1/containers/nobody"));
    assert!(daemon.stop().success());
    let log = dirs.log_text();
    let records: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    assert!(
        records
            .iter()
            .any(|r| r.to_string().contains("/v1/containers/nobody")
                && r.to_string().contains("uid")),
        "{log}"
    );
}

#[test]
fn the_socket_is_for_root_and_its_group() {
    let t = Bed::new();
    let mode = std::fs::metadata(&t.dirs.socket)
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o660, "{mode:o}");
    t.finish();
}

#[test]
fn a_graceful_stop_does_not_wait_for_slow_clients() {
    use std::io::Write;
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let mut half = t.client.connect().unwrap();
    half.write_all(b"GET /v1/con").unwrap();
    let _follow = t.stream(&format!("/v1/containers/{c}/logs?follow=true"));
    let _events = t.stream("/v1/events");
    let _attached = t.ws(&format!("/v1/containers/{c}/attach"));
    let begin = Instant::now();
    t.stop();
    assert!(
        begin.elapsed() < Duration::from_secs(12),
        "{:?}",
        begin.elapsed()
    );
    t.start_again();
    t.finish();
}

/// Of the harness itself: whatever panics before there is a [`Bed`] to clean up.
#[test]
fn a_test_that_panics_leaves_no_daemon() {
    let dirs = Dirs::new(None);
    let pid = std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            let daemon = Daemon::start(&dirs, &Options::default());
            std::panic::panic_any(daemon.pid());
        });
        let panic = test.join().expect_err("it panicked");
        *panic.downcast::<u32>().expect("the PID")
    });
    assert!(!proc::alive(pid), "the daemon {pid} runs on");
}
