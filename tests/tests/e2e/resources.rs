//! Resources that hold: limits in the kernel's own words, live update, the OOM killer, devices.
//!
//! The tests run on cgroup v1, hybrid and v2 hosts and look where the host has the controller.

use std::path::Path;

use littlebox_tests::prelude::*;

/// A file of a container's cgroup, by its name on v1 (with its controller) and on v2.
#[track_caller]
fn knob(container: &Container, controller: &str, v1: &str, v2: &str) -> String {
    let (dir, file) = match container.cgroups.get(controller) {
        Some(dir) => (dir, v1),
        None => (&container.cgroups["unified"], v2),
    };
    let path = Path::new(dir).join(file);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .trim()
        .to_owned()
}

/// Whether the host has a controller on v1.
fn on_v1(controller: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| {
        let (_, filesystem) = line.split_once(" - cgroup ").unwrap_or_default();
        let options = filesystem.split(' ').nth(1).unwrap_or_default();
        options.split(',').any(|o| o == controller)
    })
}

/// A whole disk of this machine, as `MAJOR:MINOR`.
fn a_disk() -> String {
    let disk = std::fs::read_dir("/sys/block").unwrap().next();
    let disk = disk.expect("a machine with a block device").unwrap();
    let numbers = std::fs::read_to_string(disk.path().join("dev")).unwrap();
    numbers.trim().to_owned()
}

fn patch(t: &Bed, container: &str, resources: &Value) -> Container {
    try_patch(t, container, resources).expect(200).json()
}

fn try_patch(t: &Bed, container: &str, resources: &Value) -> Response {
    let path = format!("/v1/containers/{container}");
    t.send(&Request::new(Method::Patch, path).json(&json!({"resources": resources})))
}

const MIB: u64 = 1 << 20;

