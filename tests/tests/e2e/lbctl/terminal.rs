//! The command line on a terminal.

use littlebox_tests::prelude::*;

use super::{root, text};

#[test]
fn an_interactive_shell_feels_like_one() {
    let t = Bed::new();
    let mut pty = t.lbctl_pty(&["run", "--rm", "-it", &root(), "sh"]);
    pty.until("# ");
    assert!(pty.is_raw());
    pty.send(b"stty size; tty\r");
    pty.until("24 80");
    pty.resize((40, 100));
    std::thread::sleep(Duration::from_millis(200));
    pty.send(b"stty size\r");
    pty.until("40 100");
    pty.send(b"sleep 1000\r");
    std::thread::sleep(Duration::from_millis(200));
    pty.send(b"\x03");
    pty.send(b"echo $((6*7))\r");
    pty.until("42");
    pty.send(b"exit 7\r");
    assert_eq!(pty.wait(), 7);
    assert!(!pty.is_raw(), "the terminal was not restored");
    proc::until("it is gone", || t.list().is_empty());
    t.finish();
}

#[test]
fn ctrl_p_ctrl_q_detaches_and_attach_comes_back() {
    let t = Bed::new();
    let mut pty = t.lbctl_pty(&["run", "-it", "--name", "shell", &root(), "sh"]);
    pty.until("# ");
    pty.send(b"X=kept\r");
    pty.until("X=kept");
    pty.send(b"\x10\x11");
    assert_eq!(pty.wait(), 0, "{}", pty.text());
    assert!(!pty.is_raw());
    assert_eq!(t.state("shell"), ContainerState::Running);
    let mut pty = t.lbctl_pty(&["attach", "shell"]);
    pty.send(b"echo [$X]\r");
    pty.until("[kept]");
    pty.send(b"exit 5\r");
    assert_eq!(pty.wait(), 5);
    t.finish();
}

#[test]
fn exec_on_a_terminal_works_and_restores_it() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let mut pty = t.lbctl_pty(&["exec", "-it", &c, "sh"]);
    pty.until("# ");
    assert!(pty.is_raw());
    pty.send(b"tty; exit 3\r");
    pty.until("/dev/pts/");
    assert_eq!(pty.wait(), 3);
    assert!(!pty.is_raw());
    t.finish();
}

#[test]
fn attaching_to_a_paused_container_says_how_to_resume_it() {
    let t = Bed::new();
    let _id = t.lbctl_ok(&["run", "-d", "--name", "held", &root(), "sleep", "1000"]);
    let _paused = t.lbctl_ok(&["pause", "held"]);
    let out = t.lbctl(&["attach", "held"]);
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(
        text(&out.stderr),
        "lbctl: container 'held' is paused\nhint: resume it first: lbctl resume held\n"
    );
    let _removed = t.lbctl_ok(&["rm", "-f", "held"]);
    t.finish();
}

#[test]
fn attaching_to_a_container_that_was_never_started_says_how_to_start_it() {
    let t = Bed::new();
    let root = root();
    let _id = t.lbctl_ok(&["create", "--name", "made", &root, "sleep", "1000"]);
    let out = t.lbctl(&["attach", "made"]);
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(
        text(&out.stderr),
        "lbctl: container 'made' has not been started\n\
         hint: start it and attach: lbctl start -a made\n"
    );
    let out = t.lbctl(&["exec", "made", "true"]);
    let stderr = text(&out.stderr);
    assert!(
        stderr.contains("container 'made' has not been started"),
        "{stderr}"
    );
    t.finish();
}

#[test]
fn attaching_to_a_container_that_has_exited_says_where_its_output_is() {
    let t = Bed::new();
    let script = "echo said; exit 7";
    let run = ["run", "--name", "over", &root(), "sh", "-c", script];
    assert_eq!(t.lbctl(&run).status.code(), Some(7));
    let out = t.lbctl(&["attach", "over"]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(text(&out.stdout), "");
    assert_eq!(
        text(&out.stderr),
        "lbctl: container 'over' has exited; for its output: lbctl logs over\n"
    );
    let out = t.lbctl(&["attach", "--logs", "over"]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(text(&out.stdout), "said\n");
    assert_eq!(text(&out.stderr), "");
    t.finish();
}

/// Types Ctrl-C until the client has ended, and gives its exit code.
fn interrupted(pty: &mut littlebox_tests::pty::Pty) -> i32 {
    proc::eventually("Ctrl-C ends the client", || {
        pty.send(b"\x03");
        pty.ended()
    })
}

#[test]
fn ctrl_c_ends_the_client_also_when_neither_program_nor_daemon_hears_of_it() {
    let t = Bed::new();
    let root = root();
    let script = "echo ready; exec sleep 1000";
    let _id = t.lbctl_ok(&["run", "-d", "--name", "deaf", &root, "sh", "-c", script]);
    let mut attached = t.lbctl_pty(&["attach", "--logs", "deaf"]);
    attached.until("ready");
    proc::kill(t.pid(), Signal::STOP);
    let mut attaching = t.lbctl_pty(&["attach", "deaf"]);
    let ended = [interrupted(&mut attached), interrupted(&mut attaching)];
    proc::kill(t.pid(), Signal::CONT);
    // The first has its handler, the second is ended by the signal itself while it asks.
    assert_eq!(ended[0], 130, "{}", attached.text());
    assert_ne!(ended[1], 0, "{}", attaching.text());
    t.finish();
}

#[test]
fn the_program_of_a_bundle_has_a_raw_terminal_in_start_and_attach() {
    let t = Bed::new();
    let dir = t.dirs.base_path.join("bundle");
    std::fs::create_dir(&dir).unwrap();
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {"terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["sh"],
                    "env": ["PATH=/bin"], "cwd": "/"},
        "root": {"path": busybox_root(), "readonly": true},
        "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                   {"destination": "/dev/pts", "type": "devpts", "source": "devpts"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    std::fs::write(dir.join("config.json"), spec.to_string()).unwrap();
    let bundle = dir.to_str().unwrap();
    let _id = t.lbctl_ok(&["create", "-i", "--name", "shell", "--bundle", bundle]);
    for command in [["start", "-i", "shell"].as_slice(), &["attach", "shell"]] {
        let mut pty = t.lbctl_pty(command);
        proc::until("the terminal is raw", || pty.is_raw());
        pty.send(b"echo $((6*7)); tty\r");
        pty.until("42");
        pty.send(b"\x10\x11");
        assert_eq!(pty.wait(), 0, "{}", pty.text());
        assert!(!pty.is_raw());
    }
    t.remove("shell");
    t.finish();
}
