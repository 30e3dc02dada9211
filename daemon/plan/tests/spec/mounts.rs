//! Mounts and their options.

use super::*;

#[test]
fn options_become_attributes_and_data() {
    let plan = good(json!({}));
    assert!(plan.rootfs.read_only);
    let dev = &plan.mounts[1];
    assert!(dev.attrs.nosuid && !dev.attrs.nodev);
    let MountSource::Filesystem {
        fstype, options, ..
    } = &dev.source
    else {
        panic!()
    };
    assert_eq!(
        (fstype.as_str(), options.as_slice()),
        ("tmpfs", &["mode=755".to_owned(), "size=65536k".into()][..])
    );
    assert_eq!(plan.mounts[2].source, MountSource::Cgroup);
    assert!(plan.mounts[2].attrs.read_only);
}

#[test]
fn bind_options_are_told_apart() {
    let mount = mounted(json!(["rbind", "ro", "nosuid", "rslave"]))
        .unwrap()
        .mounts
        .remove(0);
    assert_eq!(
        mount.source,
        MountSource::Bind {
            path: "/s".into(),
            recursive: true,
            inside: None,
        }
    );
    assert!(mount.attrs.read_only && !mount.attrs.recursive);
    assert_eq!(mount.propagation, Some(Propagation::Rslave));

    let mount = mounted(json!(["rbind", "rro"])).unwrap().mounts.remove(0);
    assert!(mount.attrs.read_only && mount.attrs.recursive);

    let mount = mounted(json!(["ro", "rw"])).unwrap().mounts.remove(0);
    assert!(!mount.attrs.read_only);
    assert_eq!(
        mount.source,
        MountSource::Bind {
            path: "/s".into(),
            recursive: false,
            inside: None,
        }
    );
}

#[test]
fn a_block_device_becomes_the_source_option() {
    let mount = json!({"destination": "/m", "type": "ext4", "source": "/dev/vdb", "options": ["sync", "data=journal"]});
    let plan = good(json!({"mounts": [mount]}));
    let MountSource::Filesystem { options, .. } = &plan.mounts[0].source else {
        panic!()
    };
    assert_eq!(options, &["sync", "source=/dev/vdb", "data=journal"]);
}

#[test]
fn binds_can_be_idmapped_by_maps_of_their_own_or_by_the_containers() {
    let map = |first: u32| json!([{"containerID": 0, "hostID": first, "size": 10}]);
    let bind = |options: Value, maps: Option<Value>| {
        let mut mount =
            json!({"destination": "/m", "type": "bind", "source": "/s", "options": options});
        if let Some(maps) = maps {
            mount["uidMappings"] = maps.clone();
            mount["gidMappings"] = maps;
        }
        let plan = plan(json!({
            "mounts": [mount],
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user"}],
                "uidMappings": map(100_000), "gidMappings": map(100_000),
            }
        }));
        plan.unwrap().mounts[0].idmap.clone()
    };
    assert_eq!(bind(json!(["rbind"]), None), None);
    let containers = bind(json!(["rbind", "ridmap"]), None).unwrap();
    assert!(containers.recursive && containers.required && containers.uid_map.is_empty());
    let own = bind(json!(["rbind"]), Some(map(7))).unwrap();
    assert!(!own.recursive && own.required);
    assert_eq!((own.uid_map[0].host_id, own.gid_map[0].size), (7, 10));
    let half = json!({"destination": "/m", "type": "bind", "source": "/s", "options": ["bind"],
                      "uidMappings": map(7)});
    let error = plan(json!({"mounts": [half]})).unwrap_err();
    assert_eq!(error.pointer, "/mounts/0/gidMappings");
    let fresh = json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["idmap"]});
    let error = plan(json!({"mounts": [fresh]})).unwrap_err();
    assert_eq!(error.pointer, "/mounts/0/options");
}

#[test]
fn every_option_that_is_announced_is_known() {
    for option in littlebox_plan::mount_options() {
        // As the option of a fresh filesystem none may come through as the filesystem's own.
        let patch =
            json!({"mounts": [{"destination": "/m", "type": "tmpfs", "options": [option]}]});
        let Ok(plan) = plan(patch) else {
            // bind wants a source, idmap a bind.
            assert!(
                option.ends_with("bind") || option.ends_with("idmap"),
                "{option}"
            );
            continue;
        };
        let MountSource::Filesystem { options, .. } = &plan.mounts[0].source else {
            panic!("{option} is no filesystem")
        };
        let own: Vec<&str> = options.iter().map(String::as_str).collect();
        assert!(
            own.is_empty() || ["sync", "dirsync", "lazytime"].contains(&own[0]),
            "{option}: {own:?}"
        );
    }
}

