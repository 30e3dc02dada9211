//! From command lines to requests.

use clap::{CommandFactory, Parser};
use littlebox_types::{ContainerConfig, MountKind};

use super::{Cli, Command};

fn config(line: &[&str]) -> ContainerConfig {
    let cli = Cli::try_parse_from([&["lbctl", "create"], line].concat()).unwrap();
    let Command::Create(args) = cli.command else {
        panic!("{line:?}")
    };
    args.config().unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_in_its_help_what_the_list_says() {
    let mut command = Cli::command();
    let abouts = |c: &clap::Command| -> Vec<_> {
        c.get_subcommands()
            .map(|s| s.get_about().map(ToString::to_string))
            .collect()
    };
    let listed = abouts(&command);
    command.build();
    // The command "help" comes last, and only here.
    assert_eq!(abouts(&command)[..listed.len()], listed);
}

#[test]
fn nothing_is_asked_for_that_was_not_said() {
    let expected = ContainerConfig {
        rootfs: "host".into(),
        command: vec!["true".into()],
        ..ContainerConfig::default()
    };
    assert_eq!(config(&["host", "true"]), expected);
}

#[test]
fn flags_end_at_the_root() {
    let c = config(&["--rm", "host", "sh", "-c", "--name", "--json", "--", "-x"]);
    assert!(c.auto_remove && c.name.is_none());
    assert_eq!(c.command, ["sh", "-c", "--name", "--json", "--", "-x"]);
}

#[test]
fn every_flag_becomes_configuration() {
    let line = "--name n --rm -i -e A=1 -e B=x=y -w /w -u 1:2 --group-add 3 --umask 077 --init \
                -l k=v -l bare --stop-signal INT --stop-timeout 5 --restart on-failure:3 --log-opt max-size=1m --log-opt \
                max-files=2 -v /s:/d:ro --tmpfs /t:size=1m --read-only --propagation rslave \
                --network none --ns pid=host --uidmap 0:1:2 --gidmap 0:1:2 --hostname h \
                --domainname d --time-offset monotonic=-1 --sysctl net.a=1 -m 64m --memory-swap -1 --cpus 0.5 --cpu-weight 10 \
                --cpuset-cpus 0 --pids-limit -1 --ulimit nofile=1:2 --oom-score-adj -5 --cap-add \
                ALL --cap-drop MKNOD --no-new-privileges false --privileged --security-opt mask=/m --security-opt seccomp=unconfined --security-opt apparmor=p --device /dev/fuse:rw --device-cgroup-rule a:b dir:/r cmd";
    let words: Vec<&str> = line.split_whitespace().collect();
    let made = serde_json::to_value(config(&words)).unwrap();
    let expected = serde_json::json!({
        "name": "n", "rootfs": "dir:/r", "command": ["cmd"], "env": {"A": "1", "B": "x=y"},
        "working_dir": "/w", "user": "1:2", "groups": ["3"], "umask": "077", "hostname": "h",
        "domainname": "d", "labels": {"bare": "", "k": "v"}, "terminal": false, "stdin": true,
        "attach": false, "auto_remove": true, "init": true, "read_only": true,
        "propagation": "rslave",
        "mounts": [
            {"type": "bind", "source": "/s", "destination": "/d", "read_only": true,
             "create": false},
            {"type": "tmpfs", "destination": "/t", "read_only": false, "create": false,
             "size": 1_048_576},
        ],
        "namespaces": {"net": "new", "pid": "host"},
        "id_maps": {"uid": [{"container_id": 0, "host_id": 1, "size": 2}],
                    "gid": [{"container_id": 0, "host_id": 1, "size": 2}]},
        "time_offsets": {"monotonic": {"secs": -1, "nanos": 0}},
        "resources": {"memory": 67_108_864, "memory_swap": -1, "cpus": 0.5, "cpu_weight": 10,
                      "cpuset_cpus": "0", "pids_limit": -1},
        "rlimits": {"nofile": {"soft": 1, "hard": 2}}, "sysctls": {"net.a": "1"},
        "capabilities": {"add": ["ALL"], "drop": ["MKNOD"]}, "no_new_privileges": false,
        "seccomp": "unconfined",
        "privileged": true, "masked_paths": ["/m"], "apparmor": "p",
        "devices": [{"path": "/dev/fuse", "permissions": "rw"}], "device_rules": ["a:b"], "oom_score_adj": -5, "stop_signal": "SIGINT", "stop_timeout_s": 5,
        "restart": {"policy": "on-failure", "max_retries": 3},
        "log": {"max_size": 1_048_576, "max_files": 2},
    });
    assert_eq!(made, expected);
}

#[test]
fn environment_without_a_value_is_our_own_or_nothing() {
    let c = config(&[
        "-e",
        "PATH",
        "-e",
        "NO_SUCH_VARIABLE_OF_OURS",
        "host",
        "true",
    ]);
    assert_eq!(c.env.get("PATH"), std::env::var("PATH").ok().as_ref());
    assert_eq!(c.env.len(), 1);
}

#[test]
fn of_two_values_of_a_variable_the_later_one_holds() {
    let c = config(&[
        "-e",
        "A=1",
        "-e",
        "A=2",
        "-e",
        "B=1",
        "-e",
        "NO_SUCH_VARIABLE_OF_OURS=1",
        "-e",
        "NO_SUCH_VARIABLE_OF_OURS",
        "host",
        "true",
    ]);
    assert_eq!(c.env["A"], "2");
    // A name alone, and we have no such variable: unset, as it came last.
    assert!(!c.env.contains_key("NO_SUCH_VARIABLE_OF_OURS"));
}

#[test]
fn flags_win_over_environment_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "A=file\nB=file\n").unwrap();
    let path = file.path().to_str().unwrap();
    let c = config(&["-e", "A=flag", "--env-file", path, "host", "true"]);
    assert_eq!((c.env["A"].as_str(), c.env["B"].as_str()), ("flag", "file"));
}

