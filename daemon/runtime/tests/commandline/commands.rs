//! exec, pause, resume, ps, list, events, features, terminals.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::{Bed, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

#[test]
fn an_exec_runs_inside_and_gives_its_exit_code() {
    let bed = Bed::running();
    let ran = bed.run(&[
        "exec",
        &bed.id,
        "sh",
        "-c",
        "hostname; cat /proc/1/cmdline; exit 5",
    ]);
    assert_eq!(ran.code, Some(5));
    assert_eq!(ran.stdout, "inside\nsleep\x00100\x00");
    let missing = bed.run(&["exec", &bed.id, "nope"]).exec_error();
    assert!(missing.contains("executable file not found"), "{missing}");
}

#[test]
fn flags_of_an_exec_change_its_process() {
    let bed = Bed::running();
    let script =
        "pwd; echo $FOO; id -u; id -g; id -G; grep -E 'Cap(Inh|Eff|Amb)|NoNew' /proc/self/status";
    let flags = [
        "--cwd", "/tmp", "--env", "FOO=bar", "--user", "1000:100", "-g", "7",
    ];
    let mut arguments = vec!["exec"];
    arguments.extend(flags);
    arguments.extend([
        "--cap",
        "CAP_NET_RAW",
        "--no-new-privs",
        &bed.id,
        "sh",
        "-c",
        script,
    ]);
    let out = bed.run(&arguments).ok();
    assert!(out.starts_with("/tmp\nbar\n1000\n100\n100 7\n"), "{out}");
    assert!(out.contains("CapInh:\t0000000000000000"), "{out}");
    assert!(out.contains("CapAmb:\t0000000000000000"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    for (flags, words) in [
        (["--cap", "NOPE"], "NOPE"),
        (["--user", "me"], "UID"),
        (["--cwd", "relative"], "absolute"),
        (["--env", "NOVALUE"], "KEY=VALUE"),
    ] {
        let refused = bed.run(&[&["exec"][..], &flags, &[&bed.id, "true"]].concat());
        let refused = refused.exec_error();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn of_two_variables_with_one_name_the_later_counts() {
    let mut bed = Bed::new("env; exec sleep 100");
    bed.config["process"]["env"] = json!(["A=1", "PATH=/nowhere", "B=2", "A=3", "PATH=/bin"]);
    bed.create().ok();
    bed.start().ok();
    assert!(wait_until(|| bed.output().contains("A=3")));
    assert!(!bed.output().contains("A=1"), "{}", bed.output());
    let env = bed
        .run(&[
            "exec", "-e", "A=4", "-e", "B=5", "-e", "A=6", &bed.id, "env",
        ])
        .ok();
    let values = |name: &str| env.lines().filter(|line| line.starts_with(name)).count();
    assert!(env.contains("A=6") && env.contains("B=5"), "{env}");
    assert_eq!((values("A="), values("B="), values("PATH=")), (1, 1, 1));
}

#[test]
fn an_exec_from_a_process_document_is_detached_and_told_by_its_pid_file() {
    let bed = Bed::running();
    let process = bed.path("process.json");
    let document = json!({"args": ["sleep", "50"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
    fs::write(&process, document.to_string()).unwrap();
    let pid_file = bed.path("exec.pid");
    let (process, pid_file) = (process.to_str().unwrap(), pid_file.to_str().unwrap());
    bed.leave(&[
        "exec",
        "--process",
        process,
        "--detach",
        "--pid-file",
        pid_file,
        &bed.id,
    ]);
    let pid = fs::read_to_string(pid_file).unwrap();
    let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(cmdline, "sleep\x0050\x00");
    let pids: Vec<u32> =
        serde_json::from_str(&bed.run(&["ps", "--format", "json", &bed.id]).ok()).unwrap();
    assert!(pids.contains(&pid.parse().unwrap()) && pids.contains(&bed.pid()));
    fs::write(process, "{\"args\": 1}").unwrap();
    let refused = bed
        .run(&["exec", "--process", process, &bed.id])
        .exec_error();
    assert!(refused.contains("/args"), "{refused}");
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let bed = Bed::running();
    bed.run(&["pause", &bed.id]).ok();
    assert_eq!(bed.status(), "paused");
    let refused = bed.run(&["exec", &bed.id, "true"]).exec_error();
    assert!(refused.contains("paused"), "{refused}");
    for refused in [
        bed.run(&["pause", &bed.id]),
        bed.run(&["start", &bed.id]),
        bed.delete(),
    ] {
        assert!(refused.error().contains("paused"));
    }
    bed.run(&["resume", &bed.id]).ok();
    assert_eq!(bed.status(), "running");
    assert!(bed.run(&["resume", &bed.id]).error().contains("running"));
    bed.run(&["pause", &bed.id]).ok();
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    bed.wait_for("stopped");
}

#[test]
fn lists_tables_and_json_agree_with_the_state() {
    let bed = Bed::running();
    let pid = bed.pid();
    let list: Value = serde_json::from_str(&bed.run(&["list", "--format", "json"]).ok()).unwrap();
    let row = &list.as_array().unwrap()[0];
    assert_eq!(row["id"], bed.id.as_str());
    assert_eq!(row["pid"], pid);
    assert_eq!(row["status"], "running");
    assert_eq!(row["owner"], "root");
    assert!(row["created"].as_str().unwrap().ends_with('Z'));
    let table = bed.run(&["list"]).ok();
    assert!(
        table.starts_with("ID ") && table.contains("running"),
        "{table}"
    );
    assert_eq!(bed.run(&["list", "-q"]).ok(), format!("{}\n", bed.id));
    let ps = bed.run(&["ps", &bed.id]).ok();
    assert!(ps.contains("sleep 100") && ps.lines().count() == 2, "{ps}");
    let empty = Bed::new("true");
    fs::create_dir(empty.root()).unwrap();
    assert_eq!(empty.run(&["list", "--format", "json"]).ok(), "[]\n");
}

#[test]
fn a_signal_reaches_every_process_of_the_container() {
    let bed = Bed::running();
    bed.leave(&["exec", "--detach", &bed.id, "sleep", "50"]);
    let count = || {
        let pids = bed.run(&["ps", "--format", "json", &bed.id]);
        serde_json::from_str::<Vec<u32>>(&pids.stdout).map_or(0, |pids| pids.len())
    };
    assert_eq!(count(), 2);
    bed.run(&["kill", "--all", &bed.id, "KILL"]).ok();
    bed.wait_for("stopped");
    bed.run(&["kill", "--all", &bed.id, "KILL"]).ok();
}

#[test]
fn statistics_come_once_or_until_the_end() {
    let bed = Bed::running();
    let stats: Value =
        serde_json::from_str(&bed.run(&["events", "--stats", &bed.id]).ok()).unwrap();
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["id"], bed.id.as_str());
    assert_eq!(stats["data"]["pids"]["current"], 1);
    assert_eq!(stats["data"]["pids"]["limit"], 100);
    let out = fs::File::create(bed.path("events")).unwrap();
    let mut follower = bed
        .command(&["events", "--interval", "20ms", &bed.id])
        .stdout(out)
        .spawn()
        .unwrap();
    assert!(wait_until(|| {
        fs::read_to_string(bed.path("events"))
            .unwrap()
            .lines()
            .count()
            > 2
    }));
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    assert!(follower.wait().unwrap().success());
}

#[test]
fn features_are_those_of_the_code() {
    let bed = Bed::new("true");
    let features: Value = serde_json::from_str(&bed.run(&["features"]).ok()).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!("mount")) && namespaces.len() == 8);
    let options = features["mountOptions"].as_array().unwrap();
    for option in ["bind", "ro", "rro", "tmpcopyup", "rslave", "unbindable"] {
        assert!(options.contains(&json!(option)), "{option}");
    }
    assert_eq!(features["linux"]["intelRdt"]["enabled"], false);
    let modes = &features["linux"]["memoryPolicy"]["modes"];
    assert!(modes.as_array().unwrap().contains(&json!("MPOL_BIND")));
}

/// The descriptor that was sent to a socket.
fn receive_descriptor(listener: &UnixListener) -> OwnedFd {
    let (connection, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    recvmsg(
        &connection,
        &mut slices,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    fds.pop().expect("a descriptor came")
}

fn read_until(terminal: &mut fs::File, end: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.contains(end) {
        let n = terminal.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

fn console(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let mut bed = Bed::new("stty size; read line; echo got $line; exec sleep 100");
    bed.config["process"]["terminal"] = json!(true);
    bed.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    let path = bed.path("console");
    let listener = console(&path);
    bed.create_with(&["--console-socket", path.to_str().unwrap()])
        .ok();
    let mut terminal = fs::File::from(receive_descriptor(&listener));
    bed.start().ok();
    let text = read_until(&mut terminal, "\n");
    assert!(text.contains("33 99"), "{text}");
    terminal.write_all(b"typed\n").unwrap();
    read_until(&mut terminal, "got typed");

    let socket = path.to_str().unwrap();
    bed.leave(&[
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        socket,
        &bed.id,
        "echo",
        "from exec",
    ]);
    let mut second = fs::File::from(receive_descriptor(&listener));
    read_until(&mut second, "from exec");
}

#[test]
fn a_descriptor_of_the_process_is_sent_to_the_pidfd_socket() {
    use rustix::process::{Signal, pidfd_send_signal};

    let mut bed = Bed::new("");
    bed.config["process"]["args"] = json!(["sleep", "100"]);
    let path = bed.path("pidfd");
    let listener = console(&path);
    let socket = path.to_str().unwrap();
    bed.create_with(&["--pidfd-socket", socket]).ok();
    let container = receive_descriptor(&listener);
    bed.start().ok();
    bed.leave(&[
        "exec",
        "-d",
        "--pidfd-socket",
        socket,
        &bed.id,
        "sleep",
        "50",
    ]);
    let exec = receive_descriptor(&listener);
    let count = || {
        let pids = bed.run(&["ps", "--format", "json", &bed.id]);
        serde_json::from_str::<Vec<u32>>(&pids.stdout).map_or(0, |pids| pids.len())
    };
    pidfd_send_signal(&exec, Signal::KILL).unwrap();
    assert!(wait_until(|| count() == 1));
    assert_eq!(bed.status(), "running");
    pidfd_send_signal(&container, Signal::KILL).unwrap();
    bed.wait_for("stopped");
    let refused = bed.run(&["exec", "--pidfd-socket", "/nonexistent", &bed.id, "true"]);
    assert_eq!(refused.code, Some(255));
}

#[test]
fn an_exec_goes_into_a_cgroup_below_the_containers() {
    let bed = Bed::running();
    let own = bed.cgroups();
    let pids = own.iter().find(|dir| dir.join("pids.max").exists());
    let pids = pids.expect("the container's cgroup");
    fs::create_dir(pids.join("below")).unwrap();
    let mine = |flags: &[&str]| {
        let command: &[&str] = &[&bed.id, "cat", "/proc/self/cgroup"];
        bed.run(&[&["exec"], flags, command].concat())
    };
    let below = |ran: String| ran.lines().filter(|line| line.ends_with("/below")).count();
    assert_eq!(below(mine(&[]).ok()), 0);
    assert_eq!(below(mine(&["--cgroup", "below"]).ok()), 1);
    assert_eq!(below(mine(&["--cgroup", "pids:/below"]).ok()), 1);
    for (cgroup, words) in [
        ("..", "not allowed"),
        ("below/../..", "not allowed"),
        ("missing", "no such file or directory"),
        ("pids:missing", "no such file or directory"),
        ("made-up:/", "unknown controller"),
    ] {
        let refused = mine(&["--cgroup", cgroup]).exec_error();
        assert!(refused.contains(words), "{cgroup}: {refused}");
    }
}

#[test]
fn a_terminal_that_nobody_would_hold_is_refused() {
    let mut bed = Bed::new("true");
    let refused = bed
        .create_with(&["--console-socket", "/nonexistent"])
        .error();
    assert!(refused.contains("process.terminal is false"), "{refused}");
    bed.config["process"]["terminal"] = json!(true);
    let refused = bed.create().error();
    assert!(refused.contains("--console-socket"), "{refused}");
    let refused = bed
        .create_with(&["--console-socket", "/nonexistent"])
        .error();
    assert!(refused.contains("/nonexistent"), "{refused}");
    bed.assert_nothing_left();
}

#[test]
fn a_foreground_run_shows_the_terminal_of_the_program() {
    let mut bed = Bed::new("test -t 0 && test -t 1 && echo terminal; exit 6");
    bed.config["process"]["terminal"] = json!(true);
    let ran = bed.run_container();
    // What is no terminal gets newlines as the program wrote them.
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(6), "terminal\n"));
}

/// The limit of processes as the kernel has it.
fn pids_limit(bed: &Bed) -> Value {
    let stats = bed.run(&["events", "--stats", &bed.id]).ok();
    serde_json::from_str::<Value>(&stats).unwrap()["data"]["pids"]["limit"].clone()
}

#[test]
fn limits_are_changed_all_or_none() {
    let bed = Bed::running();
    bed.run(&["update", "--pids-limit", "55", &bed.id]).ok();
    assert_eq!(pids_limit(&bed), 55);
    let file = bed.path("resources.json");
    let document = json!({"pids": {"limit": 66}, "cpu": {"shares": 0}, "memory": {"limit": 0}});
    fs::write(&file, document.to_string()).unwrap();
    let file = file.to_str().unwrap();
    bed.run(&["update", "--resources", file, &bed.id]).ok();
    assert_eq!(pids_limit(&bed), 66);
    for (document, words) in [
        (json!({"pids": {"limit": "many"}}), "/pids/limit"),
        (
            json!({"pids": {"limit": 77}, "cpu": {"cpus": "999999"}}),
            "cpuset",
        ),
    ] {
        fs::write(file, document.to_string()).unwrap();
        let refused = bed.run(&["update", "--resources", file, &bed.id]).error();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(pids_limit(&bed), 66);
    }
}

/// What a file of the container's v1 cgroup, or another of v2, says now.
fn cgroup_file(bed: &Bed, controller: &str, v1: &str, v2: &str) -> String {
    let read = |path: String| fs::read_to_string(path).ok();
    let below = format!("littlebox-runtime-test/{}", bed.id);
    read(format!("/sys/fs/cgroup/{controller}/{below}/{v1}"))
        .or_else(|| read(format!("/sys/fs/cgroup/{below}/{v2}")))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[test]
fn limits_are_lifted() {
    let bed = Bed::running();
    let update = |flags: &[&str]| {
        bed.run(&[&["update"], flags, &[&bed.id]].concat()).ok();
    };
    let quota = || cgroup_file(&bed, "cpu", "cpu.cfs_quota_us", "cpu.max");
    let memory = || cgroup_file(&bed, "memory", "memory.limit_in_bytes", "memory.max");
    let idle = || cgroup_file(&bed, "cpu", "cpu.idle", "cpu.idle");
    let unlimited = memory();
    update(&["--cpu-quota", "30000", "--cpu-burst", "10000"]);
    update(&["--memory", "50M", "--cpu-idle", "1", "--pids-limit", "9"]);
    assert!(quota().starts_with("30000"), "{}", quota());
    assert_eq!((memory(), idle()), ("52428800".to_owned(), "1".to_owned()));
    assert_eq!(pids_limit(&bed), 9);
    // A period alone leaves the quota as it is.
    update(&["--cpu-period", "90000"]);
    assert!(quota().starts_with("30000"), "{}", quota());

    update(&["--cpu-burst", "0"]);
    update(&[
        "--cpu-quota",
        "-1",
        "--memory",
        "-1",
        "--cpu-idle",
        "0",
        "--pids-limit",
        "-1",
    ]);
    assert!(
        quota().starts_with("-1") || quota().starts_with("max"),
        "{}",
        quota()
    );
    assert_eq!((memory(), idle()), (unlimited, "0".to_owned()));
    assert_eq!(pids_limit(&bed), u64::MAX);

    let document = bed.path("resources.json");
    let path = document.to_str().unwrap();
    for (idle_now, expected) in [(1, "1"), (0, "0")] {
        let resources = json!({"cpu": {"idle": idle_now}});
        fs::write(&document, resources.to_string()).unwrap();
        update(&["--resources", path]);
        assert_eq!(idle(), expected);
    }
    let refused = bed.run(&["update", "--memory", "50X", &bed.id]);
    assert!(refused.error().contains("not a size"));
}

#[test]
fn an_exec_has_the_containers_execution_domain_and_cpus() {
    let mut bed = Bed::new("exec sleep 100");
    bed.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    bed.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    bed.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    bed.create().ok();
    bed.start().ok();
    let script = "cat /proc/self/personality; grep Cpus_allowed_list /proc/self/status; \
                  busybox cut -d' ' -f19,41 /proc/self/stat";
    let seen = |arguments: &[&str]| {
        let mut all = vec!["exec"];
        all.extend(arguments);
        bed.run(&all).ok()
    };
    // As the container's own program, but for the CPUs.
    let batch = seen(&[&bed.id, "sh", "-c", script]);
    assert_eq!(batch, "00000008\nCpus_allowed_list:\t0\n7 3\n");

    // A process of its own says itself how it is scheduled; the rest is the container's.
    let mut process = bed.config["process"].clone();
    process["args"] = json!(["sh", "-c", script]);
    process["scheduler"] = json!({"policy": "SCHED_IDLE"});
    process.as_object_mut().unwrap().remove("execCPUAffinity");
    let path = bed.path("process.json");
    fs::write(&path, serde_json::to_vec(&process).unwrap()).unwrap();
    let idle = seen(&["--process", path.to_str().unwrap(), &bed.id]);
    assert_eq!(idle, "00000008\nCpus_allowed_list:\t0\n0 5\n");
}
