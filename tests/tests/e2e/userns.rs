//! A user namespace per container: ids of its own, mounts seen through them, and what that keeps
//! from whom.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use littlebox_tests::prelude::*;

/// First ids of the container's ranges, which must be the same for users and groups.
#[track_caller]
fn range(container: &Container) -> (u32, u32) {
    let user = &container.user_namespace;
    assert_eq!((user.uid_map.len(), &user.uid_map), (1, &user.gid_map));
    assert_eq!(user.uid_map[0].container_id, 0);
    (user.uid_map[0].host_id, user.uid_map[0].size)
}

/// A directory of the test's own on the host.
fn directory(t: &Bed, name: &str, owner: (u32, u32)) -> String {
    let path = t.dirs.base_path.join(name);
    fs::create_dir(&path).unwrap();
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn bind(source: &str, more: Value) -> Value {
    with(
        json!({"type": "bind", "source": source, "destination": "/m"}),
        more,
    )
}

/// Owner, group and permission bits of a file of the host.
fn owner(path: &str) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// Claims of this daemon in the registry of the machine.
fn claims(t: &Bed) -> BTreeSet<String> {
    let state = t.dirs.state.canonicalize().unwrap();
    fs::read_dir("/run/littlebox-ids")
        .unwrap()
        .flatten()
        .filter(|claim| fs::read_link(claim.path()).is_ok_and(|owner| owner == state))
        .map(|claim| claim.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn root_inside_is_an_id_of_its_own_outside() {
    let t = Bed::new();
    let container = t.sleeper();
    let (first, size) = range(&container);
    assert_eq!(container.user_namespace.source, "new");
    assert_eq!(container.user_namespace.ids, Some(IdSource::Pool));
    let inside = t.exec(
        &id(&container),
        &["cat", "/proc/self/uid_map", "/proc/self/gid_map"],
    );
    let line = format!("0 {first} {size}");
    let lines: Vec<String> = inside
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(lines, [line.clone(), line]);
    assert_eq!(t.exec(&id(&container), &["id", "-u"]), "0\n");
    let status = proc::status(pid1(&container));
    for field in ["Uid", "Gid"] {
        let ids: Vec<&str> = status[field].split_whitespace().collect();
        assert!(ids.iter().all(|id| *id == first.to_string()), "{ids:?}");
    }
    let states: Vec<_> = t.inspect(&id(&container)).idmaps;
    assert_eq!(states.len(), 1, "{states:?}");
    assert_eq!(states[0].destination, "/");
    assert_eq!(states[0].state, IdmapState::Mapped);
    t.finish();
}

#[test]
fn ranges_of_parallel_creates_never_overlap_and_are_free_again_after_removal() {
    let t = Bed::new();
    let ranges: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let create = || {
            let config = busybox(&["true"]);
            (0..8)
                .map(|_| range(&t.create(&config)))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let units: BTreeSet<String> = ranges
        .iter()
        .map(|(f, _)| (f / 65_536).to_string())
        .collect();
    assert_eq!(units.len(), 32);
    assert!(ranges.iter().all(|(_, size)| *size == 65_536));
    assert!(claims(&t).is_superset(&units));
    for container in t.list() {
        t.remove(&container.id.to_string());
    }
    let again = range(&t.create(&busybox(&["true"])));
    assert!(ranges.contains(&again), "a freed range is given again");
    t.finish();
}

#[test]
fn a_failed_create_and_a_failed_start_keep_no_range() {
    let t = Bed::builder()
        .config("[id_pool]\nstart = 589824000\ncount = 65536\n")
        .build();
    let bad = with(
        busybox(&["true"]),
        json!({"mounts": [bind("/nowhere/at/all", json!({}))]}),
    );
    for _ in 0..3 {
        t.post_json("/v1/containers", &bad)
            .problem(400, "invalid_request");
        let missing = with(busybox(&["/no/such/program"]), json!({"auto_remove": true}));
        assert_eq!(
            t.post_json("/v1/containers?start=true", &missing).status(),
            422
        );
        proc::until("it has removed itself", || t.list().is_empty());
    }
    let only = t.sleeper();
    assert_eq!(range(&only), (589_824_000, 65_536));
    let full = t
        .post_json("/v1/containers", &busybox(&["true"]))
        .problem(503, "resources_exhausted");
    assert!(full.detail.contains("id ranges"), "{full:?}");
    // Without a user namespace of its own a container needs no ids.
    t.create(&with(
        busybox(&["true"]),
        json!({"namespaces": {"user": "host"}}),
    ));
    t.remove(&id(&only));
    t.create(&busybox(&["true"]));
    t.finish();
}

#[test]
fn ranges_survive_a_killed_daemon_and_a_restart_of_the_container() {
    let mut t = Bed::new();
    let running = t.sleeper();
    let stopped = t.create(&busybox(&["sh", "-c", "cat /proc/self/uid_map"]));
    let before = (range(&running), range(&stopped));
    t.kill9();
    t.start_again();
    let after = (
        range(&t.inspect(&id(&running))),
        range(&t.inspect(&id(&stopped))),
    );
    assert_eq!(before, after);
    let fresh = range(&t.create(&busybox(&["true"])));
    assert!(fresh != before.0 && fresh != before.1);
    let _started = t
        .post(&format!("/v1/containers/{}/start", id(&stopped)))
        .expect(200);
    t.wait(&id(&stopped));
    let map = t.stdout(&id(&stopped));
    assert!(map.contains(&before.1.0.to_string()), "{map}");
    t.finish();
}

#[test]
fn a_claim_without_a_row_is_given_up_at_the_next_start() {
    let mut t = Bed::builder()
        .env("LITTLEBOX_TEST_CRASH", "create.before")
        .faults()
        .build();
    let _broken = t
        .client
        .try_send(&Request::new(Method::Post, "/v1/containers").json(&busybox(&["true"])));
    t.wait_crashed();
    assert_eq!(claims(&t).len(), 1, "it was claimed before the crash");
    t.options.env.clear();
    t.start_again();
    assert!(t.list().is_empty());
    assert!(claims(&t).is_empty());
    t.finish();
}

#[test]
fn a_volume_is_seen_with_the_hosts_owners_moved_to_the_container() {
    let t = Bed::new();
    let dir = directory(&t, "volume", (0, 0));
    fs::write(format!("{dir}/secret"), "s3cret").unwrap();
    fs::set_permissions(format!("{dir}/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = "stat -c '%u %g' /m /m/secret; cat /m/secret; touch /m/made; \
                  touch /m/theirs && chown 1000:1001 /m/theirs";
    let container = t.start(&with(
        busybox(&["sh", "-c", script]),
        json!({"mounts": [bind(&dir, json!({}))]}),
    ));
    assert_eq!(code(&t.exit(&id(&container))), Some(0));
    assert_eq!(t.stdout(&id(&container)), "0 0\n0 0\ns3cret");
    assert_eq!(owner(&format!("{dir}/made")), (0, 0, 0o644));
    assert_eq!(owner(&format!("{dir}/theirs")), (1000, 1001, 0o644));
    let told = t.inspect(&id(&container)).idmaps;
    let volume = told.iter().find(|m| m.destination == "/m").unwrap();
    assert_eq!(volume.state, IdmapState::Mapped);
    t.finish();
}

#[test]
fn without_an_idmap_a_hosts_file_is_nobodys_and_its_secret_is_kept() {
    let t = Bed::new();
    let dir = directory(&t, "plain", (0, 0));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(format!("{dir}/secret"), "s3cret").unwrap();
    fs::set_permissions(format!("{dir}/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = "id -u; stat -c '%u %g' /m/secret; cat /m/secret 2>/dev/null; chmod 666 /m/secret 2>/dev/null; \
                  chown 0 /m/secret 2>/dev/null; cat /m/secret 2>/dev/null; touch /m/made";
    let container = t.start(&with(
        busybox(&["sh", "-c", script]),
        json!({"mounts": [bind(&dir, json!({"idmap": false}))]}),
    ));
    assert_eq!(code(&t.exit(&id(&container))), Some(0));
    assert_eq!(t.stdout(&id(&container)), "0\n65534 65534\n");
    assert_eq!(owner(&format!("{dir}/secret")), (0, 0, 0o600));
    let (first, _) = range(&container);
    assert_eq!(owner(&format!("{dir}/made")), (first, first, 0o644));
    let told = t.inspect(&id(&container)).idmaps;
    assert_eq!(
        told.iter().find(|m| m.destination == "/m").unwrap().state,
        IdmapState::Off
    );
    // The defence off: the same container in the host's user namespace reads it.
    let container = t.start(&with(
        busybox(&["cat", "/m/secret"]),
        json!({"mounts": [bind(&dir, json!({}))], "namespaces": {"user": "host"}}),
    ));
    t.wait(&id(&container));
    assert_eq!(t.stdout(&id(&container)), "s3cret");
    t.finish();
}

#[test]
fn a_volume_that_is_made_belongs_to_the_containers_root_either_way() {
    let t = Bed::new();
    let base = directory(&t, "made", (0, 0));
    let mount = |name: &str, more: Value| {
        let source = format!("{base}/{name}");
        let mount = json!({"type": "bind", "source": source, "destination": format!("/{name}"), "create": true});
        with(mount, more)
    };
    let mounts = json!([mount("a", json!({})), mount("b", json!({"idmap": false}))]);
    let container = t.start(&with(
        busybox(&[
            "sh",
            "-c",
            "touch /a/x /b/x; stat -c '%u %g' /a /b /a/x /b/x",
        ]),
        json!({"mounts": mounts}),
    ));
    t.wait(&id(&container));
    assert_eq!(t.stdout(&id(&container)), "0 0\n".repeat(4));
    let (first, _) = range(&container);
    assert_eq!(owner(&format!("{base}/a/x")).0, 0);
    assert_eq!(owner(&format!("{base}/b/x")).0, first);
    t.finish();
}

#[test]
fn a_source_that_cannot_be_idmapped_is_told_and_the_container_runs() {
    let t = Bed::new();
    // Devices have no FS_ALLOW_IDMAP; below `/` there are mounts that have none either.
    let mounts = json!([
        {"type": "bind", "source": "/dev/null", "destination": "/m/null"},
        {"type": "bind", "source": "/proc/version", "destination": "/m/version"},
        {"type": "bind", "source": "/dev", "destination": "/m/dev", "recursive": false},
        {"type": "bind", "source": "/", "destination": "/m/host", "read_only": true},
    ]);
    let container = t.start(&with(
        busybox(&[
            "sh",
            "-c",
            "echo x >/m/null && cat /m/version && stat -c %u /m/host/etc /m/host/proc",
        ]),
        json!({"mounts": mounts}),
    ));
    assert_eq!(code(&t.exit(&id(&container))), Some(0));
    assert!(t.stdout(&id(&container)).ends_with("0\n65534\n"));
    let container = t.inspect(&id(&container));
    let states: BTreeMap<&str, IdmapState> = container
        .idmaps
        .iter()
        .map(|m| (m.destination.as_str(), m.state))
        .collect();
    assert_eq!(states["/m/null"], IdmapState::NotApplicable);
    assert_eq!(states["/m/version"], IdmapState::NotApplicable);
    assert_eq!(states["/m/dev"], IdmapState::Refused);
    assert_eq!(states["/m/host"], IdmapState::Partly);
    let warnings = container.warnings.join("\n");
    assert!(warnings.contains("/dev is not idmapped"), "{warnings}");
    assert!(!warnings.contains("/dev/null"), "{warnings}");
    let required = with(
        busybox(&["true"]),
        json!({"mounts": [bind("/dev", json!({"idmap": true, "recursive": false}))]}),
    );
    let problem = t
        .post_json("/v1/containers?start=true", &required)
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("mounts"), "{problem:?}");
    t.finish();
}

/// Kernels before 6.15 take only attached layers, and some file systems none: both ways are forced.
#[test]
fn the_root_works_in_every_way_that_it_can_be_idmapped() {
    let t = Bed::builder().faults().build();
    for (way, state, below) in [
        ("auto", IdmapState::Mapped, "0 0\n"),
        ("attached", IdmapState::Mapped, "0 0\n"),
        ("refused", IdmapState::Refused, "65534 65534\n"),
    ] {
        let script = "stat -c '%u %g' /etc/passwd; touch /made && echo x > /tmp/t && mkdir /d; \
                      stat -c '%u %g' / /made /d; id -u; trap 'exit 0' TERM; echo ready; \
                      while :; do sleep 1000 & wait $!; done";
        let config = with(
            busybox(&["sh", "-c", script]),
            json!({"labels": {"littlebox.test/rootfs": way}}),
        );
        let container = t.start(&config);
        let c = id(&container);
        t.ready(&c);
        assert_eq!(
            t.stdout(&c),
            format!("{below}0 0\n0 0\n0 0\n0\nready\n"),
            "{way}"
        );
        let told = t.inspect(&c);
        assert_eq!(told.idmaps[0].state, state, "{way}");
        assert_eq!(
            told.warnings.is_empty(),
            state == IdmapState::Mapped,
            "{way}"
        );
        // Into and out of it, running and stopped: the ids are the container's.
        let host = t.dirs.base_path.join(format!("file-{way}"));
        fs::write(&host, "content").unwrap();
        for name in ["running", "stopped"] {
            if name == "stopped" {
                let _stopped = t.post(&format!("/v1/containers/{c}/stop")).expect(200);
                t.wait(&c);
            }
            t.lbctl_ok(&["cp", host.to_str().unwrap(), &format!("{c}:/d/{name}")]);
            let stat: FileStat = t
                .get(&format!(
                    "/v1/containers/{c}/files?path=/d/{name}&stat=true"
                ))
                .expect(200)
                .json();
            assert_eq!((stat.uid, stat.gid, stat.size), (0, 0, 7), "{way} {name}");
            let stat: FileStat = t
                .get(&format!("/v1/containers/{c}/files?path=/made&stat=true"))
                .expect(200)
                .json();
            assert_eq!((stat.uid, stat.gid), (0, 0), "{way} {name}");
        }
        let changes: Changes = t
            .get(&format!("/v1/containers/{c}/changes"))
            .expect(200)
            .json();
        assert!(
            changes
                .items
                .iter()
                .any(|change| change.path == "/d/stopped"),
            "{way}"
        );
        // Once more on the same upper layer.
        let _started = t.post(&format!("/v1/containers/{c}/start")).expect(200);
        proc::until("it has started again", || {
            t.stdout(&c).matches("ready").count() == 2
        });
        assert_eq!(
            t.exec(&c, &["stat", "-c", "%u %g", "/d/stopped"]),
            "0 0\n",
            "{way}"
        );
        t.remove(&c);
    }
    t.finish();
}

#[test]
fn containers_that_share_processes_cannot_signal_or_trace_each_other() {
    let t = Bed::new();
    let victim = t.sleeper_with(json!({"name": "victim"}));
    let script = "kill -9 1 2>/dev/null && echo KILLED; cat /proc/1/environ 2>/dev/null && echo READ; \
                  ls /proc/1/root/ 2>/dev/null && echo ENTERED; ls /proc/1/fd 2>/dev/null && echo LISTED; \
                  id -u";
    let all = json!({"capabilities": {"add": ["SYS_PTRACE", "KILL"]},
                     "namespaces": {"pid": "container:victim"}});
    assert_eq!(t.sh_with(script, all.clone()), "0\n");
    assert!(proc::alive(pid1(&victim)));
    // The defence off: who shares the user namespace as well can do all of it but kill PID 1.
    let together = json!({"capabilities": {"add": ["SYS_PTRACE", "KILL"]},
                          "namespaces": {"pid": "container:victim", "user": "container:victim"}});
    let out = t.sh_with(script, together);
    assert!(out.contains("READ") && out.contains("LISTED"), "{out}");
    let shared = t.inspect("victim");
    let other = t.sleeper_with(json!({"name": "o", "namespaces": {"user": "container:victim"}}));
    assert_eq!(other.user_namespace.uid_map, shared.user_namespace.uid_map);
    assert_eq!(other.user_namespace.ids, None);
    t.finish();
}

#[test]
fn the_hosts_processes_are_seen_but_out_of_reach() {
    let t = Bed::new();
    let mut sleep = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let script = format!(
        "cat /proc/{0}/comm; kill -9 {0} 2>/dev/null && echo KILLED; \
         cat /proc/{0}/environ 2>/dev/null && echo READ; true",
        sleep.id()
    );
    let out = t.sh_with(&script, json!({"namespaces": {"pid": "host"}}));
    assert_eq!(out, "sleep\n");
    assert!(sleep.try_wait().unwrap().is_none());
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    t.finish();
}

#[test]
fn each_namespace_can_be_the_hosts_or_anothers_beside_a_user_namespace_of_its_own() {
    let t = Bed::new();
    t.sleeper_with(json!({"name": "first"}));
    let script = "id -u; ls /proc/self >/dev/null && test -d /sys/class/net && test -d /dev/mqueue && \
                  test -e /sys/fs/cgroup && echo x >/dev/null && echo fine; \
                  mkdir /sys/x 2>/dev/null && echo WRITABLE; true";
    for kind in ["uts", "ipc", "net", "pid", "cgroup", "time"] {
        for source in ["host", "container:first"] {
            let out = t.sh_with(script, json!({"namespaces": {kind: source}}));
            assert_eq!(out, "0\nfine\n", "{kind}: {source}");
        }
    }
    let all = json!({"namespaces": {"ipc": "container:first", "net": "container:first",
        "pid": "container:first", "uts": "container:first", "cgroup": "container:first",
        "user": "container:first"}});
    assert_eq!(t.sh_with(script, all), "0\nfine\n");
    t.finish();
}

#[test]
fn privileged_means_the_hosts_user_namespace_unless_asked_otherwise() {
    let t = Bed::new();
    let map = |more: Value| t.sh_with("cat /proc/self/uid_map", more);
    let whole = map(json!({"privileged": true}));
    assert!(
        whole.split_whitespace().eq(["0", "0", "4294967295"]),
        "{whole}"
    );
    let own = map(json!({"privileged": true, "namespaces": {"user": "new"}}));
    assert!(own.trim_end().ends_with("65536"), "{own}");
    let out = t.lbctl_ok(&[
        "run",
        "--rm",
        "--userns",
        "host",
        &busybox_dir(),
        "cat",
        "/proc/self/uid_map",
    ]);
    assert!(out.split_whitespace().eq(["0", "0", "4294967295"]), "{out}");
    let out = t.lbctl_ok(&[
        "run",
        "--rm",
        "--userns",
        "auto",
        &busybox_dir(),
        "cat",
        "/proc/self/uid_map",
    ]);
    assert!(out.trim_end().ends_with("65536"), "{out}");
    t.finish();
}

fn busybox_dir() -> String {
    busybox(&["true"])["rootfs"].as_str().unwrap().to_owned()
}

#[test]
fn maps_of_the_request_stay_out_of_the_pool() {
    let t = Bed::new();
    let (first, _) = range(&t.create(&busybox(&["true"])));
    let map = json!([{"container_id": 0, "host_id": first, "size": 10}]);
    let problem = t
        .post_json(
            "/v1/containers",
            &with(
                busybox(&["true"]),
                json!({"id_maps": {"uid": map, "gid": map}}),
            ),
        )
        .problem(400, "invalid_request");
    assert_eq!(problem.pointer.as_deref(), Some("/id_maps/uid/0"));
    let map = json!([{"container_id": 0, "host_id": 100_000, "size": 65_536}]);
    let given = t.create(&with(
        busybox(&["true"]),
        json!({"id_maps": {"uid": map, "gid": map}}),
    ));
    assert_eq!(given.user_namespace.ids, Some(IdSource::Given));
    assert_eq!(range(&given), (100_000, 65_536));
    t.finish();
}

#[test]
fn sysctls_terminals_groups_and_limits_work_for_an_unprivileged_root() {
    let t = Bed::new();
    let out = t.sh_with(
        "hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max; \
         id -G; ulimit -u; cat /proc/self/setgroups",
        json!({
            "sysctls": {"kernel.hostname": "named", "net.ipv4.ip_forward": "1",
                        "kernel.shmmax": "12345", "fs.mqueue.msg_max": "20"},
            "groups": ["77"], "rlimits": {"nproc": {"soft": 100, "hard": 100}},
        }),
    );
    assert_eq!(out, "named\n1\n12345\n20\n0 77 100\n100\nallow\n");
    let out = t.sh_with(
        "cat /proc/sys/kernel/shmmax",
        json!({"sysctls": {"kernel.shmmax": "12345"}, "namespaces": {"pid": "host", "net": "host"}}),
    );
    assert_eq!(out, "12345\n");
    let mut pty = t.lbctl_pty(&[
        "run",
        "--rm",
        "-it",
        &busybox_dir(),
        "sh",
        "-c",
        "test -t 0 && stat -c '%u %t:%T' /dev/console; tty; stat -c %u $(tty); echo over >/dev/tty",
    ]);
    pty.until("over");
    assert_eq!(pty.wait(), 0, "{}", pty.text());
    let seen = pty.text();
    assert!(
        seen.contains("0 88:0") && seen.contains("/dev/pts/0") && seen.contains("over"),
        "{seen}"
    );
    t.finish();
}

#[test]
fn devices_are_nodes_that_belong_to_root_and_open() {
    let t = Bed::new();
    let out = t.sh(
        "for d in null zero full random urandom tty; do stat -c '%n %u %g %a %t:%T' /dev/$d; done; \
         grep -c ' /dev/' /proc/mounts; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
         (echo x > /dev/full) 2>/dev/null || echo full; mknod /dev/new c 1 3 2>/dev/null || echo refused; \
         touch /dev/shm/x && echo shm",
    );
    let expected = "/dev/null 0 0 666 1:3\n/dev/zero 0 0 666 1:5\n/dev/full 0 0 666 1:7\n\
        /dev/random 0 0 666 1:8\n/dev/urandom 0 0 666 1:9\n/dev/tty 0 0 666 5:0\n3\n3\n3\nfull\nrefused\nshm\n";
    assert_eq!(
        out, expected,
        "no mount for a node: pts, shm and mqueue alone"
    );
    t.finish();
}
