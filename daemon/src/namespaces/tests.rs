//! Against this machine's own namespaces and made-up ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use littlebox_protocol::{NamespaceKind, NamespaceRelation};
use littlebox_types::NamespaceInfo;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::procfs::ProcessId;

/// A process in namespaces of its own (needs root), ended when it is dropped.
struct Other(Child);

impl Other {
    fn start(flags: &[&str]) -> Self {
        // `unshare` becomes the program itself, so the PID is the right one from then on.
        let child = Command::new("unshare")
            .args(flags)
            .args(["sleep", "60"])
            .spawn()
            .unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
            assert!(
                std::time::Instant::now() < end,
                "unshare {flags:?} did not start"
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Self(child)
    }

    fn side(&self) -> Side {
        Side {
            pid: self.0.id(),
            ..Side::default()
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn own() -> Side {
    Side {
        pid: std::process::id(),
        ..Side::default()
    }
}

#[test]
fn inodes_are_those_that_ls_prints() {
    let namespaces = of_process(std::process::id()).unwrap();
    assert_eq!(namespaces.len(), 8);
    for (kind, namespace) in namespaces {
        let link = format!("/proc/self/ns/{}", kind.name());
        assert_eq!(namespace.inode, std::fs::metadata(link).unwrap().ino());
    }
    assert!(of_process(u32::MAX).is_err());
}

#[test]
fn the_list_names_containers_and_counts_processes() {
    let other = Other::start(&["--uts", "--net"]);
    let mut scan = Scan::take().unwrap();
    let described = |process: &ProcessId| process.pid == other.0.id();
    assert_eq!(scan.described().iter().filter(|p| described(p)).count(), 1);
    scan.set_commands(BTreeMap::from([(other.0.id(), "sleep 60".into())]));
    let inode = of_process(other.0.id()).unwrap()[&NamespaceKind::Net].inode;
    let relation = NamespaceRelation {
        kind: NamespaceKind::Net,
        inode,
        owner_inode: Some(7),
        parent_inode: None,
        id: Some(99),
    };
    let list = scan.list(&[("web".to_owned(), other.0.id())], &[relation]);
    let net = list
        .iter()
        .find(|one| one.kind == "net" && one.inode == inode)
        .unwrap();
    assert_eq!(
        (net.processes, net.pid, net.command.as_str()),
        (1, other.0.id(), "sleep 60")
    );
    assert_eq!(
        (net.containers.as_slice(), net.owner_user_inode),
        (&["web".into()][..], Some(7))
    );
    // Nobody has told its command line.
    let mut others = list.iter().filter(|one| one.pid != other.0.id());
    assert!(others.all(|one| one.command.starts_with('[')), "{list:?}");
    let mnt = list
        .iter()
        .find(|one| one.kind == "mnt" && one.containers == ["web"])
        .unwrap();
    assert!(mnt.processes > 1);
    let refs = scan.refs();
    assert_eq!(refs.len(), list.len());
    assert!(
        refs.iter()
            .any(|one| one.inode == inode && one.pid == other.0.id())
    );
}

#[test]
fn a_container_knows_what_it_shares() {
    let (a, b) = (Other::start(&["--uts"]), Other::start(&["--uts"]));
    let namespaces = of_process(a.0.id()).unwrap();
    let others = [("b".to_owned(), b.0.id()), ("gone".to_owned(), u32::MAX)];
    let described = of_container(&namespaces, &[], &others).unwrap();
    let of = |kind: &str| described.iter().find(|one| one.kind == kind).unwrap();
    assert!(!of("uts").is_host && of("uts").shared_with.is_empty());
    assert!(of("net").is_host);
    assert_eq!(of("net").shared_with, ["b"]);
    assert_eq!(refs_of(a.0.id(), &namespaces).len(), 8);
}

#[test]
fn a_private_network_lacks_the_hosts_interfaces() {
    let other = Other::start(&["--net", "--uts"]);
    let (mut a, mut b) = (own(), other.side());
    a.hostname = Some("host".into());
    b.hostname = Some("box".into());
    let types = diff(&a, &b).unwrap();
    assert_eq!(types.len(), 8);
    let of = |kind: &str| types.iter().find(|one| one.kind == kind).unwrap();
    assert!(of("mnt").shared && of("mnt").differences.is_empty());
    assert!(!of("net").shared);
    assert_eq!(of("uts").differences["hostname"].a, json!("host"));
    assert_eq!(of("uts").differences["hostname"].b, json!("box"));
    assert!(!of("uts").differences.contains_key("domainname"));
    let addresses = &of("net").differences["addresses"];
    assert!(
        addresses
            .a
            .as_array()
            .unwrap()
            .contains(&json!("127.0.0.1")),
        "{addresses:?}"
    );
    assert_eq!(addresses.b, json!([]));
}

#[test]
fn mounts_of_one_side_alone_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().to_str().unwrap();
    let script = format!("mount -t tmpfs mine {target} && exec sleep 60");
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .spawn()
        .unwrap();
    let other = Other(child);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let comm = format!("/proc/{}/comm", other.0.id());
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let found = differences(NamespaceKind::Mnt, &own(), &other.side()).unwrap();
    let only = found["mounts"].b.as_array().unwrap();
    assert!(only.iter().any(|one| {
        one.as_str()
            .unwrap()
            .starts_with(&format!("{target} tmpfs mine"))
    }));
}

fn info(kind: &str, inode: u64, owner: Option<u64>, parent: Option<u64>) -> NamespaceInfo {
    NamespaceInfo {
        kind: kind.into(),
        inode,
        processes: 1,
        pid: 1,
        command: String::new(),
        uid: 0,
        owner_user_inode: owner,
        parent_inode: parent,
        containers: vec![],
    }
}

#[test]
fn trees_by_owner_and_by_parent() {
    let list = vec![
        info("net", 10, Some(1), None),
        info("pid", 20, Some(1), None),
        info("pid", 21, Some(2), Some(20)),
        info("user", 1, None, None),
        info("user", 2, Some(1), Some(1)),
        info("uts", 30, Some(77), None),
    ];
    let by_owner = tree(list.clone(), TreeBy::Owner);
    let roots: Vec<u64> = by_owner.iter().map(|node| node.info.inode).collect();
    // The owner of 30 has no process, so 30 stands alone.
    assert_eq!(roots, [1, 30]);
    let below: Vec<u64> = by_owner[0]
        .children
        .iter()
        .map(|node| node.info.inode)
        .collect();
    assert_eq!(below, [10, 20, 2]);
    assert_eq!(by_owner[0].children[2].children[0].info.inode, 21);

    let by_parent = tree(list, TreeBy::Parent);
    let pid = by_parent.iter().find(|node| node.info.inode == 20).unwrap();
    assert_eq!(pid.children[0].info.inode, 21);
    assert_eq!(by_parent.len(), 4);
}

#[test]
fn mount_lines() {
    let line = "36 35 98:0 /sub /mnt rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue";
    assert_eq!(
        parse_mount(line).unwrap(),
        "/mnt ext4 /dev/sda1[/sub] rw,noatime"
    );
    let line = "21 1 0:5 / /proc rw - proc proc rw";
    assert_eq!(parse_mount(line).unwrap(), "/proc proc proc rw");
}

#[test]
fn addresses_and_routes() {
    let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n\
                Local:\n     |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 10.0.0.255\n        \
                /32 link BROADCAST\n";
    assert_eq!(
        parse_addresses(trie).into_iter().collect::<Vec<_>>(),
        ["10.0.0.7"]
    );
    let inet6 = "fe800000000000000000000000000001 02 40 20 80     eth0\n";
    assert_eq!(
        parse_addresses6(inet6).into_iter().collect::<Vec<_>>(),
        ["fe80::1/64 dev eth0"]
    );
    let gateway = u32::from_ne_bytes([10, 0, 0, 1]);
    let line = format!("eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0");
    assert_eq!(
        parse_route(&line).unwrap(),
        "0.0.0.0/0 via 10.0.0.1 dev eth0"
    );
    let (network, mask) = (
        u32::from_ne_bytes([10, 0, 0, 0]),
        u32::from_ne_bytes([255, 255, 255, 0]),
    );
    let line = format!("eth0\t{network:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0");
    assert_eq!(parse_route(&line).unwrap(), "10.0.0.0/24 dev eth0");
    assert_eq!(
        parse_route("Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"),
        None
    );
    let zero = "0".repeat(32);
    let line = format!(
        "fe80{:028} 40 {zero} 00 {zero} 00000100 1 0 00000001 eth0",
        0
    );
    assert_eq!(parse_route6(&line).unwrap(), "fe80::/64 dev eth0");
}

proptest! {
    #[test]
    fn parsers_take_anything(text in any::<String>()) {
        let _ = (parse_addresses(&text), parse_addresses6(&text), parse_route(&text));
        let _ = (parse_route6(&text), parse_mount(&text));
    }

    #[test]
    fn a_tree_ends_and_never_doubles(
        list in proptest::collection::vec((0u64..8, 0u64..8, 0u64..8), 0..30),
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let list: Vec<NamespaceInfo> = list
            .into_iter()
            .filter(|(inode, _, _)| seen.insert(*inode))
            .map(|(inode, owner, parent)| info("user", inode, Some(owner), Some(parent)))
            .collect();
        fn count(nodes: &[littlebox_types::NamespaceNode]) -> usize {
            nodes.iter().map(|node| 1 + count(&node.children)).sum()
        }
        for by in [TreeBy::Owner, TreeBy::Parent] {
            prop_assert!(count(&tree(list.clone(), by)) <= list.len());
        }
    }
}