#[test]
fn limits_are_what_the_kernel_has() {
    let t = Bed::new();
    let c = t.sleeper_with(json!({"resources": {
        "memory": 64 * MIB, "memory_swap": 96 * MIB, "memory_reservation": 32 * MIB,
        "cpus": 0.5, "cpu_weight": 200, "pids_limit": 50, "cpuset_cpus": "0", "cpuset_mems": "0",
    }}));
    let memory = knob(&c, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (64 * MIB).to_string());
    let swap = knob(
        &c,
        "memory",
        "memory.memsw.limit_in_bytes",
        "memory.swap.max",
    );
    let expected = if on_v1("memory") { 96 * MIB } else { 32 * MIB };
    assert_eq!(swap, expected.to_string());
    let soft = knob(&c, "memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(soft, (32 * MIB).to_string());
    if on_v1("cpu") {
        assert_eq!(knob(&c, "cpu", "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(knob(&c, "cpu", "cpu.shares", ""), "2452");
    } else {
        assert_eq!(knob(&c, "cpu", "", "cpu.max"), "50000 100000");
        assert_eq!(knob(&c, "cpu", "", "cpu.weight"), "200");
    }
    assert_eq!(knob(&c, "pids", "pids.max", "pids.max"), "50");
    assert_eq!(knob(&c, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(t.exec(&id(&c), &["nproc"]).trim(), "1");
    t.finish();
}

#[test]
fn block_devices_have_rates() {
    let t = Bed::new();
    let disk = a_disk();
    let c = t.sleeper_with(json!({"resources": {
        "io_limits": [{"device": disk, "read_bps": 10 * MIB, "write_iops": 500}]
    }}));
    if on_v1("blkio") {
        let read = knob(&c, "blkio", "blkio.throttle.read_bps_device", "");
        assert_eq!(read, format!("{disk} {}", 10 * MIB));
        let write = knob(&c, "blkio", "blkio.throttle.write_iops_device", "");
        assert_eq!(write, format!("{disk} 500"));
    } else {
        let max = knob(&c, "io", "", "io.max");
        let expected = format!("{disk} rbps={} wbps=max riops=max wiops=500", 10 * MIB);
        assert_eq!(max, expected);
    }
    // Another rate for the device, and none for writing any more.
    let limits = json!({"io_limits": [{"device": disk, "read_bps": 20 * MIB}]});
    let c = patch(&t, &id(&c), &limits);
    let now = if on_v1("blkio") {
        assert_eq!(
            knob(&c, "blkio", "blkio.throttle.write_iops_device", ""),
            ""
        );
        knob(&c, "blkio", "blkio.throttle.read_bps_device", "")
    } else {
        let max = knob(&c, "io", "", "io.max");
        assert!(max.contains("wiops=max"), "{max}");
        max
    };
    assert!(now.contains(&(20 * MIB).to_string()), "{now}");
    t.finish();
}

#[test]
fn huge_pages_are_limited_where_the_machine_has_them() {
    let t = Bed::new();
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages");
    let has_2mb =
        sizes.is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.file_name() == "hugepages-2048kB")));
    let config = json!({"resources": {"hugetlb": {"2MB": 4 * MIB}}});
    if has_2mb {
        let c = t.sleeper_with(config);
        let limit = knob(
            &c,
            "hugetlb",
            "hugetlb.2MB.limit_in_bytes",
            "hugetlb.2MB.max",
        );
        assert_eq!(limit, (4 * MIB).to_string());
    } else {
        let problem = t
            .post_json("/v1/containers", &with(sleeper_config(), config))
            .problem(400, "invalid_request");
        assert_eq!(problem.pointer.as_deref(), Some("/resources/hugetlb/2MB"));
    }
    t.finish();
}

#[test]
fn files_of_the_cgroup_are_written_by_name_on_v2() {
    let t = Bed::new();
    let config =
        json!({"resources": {"unified": {"memory.oom.group": "1"}, "memory_high": 64 * MIB}});
    if on_v1("memory") {
        let problem = t
            .post_json("/v1/containers?start=true", &with(sleeper_config(), config))
            .problem(422, "start_failed");
        assert_eq!(problem.step.as_deref(), Some("cgroup"), "{problem:?}");
        assert!(problem.detail.contains("memory_high"), "{problem:?}");
    } else {
        let c = t.sleeper_with(config);
        assert_eq!(knob(&c, "memory", "", "memory.oom.group"), "1");
        assert_eq!(
            knob(&c, "memory", "", "memory.high"),
            (64 * MIB).to_string()
        );
    }
    t.finish();
}

#[test]
fn a_limit_that_is_wrong_is_told_by_its_field() {
    let t = Bed::new();
    let cases = [
        (json!({"memory": 4096}), "/resources/memory"),
        (json!({"memory_high": 1}), "/resources/memory_high"),
        (
            json!({"memory_swappiness": 101}),
            "/resources/memory_swappiness",
        ),
        (json!({"cpu_quota_us": 999}), "/resources/cpu_quota_us"),
        (json!({"cpu_period_us": 999}), "/resources/cpu_period_us"),
        (
            json!({"cpus": 1, "cpu_quota_us": 5000}),
            "/resources/cpu_quota_us",
        ),
        (
            json!({"cpus": 0.01, "cpu_period_us": 1000}),
            "/resources/cpus",
        ),
        (json!({"cpuset_cpus": "8000"}), "/resources/cpuset_cpus"),
        (json!({"cpuset_mems": "1000"}), "/resources/cpuset_mems"),
        (json!({"io_weight": 0}), "/resources/io_weight"),
        (
            json!({"io_limits": [{"device": "/dev/none", "read_bps": 4096}]}),
            "/resources/io_limits/0/device",
        ),
        (
            json!({"io_limits": [{"device": "/dev/null", "read_bps": 4096}]}),
            "/resources/io_limits/0/device",
        ),
        (
            json!({"io_limits": [{"device": "999:9", "read_bps": 4096}]}),
            "/resources/io_limits/0/device",
        ),
        (
            json!({"io_limits": [{"device": a_disk()}]}),
            "/resources/io_limits/0",
        ),
        (
            json!({"io_limits": [{"device": a_disk(), "write_bps": 5}]}),
            "/resources/io_limits/0/write_bps",
        ),
        (
            json!({"io_limits": [{"device": a_disk(), "bps": 5}]}),
            "/resources/io_limits/0/bps",
        ),
        (json!({"hugetlb": {"3MB": 0}}), "/resources/hugetlb/3MB"),
        (json!({"hugetlb": {"2M": 0}}), "/resources/hugetlb/2M"),
        (
            json!({"unified": {"cgroup.procs": "1"}}),
            "/resources/unified/cgroup.procs",
        ),
        (
            json!({"unified": {"cgroup.kill": "1"}}),
            "/resources/unified/cgroup.kill",
        ),
        (
            json!({"unified": {"cgroup.freeze": "1"}}),
            "/resources/unified/cgroup.freeze",
        ),
        (
            json!({"unified": {"cgroup.subtree_control": "+memory"}}),
            "/resources/unified/cgroup.subtree_control",
        ),
        (
            json!({"unified": {"../x.max": "1"}}),
            "/resources/unified/..~1x.max",
        ),
        (
            json!({"unified": {"memory.max": "5"}}),
            "/resources/unified/memory.max",
        ),
        (
            json!({"unified": {"memory.oom.group": ""}}),
            "/resources/unified/memory.oom.group",
        ),
    ];
    t.refuses(cases.map(|(resources, pointer)| (json!({"resources": resources}), pointer)));
    t.finish();
}

#[test]
fn limits_of_a_running_container_change_up_and_down() {
    let t = Bed::new();
    let c = t.sleeper_with(json!({"resources": {"memory": 64 * MIB, "memory_swap": 64 * MIB}}));
    let c = id(&c);
    let memory = |c: &Container| {
        let limit = knob(c, "memory", "memory.limit_in_bytes", "memory.max");
        let swap = knob(
            c,
            "memory",
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
        );
        (limit, swap)
    };
    let expected = |limit: u64, total: u64| {
        let swap = if on_v1("memory") {
            total
        } else {
            total - limit
        };
        (limit.to_string(), swap.to_string())
    };
    // Up: memory may never be above memory and swap together, so the order is another one than down.
    let up = patch(
        &t,
        &c,
        &json!({"memory": 128 * MIB, "memory_swap": 160 * MIB, "cpus": 1.5}),
    );
    assert_eq!(memory(&up), expected(128 * MIB, 160 * MIB));
    assert_eq!(up.config.resources.memory, Some(128 * MIB));
    let down = patch(
        &t,
        &c,
        &json!({"memory": 32 * MIB, "memory_swap": 32 * MIB, "pids_limit": 20}),
    );
    assert_eq!(memory(&down), expected(32 * MIB, 32 * MIB));
    assert_eq!(knob(&down, "pids", "pids.max", "pids.max"), "20");
    assert_eq!(
        down.config.resources.cpus,
        Some(1.5),
        "what is absent stays"
    );
    let lifted = patch(
        &t,
        &c,
        &json!({"cpus": null, "memory": null, "memory_swap": null}),
    );
    let quota = knob(&lifted, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["-1", "max 100000"].contains(&&*quota), "{quota}");
    let limit = memory(&lifted).0;
    assert!(limit == "max" || limit.len() >= 19, "{limit}");
    assert_eq!(lifted.config.resources.memory, None);
    assert_eq!(t.inspect(&c).config.resources.pids_limit, Some(20));
    t.finish();
}

#[test]
fn a_limit_below_what_is_used_is_refused_and_changes_nothing() {
    let t = Bed::new();
    let script = "x=a; while [ ${#x} -lt 8000000 ]; do x=$x$x; done; echo ready; \
                  while :; do sleep 0.05; done";
    let c = t.start(&with(
        busybox(&["sh", "-c", script]),
        json!({"resources": {"memory": 128 * MIB, "pids_limit": 30}}),
    ));
    let c = id(&c);
    t.ready(&c);
    let before = t.inspect(&c);
    let problem =
        try_patch(&t, &c, &json!({"pids_limit": 40, "memory": MIB})).problem(422, "update_failed");
    assert_eq!(problem.step.as_deref(), Some("cgroup"), "{problem:?}");
    assert!(problem.detail.contains("memory"), "{problem:?}");
    let after = t.inspect(&c);
    assert_eq!(after, before);
    assert_eq!(knob(&after, "pids", "pids.max", "pids.max"), "30");
    let limit = knob(&after, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit, (128 * MIB).to_string());
    t.finish();
}

#[test]
fn limits_of_a_container_that_does_not_run_are_for_its_next_start() {
    let t = Bed::new();
    let c = id(&t.create(&sleeper_config()));
    let changed = patch(&t, &c, &json!({"memory": 48 * MIB}));
    assert_eq!(changed.config.resources.memory, Some(48 * MIB));
    let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    let limit = |t: &Bed| {
        let running = t.inspect(&c);
        knob(&running, "memory", "memory.limit_in_bytes", "memory.max")
    };
    assert_eq!(limit(&t), (48 * MIB).to_string());
    let _stopped = t
        .post_json(
            &format!("/v1/containers/{c}/stop"),
            &json!({"timeout_s": 0}),
        )
        .expect(200);
    let _changed = patch(&t, &c, &json!({"memory": 56 * MIB}));
    let _again = t.post(&format!("/v1/containers/{c}/start")).expect(200);
    assert_eq!(limit(&t), (56 * MIB).to_string());
    t.finish();
}

#[test]
fn changed_limits_survive_the_daemon_and_obey_etags() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    let changed = patch(&t, &c, &json!({"memory": 48 * MIB}));
    let stale = Request::new(Method::Patch, format!("/v1/containers/{c}"))
        .header(
            "if-match",
            format!("\"{}\"", changed.summary.generation - 1),
        )
        .json(&json!({"resources": {"memory": 64 * MIB}}));
    let _refused = t.send(&stale).problem(412, "precondition_failed");
    t.crash();
    let now = t.inspect(&c);
    assert_eq!(now.config.resources.memory, Some(48 * MIB));
    let limit = knob(&now, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit, (48 * MIB).to_string());
    // The adopted helper takes changes too; a cpuset is a hierarchy of its own on v1.
    let now = patch(&t, &c, &json!({"cpuset_cpus": "0"}));
    assert_eq!(knob(&now, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid1(&now))).unwrap();
    let allowed = status.lines().find(|l| l.starts_with("Cpus_allowed_list:"));
    assert_eq!(
        allowed.map(|l| l.split_whitespace().last()),
        Some(Some("0"))
    );
    t.finish();
}

#[test]
fn wrong_changes_are_400_with_their_field() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({"resources": {"memory": 64 * MIB}})));
    for (resources, pointer) in [
        (json!({"memroy": 1}), "/resources/memroy"),
        (json!({"memory": 1}), "/resources/memory"),
        (json!({"memory_swap": 32 * MIB}), "/resources/memory_swap"),
        (json!({"cpuset_cpus": "8000"}), "/resources/cpuset_cpus"),
        (json!([]), "/resources"),
    ] {
        let problem = try_patch(&t, &c, &resources).problem(400, "invalid_request");
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{problem:?}");
    }
    t.finish();
}

