//! The process of a spec: what it has from its caller, and what not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{Bed, Ran};
use serde_json::json;

/// Runs the container below a command that goes on as the runtime.
fn run_below(bed: &Bed, command: &[&str]) -> Ran {
    bed.write_config();
    let bundle = bed.bundle();
    let runtime = bed.command(&["run", "--bundle", bundle.to_str().unwrap(), &bed.id]);
    let mut below = Command::new(command[0]);
    below.args(&command[1..]);
    below.arg(runtime.get_program()).args(runtime.get_args());
    below.output().unwrap().into()
}

#[test]
fn a_process_without_a_user_is_roots() {
    for user in [
        None,
        Some(json!(null)),
        Some(json!({})),
        Some(json!({"gid": 0})),
    ] {
        let mut bed = Bed::new("id -u; id -g");
        let process = bed.config["process"].as_object_mut().unwrap();
        process.remove("user");
        if let Some(user) = user {
            process.insert("user".to_owned(), user);
        }
        assert_eq!(bed.run_container().ok(), "0\n0\n");
    }
}

#[test]
fn a_working_directory_that_only_root_may_enter_is_entered_for_another_user() {
    let mut bed = Bed::new("pwd; ls 2>/dev/null || echo closed");
    fs::create_dir(bed.rootfs().join("closed")).unwrap();
    fs::set_permissions(
        bed.rootfs().join("closed"),
        PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    bed.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bed.config["process"]["cwd"] = json!("/closed");
    // Root of this container has no more rights than its user: both ways are the same as in runc.
    assert_eq!(bed.run_container().ok(), "/closed\nclosed\n");
}

#[test]
fn flags_of_a_scheduler_have_the_specifications_names() {
    // A nice value below 0 is not inherited then (sched(7)).
    let mut bed = Bed::new("busybox cut -d' ' -f19 /proc/self/stat; true");
    bed.config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": -5});
    assert_eq!(bed.run_container().ok(), "-5\n");
    bed.config["process"]["scheduler"]["flags"] = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    assert_eq!(bed.run_container().ok(), "0\n");
    // Refused by the kernel, not by its name.
    bed.config["process"]["scheduler"]["flags"] =
        json!(["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY"]);
    let ran = bed.run_container();
    assert!(!ran.stderr.contains("config.json"), "{ran:?}");
}

#[test]
fn an_exec_has_its_scheduler_whatever_that_does_to_children() {
    let mut bed = Bed::new("");
    bed.config["process"]["args"] = json!(["sleep", "100"]);
    bed.create().ok();
    bed.start().ok();
    let process = json!({
        "args": ["busybox", "grep", "-E", "^(policy|CapEff|CapPrm)", "/proc/self/sched", "/proc/self/status"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 42000, "deadline": 100_000, "period": 1_000_000
        }
    });
    let document = bed.path("process.json");
    fs::write(&document, process.to_string()).unwrap();
    let printed = bed.run(&["exec", "--process", document.to_str().unwrap(), &bed.id]);
    let printed = printed.ok();
    let value = |key: &str| {
        let line = printed.lines().find(|line| line.contains(key)).unwrap();
        line.rsplit(':').next().unwrap().trim().to_owned()
    };
    // SCHED_DEADLINE of <linux/sched.h>.
    assert_eq!(value("policy"), "6");
    assert_eq!(value("CapEff"), "0000000000000000");
    assert_eq!(value("CapPrm"), "0000000000000000");
}

#[test]
fn the_callers_cpus_are_not_the_containers() {
    let script = "grep Cpus_allowed_list /proc/self/status; exec sleep 100";
    let bed = Bed::new(script);
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list"))
        .unwrap();
    let one = all.split_whitespace().last().unwrap();
    let one = one.split([',', '-']).next().unwrap();

    let bed2 = Bed::new("grep Cpus_allowed_list /proc/self/status");
    let ran = run_below(&bed2, &["taskset", "-c", one]);
    assert_eq!(ran.ok().trim(), all);

    bed.create().ok();
    bed.start().ok();
    let exec = bed.command(&[
        "exec",
        &bed.id,
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    ]);
    let mut below = Command::new("taskset");
    below
        .args(["-c", one])
        .arg(exec.get_program())
        .args(exec.get_args());
    let ran: Ran = below.output().unwrap().into();
    assert_eq!(ran.ok().trim(), all);
}

#[test]
fn sockets_of_an_activation_are_passed_on_before_what_is_preserved() {
    let bed = Bed::new("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3");
    fs::write(bed.path("activated"), "listening\n").unwrap();
    let path = bed.path("activated");
    let path = path.to_str().unwrap();
    let script = |pid: &str| {
        format!(
            "exec 3<{path}; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID={pid}; exec \"$@\""
        )
    };
    let ran = run_below(&bed, &["sh", "-c", &script("$$"), "sh"]);
    assert_eq!(ran.ok(), "1 1 web\nlistening\n");
    // Those of another process are not its.
    let bed = Bed::new("echo none $LISTEN_FDS; test -e /proc/self/fd/3 || echo closed");
    let ran = run_below(&bed, &["sh", "-c", &script("1"), "sh"]);
    assert_eq!(ran.ok(), "none\nclosed\n");
}

#[test]
fn a_memory_policy_is_the_containers_and_its_execs() {
    let seen = "head -n1 /proc/self/numa_maps | busybox cut -d' ' -f2";
    let mut bed = Bed::new(&format!("{seen}; exec sleep 100"));
    bed.config["linux"]["memoryPolicy"] =
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    bed.create().ok();
    bed.start().ok();
    assert!(
        crate::support::wait_until(|| bed.output() == "bind=static:0\n"),
        "{}",
        bed.output()
    );
    let exec = bed.run(&["exec", &bed.id, "sh", "-c", seen]);
    assert_eq!(exec.ok(), "bind=static:0\n");

    let mut bed = Bed::new("true");
    for (policy, word) in [
        (
            json!({"mode": "MPOL_BIND", "nodes": "x"}),
            "/linux/memoryPolicy/nodes",
        ),
        (json!({"mode": "MPOL_BIND"}), "set_mempolicy"),
    ] {
        bed.config["linux"]["memoryPolicy"] = policy;
        let refused = bed.run_container().error();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn a_missing_interpreter_is_told_with_the_program_that_lacks_it() {
    for program in ["/bin/script", "script"] {
        let mut bed = Bed::new("");
        bed.container_script("/bin/script", "true");
        let script = bed.rootfs().join("bin/script");
        fs::write(&script, "#!/no/such/shell\n").unwrap();
        bed.config["process"]["args"] = json!([program]);
        let ran = bed.run_container().error();
        assert!(
            ran.contains("/bin/script")
                && ran.contains("no such file or directory")
                && ran.contains("interpreter"),
            "{ran}"
        );
    }
}

#[test]
fn an_empty_home_is_as_good_as_none() {
    for env in [
        json!(["PATH=/bin", "HOME="]),
        json!(["HOME=/a", "PATH=/bin", "HOME="]),
    ] {
        let mut bed = Bed::new("env");
        fs::write(
            bed.rootfs().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\n",
        )
        .unwrap();
        bed.config["process"]["env"] = env;
        bed.config["process"]["args"] = json!(["env"]);
        let printed = bed.run_container().ok();
        let homes = printed.lines().filter(|line| line.starts_with("HOME="));
        assert_eq!(homes.collect::<Vec<_>>(), ["HOME=/root"]);
    }
}

#[test]
fn groups_are_those_that_were_asked_for() {
    let mut bed = Bed::new("grep Groups: /proc/self/status");
    bed.config["process"]["user"]["additionalGids"] = json!([20, 10, 20]);
    let groups = bed.run_container().ok();
    let groups: Vec<&str> = groups.split_whitespace().skip(1).collect();
    assert_eq!(groups, ["10", "20", "20"]);
}

#[test]
fn a_name_of_the_uts_namespace_is_said_in_one_way() {
    let mut bed = Bed::new("cat /proc/sys/kernel/domainname");
    bed.config["linux"]["sysctl"] = json!({"kernel.domainname": "inside.example"});
    assert_eq!(bed.run_container().ok(), "inside.example\n");
    bed.config["domainname"] = json!("other.example");
    let twice = bed.run_container().error();
    assert!(twice.contains("/linux/sysctl/kernel.domainname"), "{twice}");
    bed.config["linux"]["sysctl"] = json!({"kernel.hostname": "inside"});
    let host = bed.run_container().error();
    assert!(host.contains("/hostname"), "{host}");
}
