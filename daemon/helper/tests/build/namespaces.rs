//! Namespaces, new and joined, and what is set in them.

use super::*;

#[test]
fn every_namespace_is_new_and_told_by_its_inode() {
    let bed = Bed::new("for n in /proc/self/ns/*; do readlink $n; done; sleep 100");
    let container = bed.launch().unwrap();
    let launched = &container.built.launched;
    for entry in &launched.namespaces {
        let name = entry.kind.name();
        let link = fs::read_link(format!("/proc/{}/ns/{name}", launched.pid)).unwrap();
        assert_eq!(
            link.to_str().unwrap(),
            format!("{name}:[{}]", entry.container)
        );
        assert_eq!(
            entry.container == entry.host,
            entry.kind == NamespaceKind::User,
            "{name}"
        );
    }
    assert_eq!(launched.namespaces.len(), 8);
    assert!(launched.start_time > 0 && launched.helper_start_time > 0);
}

#[test]
fn a_user_namespace_maps_ids_and_the_root_is_idmapped() {
    let script = "id -u; id -g; cat /proc/self/uid_map; ls -n /etc/passwd; touch /x; \
                  echo x > /dev/null && ls -n / | grep -c ' 0 .* 0 '; echo up > /dev/stdout";
    let bed = Bed::new(script).with_user_namespace();
    let mut container = bed.launch().unwrap();
    let output = container.output();
    assert_eq!(container.wait(), ProcessExit::Code(0), "{output}");
    let warnings = &container.built.launched.warnings;
    assert!(
        warnings.iter().all(|w| !w.contains("idmapped")),
        "{warnings:?}"
    );
    assert!(
        output.starts_with("0\n0\n         0     500000      65536\n"),
        "{output}"
    );
    assert!(output.ends_with("up\n"), "{output}");
    let meta = fs::metadata(bed.path("upper/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 0);
}

#[test]
fn a_user_namespace_without_root_works() {
    let mut bed = Bed::new("id -u; id -g").with_user_namespace();
    let map = vec![IdMapping {
        container_id: 1000,
        host_id: 501_000,
        size: 10,
    }];
    (bed.plan.uid_map, bed.plan.gid_map) = (map.clone(), map);
    for option in ["upper", "work"] {
        std::os::unix::fs::chown(bed.path(option), Some(1000), Some(1000)).unwrap();
    }
    for dir in ["proc", "sys", "dev"] {
        fs::create_dir(bed.path("root").join(dir)).unwrap();
    }
    bed.plan.process.user.user = UserRef::Id(1000);
    bed.plan.process.user.group = Some(UserRef::Id(1001));
    assert_eq!(bed.output(), "1000\n1001\n");
}

#[test]
fn a_user_namespace_on_the_hosts_network_has_the_hosts_sys() {
    let mut bed = Bed::new("ls -d /sys/class/net; (mkdir /sys/x) 2>&1").with_user_namespace();
    bed.plan.namespaces.remove(&NamespaceKind::Net);
    let (output, _) = bed.run();
    assert!(output.starts_with("/sys/class/net\n"), "{output}");
    assert!(
        output.contains("Read-only") || output.contains("denied"),
        "{output}"
    );
}

#[test]
fn an_unmapped_user_is_a_clear_failure() {
    let mut bed = Bed::new("").with_user_namespace();
    bed.plan.process.user.user = UserRef::Id(70_000);
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::User, libc::EINVAL));
    assert!(failure.detail.unwrap().contains("70000"));
}

fn open_namespaces(pid: u32, kinds: &[NamespaceKind]) -> Vec<OwnedFd> {
    let open = |kind: &NamespaceKind| {
        fs::File::open(format!("/proc/{pid}/ns/{}", kind.name()))
            .unwrap()
            .into()
    };
    kinds.iter().map(open).collect()
}

#[test]
fn namespaces_of_another_container_can_be_joined() {
    for (user, kinds) in [
        (
            false,
            &[NamespaceKind::Net, NamespaceKind::Pid, NamespaceKind::Ipc][..],
        ),
        (
            false,
            &[
                NamespaceKind::Time,
                NamespaceKind::Uts,
                NamespaceKind::Cgroup,
            ],
        ),
        (true, &[NamespaceKind::User, NamespaceKind::Net]),
        (
            true,
            &[NamespaceKind::User, NamespaceKind::Pid, NamespaceKind::Ipc],
        ),
    ] {
        let mut bed = Bed::new("sleep 100");
        if user {
            bed = bed.with_user_namespace();
        }
        let target = bed.launch().unwrap();
        let pid = target.built.launched.pid;
        for (index, kind) in kinds.iter().enumerate() {
            bed.plan
                .namespaces
                .insert(*kind, NamespacePlan::Join(index));
        }
        bed.plan.process.args[3] =
            "for n in /proc/self/ns/*; do readlink $n; done; true".to_owned();
        bed.plan.cgroup.path = Some(format!("/littlebox-test/second/{}", bed.id).into());
        for dir in ["upper", "work"] {
            fs::create_dir(bed.path(&format!("{dir}2"))).unwrap();
        }
        let RootfsSource::Overlay { upper, work, .. } = &mut bed.plan.rootfs.source else {
            panic!()
        };
        (*upper, *work) = (bed.dir.path().join("upper2"), bed.dir.path().join("work2"));
        let mut second = bed.launch_with(open_namespaces(pid, kinds)).unwrap();
        let output = second.output();
        assert_eq!(second.wait(), ProcessExit::Code(0), "{kinds:?} {output}");
        for entry in &second.built.launched.namespaces {
            let name = entry.kind.name();
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            let same = output.lines().any(|line| line == theirs.to_str().unwrap());
            let host = entry.host == entry.container;
            assert_eq!(
                same,
                kinds.contains(&entry.kind) || host,
                "{kinds:?} {name}"
            );
        }
    }
}

#[test]
fn a_new_user_namespace_can_have_the_hosts_network_given() {
    let mut bed = Bed::new("readlink /proc/self/ns/net").with_user_namespace();
    bed.plan
        .namespaces
        .insert(NamespaceKind::Net, NamespacePlan::Join(0));
    let fds = open_namespaces(std::process::id(), &[NamespaceKind::Net]);
    let mut container = bed.launch_with(fds).unwrap();
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(container.output().trim(), host.to_str().unwrap());
    container.wait();
}

#[test]
fn sysctls_are_written_in_the_container_only() {
    let mut bed =
        Bed::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    bed.plan.sysctls = [
        (
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "77".to_owned(),
        ),
        ("kernel.shmmni".to_owned(), "123".to_owned()),
    ]
    .into();
    assert_eq!(bed.output(), "77\n123\n");
    bed.plan.sysctls = [("kernel.panic".to_owned(), "77".to_owned())].into();
    assert_eq!(bed.failure().step, Step::Sysctls);
}

#[test]
fn loopback_is_up_in_a_network_of_its_own() {
    let output =
        Bed::new("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags; ls /sys/class/net")
            .output();
    assert!(
        output.contains("0x9\n") && output.ends_with("lo\n"),
        "{output}"
    );
}