#[test]
fn directories_are_meant_from_here() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(config(&[path, "true"]).rootfs, format!("dir:{path}"));
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        config(&["dir:src", "true"]).rootfs,
        format!("dir:{}/src", here.display())
    );
    let c = config(&["-v", "./src:/dst", "host", "true"]);
    assert_eq!(c.mounts[0].kind, MountKind::Bind);
    assert_eq!(c.mounts[0].source, Some(format!("{}/src", here.display())));
}

#[test]
fn a_command_is_needed_except_by_an_interactive_shell() {
    assert_eq!(config(&["-it", "host"]).command, ["/bin/sh"]);
    let cli = Cli::try_parse_from(["lbctl", "create", "-t", "host"]).unwrap();
    let Command::Create(args) = cli.command else {
        panic!()
    };
    assert!(args.config().is_err());
}

#[test]
fn contradictions_are_refused() {
    for line in [
        &["--network", "host", "--ns", "net=new", "host", "true"][..],
        &["--log-opt", "x=1", "host", "true"],
        &["dir:no/such/dir", "true"],
        &["--env-file", "/no/such/file", "host", "true"],
    ] {
        let cli = Cli::try_parse_from([&["lbctl", "create"], line].concat()).unwrap();
        let Command::Create(args) = cli.command else {
            panic!()
        };
        assert!(args.config().is_err(), "{line:?}");
    }
    for line in [
        &["run", "--name", "-bad", "host", "true"][..],
        &["run", "-m", "much", "host", "true"],
        &["run", "-u", "a b", "host", "true"],
        &["run", "--group-add", "", "host", "true"],
        &["run", "--umask", "8", "host", "true"],
        &["run", "--propagation", "both", "host", "true"],
        &["exec", "-u", "0:", "c", "true"],
        &["kill", "-s", "SIGNONE", "c"],
        &["ns", "ls", "--type", "nett"],
        &["run"],
        &["exec", "c"],
        &["rm"],
        &["nosuch"],
    ] {
        assert!(
            Cli::try_parse_from([&["lbctl"], line].concat()).is_err(),
            "{line:?}"
        );
    }
}

#[test]
fn a_container_may_stand_where_ns_has_commands() {
    for line in [
        &["ns"][..],
        &["ns", "web"],
        &["ns", "inspect", "web"],
        &["ns", "diff", "a", "b"],
    ] {
        assert!(
            Cli::try_parse_from([&["lbctl"], line].concat()).is_ok(),
            "{line:?}"
        );
    }
}
