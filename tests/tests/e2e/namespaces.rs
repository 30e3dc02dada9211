//! Namespaces: new, shared, joined; what the API says of them equals what the kernel says.

use littlebox_tests::prelude::*;

#[track_caller]
fn namespaces(t: &Bed, c: &str) -> BTreeMap<String, ContainerNamespace> {
    let answer: ContainerNamespaces = t
        .get(&format!("/v1/containers/{c}/namespaces"))
        .expect(200)
        .json();
    answer
        .namespaces
        .into_iter()
        .map(|n| (n.kind.clone(), n))
        .collect()
}

#[track_caller]
fn sleeper_with(t: &Bed, more: Value) -> Container {
    t.sleeper_with(more)
}

#[test]
fn every_type_is_new_by_default_and_told_as_the_kernel_has_it() {
    let t = Bed::new();
    let container = t.sleeper();
    let told = namespaces(&t, &id(&container));
    assert_eq!(told.len(), 8);
    for kind in proc::NAMESPACES {
        let ns = &told[kind];
        let mine = proc::namespace(std::process::id(), kind);
        assert_eq!(ns.inode, proc::namespace(pid1(&container), kind), "{kind}");
        assert_eq!(ns.host_inode, mine, "{kind}");
        assert!(!ns.is_host && ns.inode != mine, "{kind}");
        assert!(ns.shared_with.is_empty(), "{kind}");
    }
    t.finish();
}

#[test]
fn inodes_equal_what_ls_prints() {
    let t = Bed::new();
    let container = t.sleeper();
    let told = namespaces(&t, &id(&container));
    let out = std::process::Command::new("ls")
        .arg("-Li")
        .arg(format!("/proc/{}/ns", pid1(&container)))
        .output()
        .unwrap();
    let listing = String::from_utf8(out.stdout).unwrap();
    for kind in proc::NAMESPACES {
        let line = format!("{} {kind}", told[kind].inode);
        assert!(
            listing.lines().any(|l| l.trim() == line),
            "{line:?} is not in\n{listing}"
        );
    }
    t.finish();
}

#[test]
fn host_keeps_the_hosts_namespace_for_each_type() {
    let t = Bed::new();
    for kind in ["uts", "ipc", "net", "pid", "cgroup", "time", "user"] {
        let container = sleeper_with(&t, json!({"namespaces": {kind: "host"}}));
        for other in proc::NAMESPACES {
            let mine = proc::namespace(std::process::id(), other);
            let its = proc::namespace(pid1(&container), other);
            assert_eq!(
                its == mine,
                other == kind,
                "{kind}: host, looking at {other}"
            );
        }
        t.remove(&id(&container));
    }
    t.finish();
}

#[test]
fn each_type_is_shared_with_another_container_by_name() {
    let t = Bed::new();
    let first = sleeper_with(&t, json!({"name": "first"}));
    for kind in ["uts", "ipc", "net", "pid", "cgroup", "time", "user"] {
        let second = sleeper_with(
            &t,
            json!({"name": "second", "namespaces": {kind: "container:first"}}),
        );
        for other in proc::NAMESPACES {
            let same =
                proc::namespace(pid1(&first), other) == proc::namespace(pid1(&second), other);
            assert_eq!(same, other == kind, "{kind}: looking at {other}");
        }
        let told = namespaces(&t, "second");
        assert_eq!(told[kind].shared_with, ["first"], "{kind}");
        t.remove("second");
    }
    t.finish();
}

#[test]
fn a_namespace_is_joined_by_pid() {
    let t = Bed::new();
    let first = t.sleeper();
    for kind in ["uts", "ipc", "net", "user"] {
        let second = sleeper_with(
            &t,
            json!({"namespaces": {kind: format!("pid:{}", pid1(&first))}}),
        );
        assert_eq!(
            proc::namespace(pid1(&first), kind),
            proc::namespace(pid1(&second), kind)
        );
        t.remove(&id(&second));
    }
    t.finish();
}

#[test]
fn a_shared_network_namespace_shares_its_loopback_ports() {
    let t = Bed::new();
    let server = t.start(&with(
        busybox(&["sh", "-c", "nc -ll -p 4321 -e echo hello"]),
        json!({"name": "server"}),
    ));
    let (exit, out) = t.run(&with(
        busybox(&[
            "sh",
            "-c",
            "for i in $(seq 100); do out=$(nc 127.0.0.1 4321 </dev/null 2>/dev/null) && echo $out && exit 0; sleep 0.05; done; exit 1",
        ]),
        json!({"namespaces": {"net": "container:server"}}),
    ));
    assert_eq!((code(&exit), out.as_str()), (Some(0), "hello\n"));
    t.remove(&id(&server));
    t.finish();
}