#[test]
fn lbctl_updates_limits_and_lifts_them() {
    let t = Bed::new();
    let c = t.sleeper_with(json!({"name": "box"}));
    let done = t.lbctl(&["update", "--memory", "64m", "--pids-limit", "33", "box"]);
    assert!(done.status.success(), "{done:?}");
    let now = t.inspect(&id(&c));
    assert_eq!(now.config.resources.memory, Some(64 * MIB));
    assert_eq!(knob(&now, "pids", "pids.max", "pids.max"), "33");
    let done = t.lbctl(&["update", "--lift", "memory", "box"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(t.inspect("box").config.resources.memory, None);
    let nothing = t.lbctl(&["update", "box"]);
    assert!(!nothing.status.success(), "{nothing:?}");
    t.finish();
}

#[test]
fn a_fork_bomb_stays_within_its_limit_and_ends_with_its_container() {
    let t = Bed::new();
    let bomb = "f() { f | f & }; f; echo ready; while :; do sleep 0.1; done";
    let c = t.start(&with(
        busybox(&["sh", "-c", bomb]),
        json!({"resources": {"pids_limit": 100}}),
    ));
    let count = || -> u64 {
        let current = knob(&c, "pids", "pids.current", "pids.current");
        current.parse().unwrap()
    };
    let max = || knob(&c, "pids", "pids.events", "pids.events");
    proc::until("the limit is hit", || !max().ends_with("max 0"));
    assert!(count() <= 100, "{}", count());
    t.remove(&id(&c));
    t.finish();
}

#[test]
fn pause_and_removal_reach_cgroups_below_the_containers_own() {
    let t = Bed::new();
    let c = t.sleeper();
    let exec = t.post_json(
        &format!("/v1/containers/{}/execs", id(&c)),
        &json!({"command": ["sh", "-c", "while :; do sleep 0.05; done"]}),
    );
    let exec: Exec = exec.expect(201).json();
    let pid = exec.pid.expect("it runs");
    // As a container with a cgroup file system of its own would do it.
    for dir in c
        .cgroups
        .values()
        .collect::<std::collections::BTreeSet<_>>()
    {
        let below = Path::new(dir).join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let _paused = t
        .post(&format!("/v1/containers/{}/pause", id(&c)))
        .expect(200);
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    };
    let wchan = || std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let before = ticks();
    assert!(
        wchan().contains("freez") || ticks() == before,
        "{}",
        wchan()
    );
    t.remove(&id(&c));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    t.finish();
}

/// `open` of a device node that the container makes itself.
fn open_made_node(t: &Bed, numbers: &str, more: Value) -> String {
    let numbers = numbers.replace(':', " ");
    let script = format!("mknod /dev/made b {numbers} && exec 3</dev/made && echo opened");
    let host = json!({"namespaces": {"user": "host"}});
    let config = busybox(&["sh", "-c", &format!("({script}) 2>&1")]);
    let config = with(with(config, host), more);
    t.run(&config).1
}

#[test]
fn a_node_of_the_machines_disk_opens_in_privileged_containers_only() {
    let t = Bed::new();
    let disk = a_disk();
    let mknod = json!({"capabilities": {"add": ["MKNOD"]}});
    let refused = open_made_node(&t, &disk, mknod);
    assert!(refused.contains("not permitted"), "{refused}");
    assert!(!refused.contains("opened"), "{refused}");
    // The other side: without the filter nothing else stands in the way.
    let opened = open_made_node(&t, &disk, json!({"privileged": true}));
    assert!(
        opened.contains("opened")
            || opened.contains("No medium")
            || opened.contains("No such device"),
        "{opened}"
    );
    t.finish();
}

#[test]
fn the_default_devices_work_under_the_filter() {
    let t = Bed::new();
    let out = t.sh("for d in null zero full random urandom tty; do \
           [ -c /dev/$d ] || echo no $d; done; \
         head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; \
         echo x 2>/dev/null > /dev/full || echo full; \
         mknod /dev/x c 1 3 2>/dev/null || echo no mknod");
    assert_eq!(out, "4\n4\nfull\nno mknod\n");
    t.finish();
}
