//! What the kernel counts per user, and who is charged for what a container takes of it.

use std::process::Command;

use super::prelude::*;

/// What the attacking program prints on the host, as root.
fn on_the_host(args: &[&str]) -> String {
    let out = Command::new(attacker::program())
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// A container that takes at most so many of each (0: all that there are), and what it has.
fn hoarder(t: &Bed, most: &str, more: Value) -> (Container, Value) {
    let config = with(
        busybox(&["/attacker", "hoard", most]),
        json!({"mounts": [attacker::mount()]}),
    );
    let container = t.start(&with(config, more));
    t.ready(&id(&container));
    let out = t.stdout(&id(&container));
    let taken = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    (container, taken)
}

/// The host's id of a container's root.
fn root_of(t: &Bed, container: &Container) -> u32 {
    let user = t.inspect(&id(container)).user_namespace;
    user.uid_map[0].host_id
}

#[test]
fn what_one_container_takes_of_the_kernels_counts_is_missed_by_nobody_else() {
    // Row 32. Watches of inotify and namespaces are charged to the same account, which is the user
    // namespace's owner's; to take all of them would take minutes.
    let mut t = Bed::new();
    let (hoarder, taken) = hoarder(&t, "0", json!({}));
    for what in ["inotify", "queues", "timers"] {
        assert!(taken[what].as_u64() > Some(0), "{taken}");
    }
    let everything = "inotify queue timer";
    let more = json!({"mounts": [attacker::mount()]});
    assert_eq!(t.sh_with("/attacker need 0 0", more).trim(), everything);
    assert_eq!(on_the_host(&["need", "0", "0"]), everything);
    t.kill9();
    t.start_again();
    assert_eq!(t.sh("echo fine"), "fine\n");
    t.remove(&id(&hoarder));
    t.finish();
}

#[test]
fn message_queues_and_timers_are_charged_to_the_range_of_a_container_and_not_to_the_hosts_root() {
    // Row 32, two-sided: little enough is taken that nobody on the host but one process with low
    // limits of its own would miss it.
    let t = weak_bed();
    let limits = ["need", "200000", "1500"];
    let (strong, taken) = hoarder(&t, "2500", json!({}));
    assert!(taken["queues"].as_u64() > Some(2), "{taken}");
    assert_eq!(on_the_host(&limits), "inotify queue timer");
    t.remove(&id(&strong));
    let weak = json!({"labels": without(Defence::OwnAccount)});
    let config = with(
        busybox(&["/attacker", "hoard", "6"]),
        json!({"mounts": [attacker::mount()]}),
    );
    let weak = t.start(&with(config, weak));
    t.ready(&id(&weak));
    assert_eq!(
        on_the_host(&limits),
        "inotify timer",
        "the attack is no attack"
    );
    t.remove(&id(&weak));
    t.finish();
}

#[test]
fn a_user_namespace_belongs_to_the_first_id_of_its_range() {
    // Row 32, with a process in between helper and container, and with maps of the request's own.
    let t = weak_bed();
    let owner = |container: &Container| {
        let path = format!("/proc/{}/ns/user", pid1(container));
        on_the_host(&["owner", &path]).parse::<u32>().unwrap()
    };
    let first = t.sleeper();
    assert_eq!(owner(&first), root_of(&t, &first));
    let other = format!("container:{}", id(&first));
    let joins = t.sleeper_with(json!({"namespaces": {"pid": other, "net": other}}));
    assert_eq!(owner(&joins), root_of(&t, &joins));
    assert_ne!(owner(&joins), owner(&first));
    let map = |host: u32| json!([{"container_id": 0, "host_id": host, "size": 65_536}]);
    for host in [100_000, 0] {
        let maps = json!({"uid": map(host), "gid": map(host)});
        let custom = t.sleeper_with(json!({"namespaces": {"user": "new"}, "id_maps": maps}));
        assert_eq!(owner(&custom), host);
    }
    let weak = t.sleeper_with(json!({"labels": without(Defence::OwnAccount)}));
    assert_eq!(owner(&weak), 0);
    for container in t.list() {
        t.remove(&container.id.to_string());
    }
    t.finish();
}