#[test]
fn a_shared_pid_namespace_sees_the_other_containers_processes() {
    let t = Bed::new();
    let _first = t.start(&with(busybox(&["sleep", "4242"]), json!({"name": "first"})));
    let out = t.sh_with("ps", json!({"namespaces": {"pid": "container:first"}}));
    assert!(out.contains("sleep 4242"), "{out}");
    t.finish();
}

#[test]
fn a_container_that_does_not_run_cannot_be_shared_with() {
    let t = Bed::new();
    t.create(&with(busybox(&["true"]), json!({"name": "idle"})));
    let config = with(
        sleeper_config(),
        json!({"namespaces": {"net": "container:idle"}}),
    );
    let response = t.post_json("/v1/containers?start=true", &config);
    assert!(
        matches!(response.status(), 409 | 422),
        "{} {}",
        response.status(),
        response.text()
    );
    let missing = with(
        sleeper_config(),
        json!({"namespaces": {"net": "container:nobody"}}),
    );
    let response = t.post_json("/v1/containers?start=true", &missing);
    assert!(
        matches!(response.status(), 400 | 404 | 422),
        "{} {}",
        response.status(),
        response.text()
    );
    t.finish();
}

#[test]
fn a_user_namespace_has_the_maps_that_were_asked_for() {
    let t = Bed::new();
    let map = json!([{"container_id": 0, "host_id": 100_000, "size": 65_536}]);
    let config = with(
        busybox(&[
            "sh",
            "-c",
            "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /made; sleep 1000",
        ]),
        json!({"namespaces": {"user": "new"}, "id_maps": {"uid": map, "gid": map}}),
    );
    let container = t.start(&config);
    let c = id(&container);
    proc::until("it has written", || t.stdout(&c).lines().count() == 3);
    let out = t.stdout(&c);
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["0"]);
    assert_eq!(lines[1], ["0", "100000", "65536"]);
    assert_eq!(lines[2], ["0", "100000", "65536"]);
    let uid = proc::status(pid1(&container))["Uid"].clone();
    assert!(uid.starts_with("100000"), "{uid}");
    let told = namespaces(&t, &c);
    assert!(!told["user"].is_host);
    assert_ne!(
        proc::namespace(pid1(&container), "user"),
        proc::namespace(std::process::id(), "user")
    );
    for kind in ["uts", "ipc", "net", "pid", "mnt"] {
        if let Some(owner) = told[kind].owner_user_inode {
            assert_eq!(owner, told["user"].inode, "owner of {kind}");
        }
    }
    t.finish();
}

#[test]
fn the_machine_wide_list_names_containers() {
    let t = Bed::new();
    let container = sleeper_with(&t, json!({"name": "named"}));
    let all = t.get("/v1/namespaces").expect(200).value();
    let all: Vec<NamespaceInfo> = serde_json::from_value(all["items"].clone()).unwrap();
    for kind in ["mnt", "uts", "ipc", "net", "pid", "cgroup", "time"] {
        let inode = proc::namespace(pid1(&container), kind);
        let found = all.iter().find(|n| n.kind == kind && n.inode == inode);
        let found = found.unwrap_or_else(|| panic!("{kind} {inode} is not listed"));
        assert_eq!(found.containers, ["named"], "{kind}");
        assert!(found.processes >= 1);
        let one: NamespaceInfo = t
            .get(&format!("/v1/namespaces/{kind}/{inode}"))
            .expect(200)
            .json();
        assert_eq!(one.containers, ["named"]);
    }
    let only = t.get("/v1/namespaces?type=uts").expect(200).value();
    let only: Vec<NamespaceInfo> = serde_json::from_value(only["items"].clone()).unwrap();
    assert!(!only.is_empty() && only.iter().all(|n| n.kind == "uts"));
    t.get("/v1/namespaces/uts/1")
        .problem(404, "namespace_not_found");
    t.finish();
}