#[test]
fn the_last_policy_of_access_times_counts() {
    let attrs = |options| mounted(options).unwrap().mounts[0].attrs;
    let last = attrs(json!(["bind", "noatime", "strictatime", "nodiratime"]));
    assert!(last.strictatime && !last.noatime && last.nodiratime);
    assert!(attrs(json!(["rbind", "rrelatime"])).recursive);
}

#[test]
fn words_for_the_whole_tree_stand_beside_words_for_its_top() {
    let mount = |options| mounted(options).unwrap().mounts.remove(0);
    let mixed = mount(json!(["rbind", "rro", "noexec", "rsuid"]));
    let tree = mixed.tree.unwrap();
    assert!(mixed.attrs.noexec && !mixed.attrs.read_only && !mixed.attrs.recursive);
    assert!(tree.set.read_only && !tree.set.noexec && tree.clear.nosuid);

    // The last word counts, and a policy of access times is replaced, never cleared.
    let tree = mount(json!(["rbind", "rro", "rrw", "ratime"]))
        .tree
        .unwrap();
    assert!(!tree.set.read_only && tree.clear.read_only && tree.set.relatime);

    // Where nothing can be below it, a tree is its top.
    for options in [
        json!(["bind", "noexec", "rro"]),
        json!(["bind", "ro", "noexec", "rnosuid", "rsuid"]),
    ] {
        let single = mount(options);
        assert!(single.attrs.read_only && single.attrs.noexec && single.tree.is_none());
        assert!(!single.attrs.nosuid && !single.attrs.recursive);
    }
}

#[test]
fn words_that_clear_are_kept_for_binds() {
    let attrs = |options: Value| {
        let mount = mounted(options).unwrap().mounts.remove(0);
        (mount.attrs, mount.cleared, mount.tree)
    };
    let (set, cleared, tree) = attrs(json!(["bind", "ro", "suid", "dev"]));
    assert!(set.read_only && cleared.nosuid && cleared.nodev && !cleared.read_only);
    assert_eq!(tree, None);
    // The last word counts.
    let (set, cleared, _) = attrs(json!(["bind", "rw", "exec", "ro"]));
    assert!(set.read_only && !cleared.read_only && cleared.noexec);
    // The kernel's own policy comes instead of one that is taken away, and of no other.
    assert!(attrs(json!(["bind", "atime"])).0.relatime);
    assert!(attrs(json!(["bind", "nostrictatime"])).0.relatime);
    let (set, ..) = attrs(json!(["bind", "noatime", "nostrictatime"]));
    assert!(set.noatime && !set.relatime);
    // Of a tree they stand beside those of its top.
    let (_, cleared, tree) = attrs(json!(["rbind", "suid", "rro"]));
    assert!(cleared.nosuid && tree.unwrap().set.read_only);
    let (_, cleared, _) = attrs(json!(["bind", "rexec"]));
    assert!(cleared.noexec);
}

#[test]
fn a_source_below_the_root_that_a_mount_has_changed_is_taken_from_inside() {
    let inside = |source: &str, options: &str, earlier: &str| {
        let bind =
            json!({"destination": "/m", "type": "bind", "source": source, "options": [options]});
        let plan = good(json!({"mounts": [{"destination": earlier, "type": "tmpfs"}, bind]}));
        let MountSource::Bind { inside, .. } = &plan.mounts[1].source else {
            panic!()
        };
        inside.clone()
    };
    let found = Some("/a/b".into());
    assert_eq!(inside("/bundle/rootfs/a/b", "bind", "/a"), found);
    assert_eq!(inside("/bundle/rootfs/a/b", "bind", "/a/b"), found);
    assert_eq!(inside("/bundle/rootfs/a/b", "rbind", "/a/b/c"), found);
    assert_eq!(inside("/bundle/rootfs/a/b", "bind", "/a/b/c"), None);
    assert_eq!(inside("/bundle/rootfs/a/b", "rbind", "/other"), None);
    assert_eq!(inside("/a/b", "bind", "/a"), None);
    assert_eq!(inside("/bundle/rootfs/../a/b", "bind", "/a"), None);
}
