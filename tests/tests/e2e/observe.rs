//! Looking at containers and at the daemon: stats, top, version, health, metrics.

use littlebox_tests::prelude::*;

#[test]
fn stats_tell_cpu_memory_processes_and_network() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "while :; do :; done & while :; do sleep 0.05; done",
    ])));
    let stats = || -> Stats {
        t.get(&format!("/v1/containers/{c}/stats"))
            .expect(200)
            .json()
    };
    proc::until("its CPU time grows", || stats().cpu_ns > 100_000_000);
    let now = stats();
    assert!(now.memory > 0, "{now:?}");
    assert!(now.pids >= 2, "{now:?}");
    assert!(now.networks.contains_key("lo"), "{now:?}");
    assert!(["cgroup2", "cgroup1"].contains(&now.source.as_str()));
    let (user, system) = (now.cpu_user_ns, now.cpu_system_ns);
    assert!(user.is_some_and(|n| n > 0) && system.is_some(), "{now:?}");
    assert!(now.memory_peak.is_some_and(|n| n >= now.memory), "{now:?}");
    assert!(now.memory_cache.is_some(), "{now:?}");
    assert!(
        now.io_read_ops.is_some() && now.io_write.is_some(),
        "{now:?}"
    );
    assert_eq!(now.oom_kills, 0);
    // The kernel tells of pressure in the v2 tree alone, and there unless it is switched off.
    let unified = t.inspect(&c).cgroups.get("unified").cloned();
    let file = unified.map(|dir| format!("{dir}/cpu.pressure"));
    let tells = file.is_some_and(|file| std::fs::read_to_string(file).is_ok());
    assert_eq!(now.pressure.is_some(), tells, "{now:?}");
    t.finish();
}

#[test]
fn a_limit_of_cpu_time_shows_in_the_stats() {
    let t = Bed::new();
    let config = with(
        busybox(&["sh", "-c", "while :; do :; done"]),
        json!({"resources": {"cpus": 0.05}}),
    );
    let c = id(&t.start(&config));
    let stats = || -> Stats {
        t.get(&format!("/v1/containers/{c}/stats"))
            .expect(200)
            .json()
    };
    proc::until("it was throttled", || {
        stats().cpu_throttled_periods.is_some_and(|n| n > 0)
    });
    let now = stats();
    assert!(now.cpu_periods >= now.cpu_throttled_periods, "{now:?}");
    assert!(now.cpu_throttled_ns.is_some_and(|n| n > 0), "{now:?}");
    t.finish();
}

#[test]
fn lbctl_shows_stats_in_a_table() {
    let t = Bed::new();
    let _c = t.sleeper_with(json!({"name": "measured", "resources": {"memory": 67_108_864}}));
    let table = t.lbctl_ok(&["stats", "--no-stream", "measured"]);
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    for column in ["NAME", "CPU", "MEMORY", "LIMIT", "OOM", "PIDS", "DISK READ"] {
        assert!(heading.contains(column), "{column} in {heading}");
    }
    let row = lines.next().unwrap_or_default();
    assert!(row.starts_with("measured") && row.contains("64"), "{row}");
    t.finish();
}

#[test]
fn a_stream_of_stats_has_percentages_and_ends_with_the_container() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["sh", "-c", "while :; do :; done"])));
    let mut stream = t.stream(&format!(
        "/v1/containers/{c}/stats?stream=true&interval=200ms"
    ));
    let first: Stats = stream.record().expect("one");
    let second: Stats = stream.record().expect("another");
    assert!(second.at > first.at && second.cpu_ns > first.cpu_ns);
    let percent = second.cpu_percent.expect("since the first");
    assert!(percent > 1.0 && percent < 400.0, "{percent}");
    t.remove(&c);
    while stream.line().is_some() {}
    t.finish();
}

#[test]
fn top_lists_every_process_with_both_pids() {
    let t = Bed::new();
    let container = t.start(&busybox(&["sh", "-c", "sleep 1111 & sleep 2222 & wait"]));
    let c = id(&container);
    let top = || -> Top { t.get(&format!("/v1/containers/{c}/top")).expect(200).json() };
    proc::until("both sleep", || {
        let sleeping = |p: &&TopProcess| p.command.starts_with("sleep ");
        top().processes.iter().filter(sleeping).count() == 2
    });
    let top = top();
    let first = top
        .processes
        .iter()
        .find(|p| p.container_pid == 1)
        .expect("PID 1");
    assert_eq!(first.pid, pid1(&container));
    let sleepers: Vec<_> = top
        .processes
        .iter()
        .filter(|p| p.command.starts_with("sleep "))
        .collect();
    assert_eq!(sleepers.len(), 2);
    for s in sleepers {
        assert_eq!(s.ppid, pid1(&container));
        assert_eq!(s.state, "S");
        assert_eq!(s.container_uid, 0);
        assert_ne!(s.uid, 0, "root in the container is somebody else outside");
        assert!(proc::cmdline(s.pid).starts_with("sleep "));
    }
    t.finish();
}

#[test]
fn inspect_shows_what_was_asked_for_and_where_things_are() {
    let t = Bed::new();
    let config = with(
        sleeper_config(),
        json!({"name": "seen", "labels": {"a": "b"}, "env": {"X": "y"}, "hostname": "h"}),
    );
    let container = t.start(&config);
    let shown = t.get("/v1/containers/seen").expect(200).value();
    for (key, value) in config.as_object().expect("an object") {
        assert_eq!(&shown["config"][key], value, "{key}");
    }
    let upper = container.upper_dir.expect("an overlay");
    assert!(std::path::Path::new(&upper).is_dir());
    assert!(std::path::Path::new(&container.log_path.expect("a log")).exists());
    for (controller, path) in &container.cgroups {
        let procs = std::fs::read_to_string(format!("{path}/cgroup.procs")).unwrap();
        let pid = container.summary.pid.expect("it runs").to_string();
        assert!(procs.lines().any(|l| l == pid), "{controller} {path}");
    }
    assert!(!container.cgroups.is_empty());
    t.finish();
}

#[test]
fn the_daemon_tells_its_version_features_and_limits() {
    let t = Bed::new();
    let version: VersionInfo = t.get("/v1").expect(200).json();
    assert_eq!(
        (version.name.as_str(), version.api_version.as_str()),
        ("littlebox", "v1")
    );
    assert!(version.features.contains_key("cgroup"));
    assert!(version.limits.contains_key("body_bytes"));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(version.kernel, kernel.trim());
    let health: Health = t.get("/v1/health").expect(200).json();
    assert_eq!(health.status, "ok");
    let system = t.system();
    assert_eq!(system.pid, t.pid());
    assert_eq!(system.storage_driver, "overlay");
    t.finish();
}

#[test]
fn the_contract_is_served_as_it_is_in_the_repository() {
    let t = Bed::new();
    let served = t.get("/v1/openapi.yaml").expect(200);
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../api.yaml")).unwrap();
    assert!(served.body == file);
    t.finish();
}

#[test]
fn metrics_count_containers_by_state_and_lose_what_is_gone() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let text = t.get("/metrics").expect(200).text();
    assert!(
        text.lines().any(|l| l.starts_with("littlebox_containers")
            && l.contains("running")
            && l.ends_with(" 1")),
        "{text}"
    );
    t.remove(&c);
    let text = t.get("/metrics").expect(200).text();
    assert!(!text.contains(&c), "{text}");
    t.finish();
}