#[test]
fn the_tree_puts_a_pid_namespace_below_its_parent() {
    let t = Bed::new();
    let container = t.sleeper();
    let inode = proc::namespace(pid1(&container), "pid");
    let parent = proc::namespace(std::process::id(), "pid");
    fn find<'a>(
        nodes: &'a [NamespaceNode],
        above: Option<u64>,
        kind: &str,
        inode: u64,
    ) -> Option<(&'a NamespaceNode, Option<u64>)> {
        for node in nodes {
            if node.info.kind == kind && node.info.inode == inode {
                return Some((node, above));
            }
            let below = find(&node.children, Some(node.info.inode), kind, inode);
            if below.is_some() {
                return below;
            }
        }
        None
    }
    let tree = t.get("/v1/namespaces/tree?by=parent").expect(200).value();
    let tree: Vec<NamespaceNode> = serde_json::from_value(tree["items"].clone()).unwrap();
    let (_, above) = find(&tree, None, "pid", inode).expect("it is in the tree");
    assert_eq!(above, Some(parent));

    let user = proc::namespace(pid1(&container), "user");
    let tree = t.get("/v1/namespaces/tree?by=owner").expect(200).value();
    let tree: Vec<NamespaceNode> = serde_json::from_value(tree["items"].clone()).unwrap();
    let (_, above) = find(&tree, None, "pid", inode).expect("it is in the tree");
    assert_eq!(above, Some(user));
    t.finish();
}

#[test]
fn a_diff_tells_what_is_shared_and_what_differs_inside() {
    let t = Bed::new();
    sleeper_with(&t, json!({"name": "a", "hostname": "box-a"}));
    sleeper_with(
        &t,
        json!({"name": "b", "hostname": "box-b", "namespaces": {"net": "container:a"}}),
    );
    let diff: NamespaceDiff = t.get("/v1/namespaces/diff?a=a&b=b").expect(200).json();
    let types: BTreeMap<&str, &NamespaceTypeDiff> =
        diff.types.iter().map(|d| (d.kind.as_str(), d)).collect();
    assert_eq!(types.len(), 8);
    assert!(types["net"].shared);
    assert!(!types["uts"].shared && !types["user"].shared);
    let hostname = &types["uts"].differences["hostname"];
    assert_eq!(
        (&hostname.a, &hostname.b),
        (&json!("box-a"), &json!("box-b"))
    );
    let diff: NamespaceDiff = t.get("/v1/namespaces/diff?a=host&b=a").expect(200).json();
    let shared: Vec<&str> = diff
        .types
        .iter()
        .filter(|d| d.shared)
        .map(|d| d.kind.as_str())
        .collect();
    assert!(shared.is_empty(), "{shared:?}");
    t.finish();
}

#[test]
fn the_plan_of_a_started_container_has_timings_and_inodes() {
    let t = Bed::new();
    let container = t.sleeper();
    let plan: Plan = t
        .get(&format!("/v1/containers/{}/plan", id(&container)))
        .expect(200)
        .json();
    let steps: Vec<&str> = plan.steps.iter().map(|s| s.step.as_str()).collect();
    for step in ["rootfs", "clone", "pivot_root", "exec"] {
        assert!(steps.contains(&step), "{step} is not in {steps:?}");
    }
    let timed = plan
        .steps
        .iter()
        .filter(|s| s.duration_ns.is_some())
        .count();
    assert!(timed > 5, "{plan:?}");
    assert!(plan.total_ns.expect("it was started") > 0);
    for ns in &plan.namespaces {
        assert_eq!(ns.container, proc::namespace(pid1(&container), &ns.kind));
        assert_eq!(ns.host, proc::namespace(std::process::id(), &ns.kind));
    }
    assert_eq!(plan.namespaces.len(), 8);
    t.finish();
}

#[test]
fn a_dry_run_shows_the_plan_and_makes_nothing() {
    let t = Bed::new();
    let plan: Plan = t
        .post_json("/v1/containers?dry_run=true", &sleeper_config())
        .expect(200)
        .json();
    let commands: Vec<&String> = plan.steps.iter().flat_map(|s| &s.commands).collect();
    for word in ["unshare", "mount", "pivot_root"] {
        assert!(
            commands.iter().any(|c| c.contains(word)),
            "{word} is in none of {commands:?}"
        );
    }
    assert!(plan.total_ns.is_none());
    assert!(t.list().is_empty());
    t.finish();
}
