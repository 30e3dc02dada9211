//! Plans of OCI runtime specs as other engines write them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use littlebox_helper::protocol::{
    DeviceRule, LaunchPlan, LogPlan, MountSource, NamespaceKind, NamespacePlan, Propagation,
    RootfsSource, Step, TerminalSize, TimeClock, UserRef,
};
use littlebox_plan::explain::explain;
use littlebox_plan::{Envelope, PlanError, launch_plan};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

fn envelope() -> Envelope {
    let log = LogPlan {
        path: "/log".into(),
        max_size: None,
        max_files: 1,
    };
    let rootfs = RootfsSource::Bind {
        path: "/bundle/rootfs".into(),
    };
    Envelope {
        cgroup_path: Some("/littlebox/x/id".into()),
        ..Envelope::new("id".into(), "/run/littlebox/c/id".into(), rootfs, log)
    }
}

/// What `runc spec` and its likes write, shortened.
fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 50, "width": 132},
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 63},
            "args": ["sh"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/srv",
            "capabilities": {
                "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL"],
                "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"],
                "ambient": ["CAP_KILL"]
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18_446_744_073_709_551_615u64, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                           {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn patched(patch: Value) -> Spec {
    fn merge(into: &mut Value, patch: Value) {
        match (into, patch) {
            (Value::Object(into), Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, patch) => *into = patch,
        }
    }
    let mut spec = base();
    merge(&mut spec, patch);
    serde_json::from_value(spec).unwrap()
}

fn plan(patch: Value) -> Result<LaunchPlan, PlanError> {
    launch_plan(&patched(patch), envelope())
}

fn good(patch: Value) -> LaunchPlan {
    plan(patch).unwrap()
}

fn mounted(options: Value) -> Result<LaunchPlan, PlanError> {
    let mount = json!({"destination": "/m", "type": "bind", "source": "/s", "options": options});
    plan(json!({"mounts": [mount]}))
}

#[test]
fn process_is_as_the_spec_says() {
    let process = good(json!({})).process;
    assert_eq!(
        process.terminal,
        Some(TerminalSize {
            rows: 50,
            cols: 132
        })
    );
    assert_eq!(process.user.user, UserRef::Id(1000));
    assert_eq!(
        process.user.additional_groups,
        [UserRef::Id(5), UserRef::Id(6)]
    );
    assert_eq!(process.user.umask, Some(0o077));
    assert_eq!(process.capabilities.bounding, 1 << 29 | 1 << 5);
    assert_eq!(process.capabilities.ambient, 1 << 5);
    assert_eq!(process.capabilities.inheritable, 0);
    assert_eq!(
        (process.rlimits[0].soft, process.rlimits[0].hard),
        (Some(1024), None)
    );
}

#[test]
fn no_capabilities_object_means_none() {
    let process = good(json!({"process": {"capabilities": null}})).process;
    assert_eq!(process.capabilities.bounding, 0);
}

#[test]
fn namespaces_with_a_path_are_joined_by_descriptor() {
    let spec = patched(json!({"linux": {"namespaces": [
        {"type": "mount"}, {"type": "network", "path": "/run/netns/x"},
    ]}, "hostname": null}));
    let mut envelope = envelope();
    assert_eq!(
        launch_plan(&spec, envelope.clone()).unwrap_err().pointer,
        "/linux/namespaces/1/path"
    );
    envelope.joins = BTreeMap::from([(NamespaceKind::Net, 0), (NamespaceKind::Pid, 1)]);
    let plan = launch_plan(&spec, envelope).unwrap();
    assert_eq!(plan.namespaces[&NamespaceKind::Net], NamespacePlan::Join(0));
    assert_eq!(plan.namespaces[&NamespaceKind::Pid], NamespacePlan::Join(1));
    assert!(!plan.loopback_up);
}

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
            recursive: true
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
            recursive: false
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
fn default_devices_are_there_and_can_be_replaced() {
    let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8630, "uid": 7});
    let fuse = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229});
    let plan = good(json!({"linux": {"devices": [device, fuse]}}));
    assert_eq!(plan.devices.len(), 7);
    let null = plan
        .devices
        .iter()
        .find(|d| d.path.ends_with("null"))
        .unwrap();
    assert_eq!((null.mode, null.uid), (0o666, 7));
}

#[test]
fn limits_are_translated() {
    let limits = good(json!({"linux": {"resources": {
        "memory": {"limit": 1_048_576, "swap": -1, "reservation": 4096, "kernel": 5},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 7},
        "unified": {"memory.high": "900000", "pids.max": "max"}
    }}}))
    .cgroup
    .resources;
    assert_eq!(limits.memory, Some(1_048_576));
    assert_eq!(limits.memory_and_swap, Some(u64::MAX));
    assert_eq!(limits.memory_high, Some(900_000));
    assert_eq!(limits.cpu_weight, Some(100));
    assert_eq!(limits.cpu_quota_us, Some(50_000));
    assert_eq!(limits.pids, Some(u64::MAX));
}

#[test]
fn every_limit_of_the_specification_has_its_place() {
    let limits = good(json!({"linux": {"resources": {
        "memory": {"limit": 9_000_000, "swappiness": 10, "kernelTCP": 4096, "disableOOMKiller": true,
                   "checkBeforeUpdate": true},
        "cpu": {"shares": 512, "burst": 100, "idle": 0, "realtimeRuntime": 95, "realtimePeriod": 100},
        "blockIO": {
            "weight": 500, "leafWeight": 300,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 700}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}, {"pageSize": "1GB", "limit": -1}],
        "rdma": {"mlx5_1": {"hcaHandles": 3}},
        "network": {"classID": 1_048_577, "priorities": [{"name": "eth0", "priority": 500}]},
        "unified": {"memory.oom.group": "1", "io.weight": "50"}
    }}}))
    .cgroup
    .resources;
    assert_eq!(limits.memory_swappiness, Some(10));
    assert_eq!(limits.memory_kernel_tcp, Some(4096));
    assert_eq!(limits.memory_disable_oom_killer, Some(true));
    assert!(limits.memory_check_before_update);
    assert_eq!(
        (limits.cpu_shares, limits.cpu_weight),
        (Some(512), Some(59))
    );
    assert_eq!((limits.cpu_burst_us, limits.cpu_idle), (Some(100), None));
    assert_eq!(
        limits.cpu_rt_runtime_us.zip(limits.cpu_rt_period_us),
        Some((95, 100))
    );
    assert_eq!(
        (limits.io.weight, limits.io.blkio_weight),
        (Some(50), Some(500))
    );
    assert_eq!(limits.io.devices.len(), 2);
    assert_eq!(limits.io.devices[0].blkio_weight, Some(700));
    assert_eq!(limits.io.devices[0].read_bps, Some(600));
    assert_eq!(limits.io.devices[1].write_iops, Some(u64::MAX));
    assert_eq!(limits.hugetlb["2MB"], 4_194_304);
    assert_eq!(limits.hugetlb["1GB"], u64::MAX);
    assert_eq!(limits.rdma["mlx5_1"].hca_handles, Some(3));
    assert_eq!(limits.net_cls_classid, Some(1_048_577));
    assert_eq!(limits.net_prio["eth0"], 500);
    assert_eq!(limits.unified["memory.oom.group"], "1");
    assert!(!limits.unified.contains_key("io.weight"));
}

#[test]
fn every_container_has_a_device_filter() {
    let filter = |patch| {
        let rules = good(patch).cgroup.resources.devices.expect("a filter");
        let line = |rule: &DeviceRule| format!("{} {rule}", if rule.allow { "+" } else { "-" });
        rules.iter().map(line).collect::<Vec<_>>()
    };
    let none = filter(json!({"linux": {"resources": {"devices": null}}}));
    assert_eq!(none[0], "- a *:* rwm");
    for always in ["+ c 1:3 rwm", "+ c 5:2 rwm", "+ c 136:* rwm", "+ b *:* m"] {
        assert!(
            none.iter().any(|rule| rule == always),
            "{always} in {none:?}"
        );
    }
    let some = filter(json!({"linux": {"resources": {"devices": [
        {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
        {"allow": false, "type": "u", "major": -1},
    ]}}}));
    assert_eq!(some[1..3], ["+ b 8:0 r", "- c *:* rwm"]);
}

#[test]
fn unlimited_is_no_limit() {
    let limits = good(json!({"linux": {"resources": {
        "memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}
    }}}))
    .cgroup
    .resources;
    assert_eq!(
        (limits.memory, limits.cpu_quota_us, limits.pids),
        (None, None, Some(u64::MAX))
    );
}

#[test]
fn shares_become_weights_by_the_formula_of_runc_and_crun() {
    let weight = littlebox_plan::cgroup::weight_from_shares;
    for (shares, expected) in [
        (0, 1),
        (2, 1),
        (10, 4),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        assert_eq!(weight(shares), expected, "{shares}");
    }
}

#[test]
fn what_a_plan_cannot_say_is_refused_where_it_stands() {
    let cases = [
        (json!({"ociVersion": "2.0.0"}), "/ociVersion"),
        (json!({"process": null}), "/process"),
        (json!({"process": {"args": []}}), "/process/args"),
        (json!({"process": {"args": null}}), "/process/args"),
        (json!({"process": {"cwd": "srv"}}), "/process/cwd"),
        (json!({"process": {"env": ["A=1", "B"]}}), "/process/env/1"),
        (
            json!({"process": {"user": {"uid": 4_294_967_295u32}}}),
            "/process/user/uid",
        ),
        (
            json!({"process": {"oomScoreAdj": 2000}}),
            "/process/oomScoreAdj",
        ),
        (
            json!({"process": {"apparmorProfile": "a b"}}),
            "/process/apparmorProfile",
        ),
        (
            json!({"process": {"selinuxLabel": "x"}}),
            "/process/selinuxLabel",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_FIFO"}}}),
            "/process/scheduler/priority",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}}),
            "/process/scheduler/nice",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "runtime": 5}}}),
            "/process/scheduler/runtime",
        ),
        (
            json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}}),
            "/process/ioPriority/priority",
        ),
        (
            json!({"process": {"execCPUAffinity": {"initial": "3-1"}}}),
            "/process/execCPUAffinity/initial",
        ),
        (
            json!({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}}),
            "/process/rlimits/0",
        ),
        (
            json!({"process": {"rlimits": [
                {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
            ]}}),
            "/process/rlimits/1",
        ),
        (
            json!({"hooks": {"poststop": [{"path": "/bin/true"}]}}),
            "/hooks/poststop",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}}),
            "/linux/seccomp/defaultAction",
        ),
        (
            json!({"linux": {"intelRdt": {"closID": "x"}}}),
            "/linux/intelRdt",
        ),
        (
            json!({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}),
            "/linux/timeOffsets",
        ),
        (
            json!({"linux": {"personality": {"domain": "LINUX32", "flags": ["x"]}}}),
            "/linux/personality/flags",
        ),
        (json!({"linux": {"mountLabel": "x"}}), "/linux/mountLabel"),
        (
            json!({"linux": {"rootfsPropagation": "everywhere"}}),
            "/linux/rootfsPropagation",
        ),
        (
            json!({"linux": {"maskedPaths": ["proc/kcore"]}}),
            "/linux/maskedPaths/0",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "pid"}]}}),
            "/linux/namespaces",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}),
            "/linux/namespaces/1/type",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "mount"}]}}),
            "/hostname",
        ),
        (
            json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}}),
            "/linux/uidMappings",
        ),
        (
            json!({"linux": {"sysctl": {"kernel.panic": "1"}}}),
            "/linux/sysctl/kernel.panic",
        ),
        (
            json!({"linux": {"devices": [{"path": "/etc/x", "type": "c", "major": 1, "minor": 3}]}}),
            "/linux/devices/0/path",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/../x", "type": "c", "major": 1, "minor": 3}]}}),
            "/linux/devices/0/path",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/x", "type": "a", "major": 0, "minor": 0}]}}),
            "/linux/devices/0/type",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]}}),
            "/linux/devices/0/major",
        ),
        (
            json!({"linux": {"resources": {"devices": [{"allow": false, "access": "rwx"}]}}}),
            "/linux/resources/devices/0/access",
        ),
        (
            json!({"linux": {"resources": {"devices": [{"allow": true, "type": "p"}]}}}),
            "/linux/resources/devices/0/type",
        ),
        (
            json!({"linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 4_294_967_296_i64}]}}}),
            "/linux/resources/devices/0/major",
        ),
        (
            json!({"linux": {"resources": {"memory": {"swappiness": 101}}}}),
            "/linux/resources/memory/swappiness",
        ),
        (
            json!({"linux": {"resources": {"memory": {"limit": 9, "swap": 8}}}}),
            "/linux/resources/memory/swap",
        ),
        (
            json!({"linux": {"resources": {"cpu": {"quota": 999}}}}),
            "/linux/resources/cpu/quota",
        ),
        (
            json!({"linux": {"resources": {"cpu": {"period": 1_000_001}}}}),
            "/linux/resources/cpu/period",
        ),
        (
            json!({"linux": {"resources": {"unified": {"cgroup.procs": "1"}}}}),
            "/linux/resources/unified/cgroup.procs",
        ),
        (
            json!({"linux": {"resources": {"unified": {"../memory.max": "1"}}}}),
            "/linux/resources/unified/..~1memory.max",
        ),
        (
            json!({"linux": {"resources": {"unified": {"memory..max": "1"}}}}),
            "/linux/resources/unified/memory..max",
        ),
        (
            json!({"linux": {"resources": {"unified": {"tasks": "1"}}}}),
            "/linux/resources/unified/tasks",
        ),
        (
            json!({"linux": {"resources": {"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}}}),
            "/linux/resources/hugepageLimits/0/pageSize",
        ),
        (
            json!({"linux": {"resources": {"blockIO": {"weight": 9}}}}),
            "/linux/resources/blockIO/weight",
        ),
        (
            json!({"linux": {"resources": {"blockIO":
                {"throttleReadBpsDevice": [{"major": 8, "minor": -1, "rate": 5}]}}}}),
            "/linux/resources/blockIO/throttleReadBpsDevice/0/minor",
        ),
        (
            json!({"linux": {"resources": {"rdma": {"mlx5 1": {"hcaHandles": 1}}}}}),
            "/linux/resources/rdma/mlx5 1",
        ),
        (json!({"mounts": [{"destination": "/m"}]}), "/mounts/0/type"),
        (
            json!({"mounts": [{"destination": "/", "type": "tmpfs"}]}),
            "/mounts/0/destination",
        ),
        (
            json!({"mounts": [{"destination": "/m", "type": "bind"}]}),
            "/mounts/0/source",
        ),
        (
            json!({"mounts": [{"destination": "/m", "type": "bind", "source": "rel"}]}),
            "/mounts/0/source",
        ),
    ];
    for (patch, pointer) in cases {
        let shown = patch.to_string();
        let error = plan(patch).expect_err(&shown);
        assert_eq!(error.pointer, pointer, "{shown}: {error}");
        assert!(!error.message.ends_with('.') && !error.message.contains(char::is_control));
    }
    for (options, pointer) in [
        // There is no user namespace whose maps it could take.
        (json!(["bind", "idmap"]), "/mounts/0/options"),
        (json!(["bind", "noexce"]), "/mounts/0/options"),
    ] {
        assert_eq!(mounted(options).unwrap_err().pointer, pointer);
    }
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
fn empty_and_foreign_objects_are_passed_over() {
    good(json!({
        "annotations": {"a": "b"},
        "hooks": {},
        "windows": {"layerFolders": ["x"]},
        "process": {"apparmorProfile": "unconfined", "selinuxLabel": ""},
        "linux": {"personality": {"domain": "LINUX"}, "timeOffsets": {}}
    }));
}

#[test]
fn a_cgroup_path_comes_from_the_caller_or_the_spec() {
    let mut without = envelope();
    without.cgroup_path = None;
    let path = |patch| launch_plan(&patched(patch), without.clone()).map(|p| p.cgroup.path);
    assert_eq!(path(json!({})).unwrap(), None);
    assert_eq!(
        path(json!({"linux": {"cgroupsPath": "a/b"}})).unwrap(),
        Some("/a/b".into())
    );
    for bad in ["../x", "/a/../b", "system.slice:x:y", ""] {
        let error = path(json!({"linux": {"cgroupsPath": bad}})).unwrap_err();
        assert_eq!(error.pointer, "/linux/cgroupsPath", "{bad}");
    }
    let limited = json!({"linux": {"resources": {"pids": {"limit": 1}}}});
    assert_eq!(path(limited).unwrap_err().pointer, "/linux/resources");
}

#[test]
fn scheduling_labels_and_clocks_become_the_plan() {
    let plan = good(json!({
        "process": {
            "apparmorProfile": "docker-default",
            "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2",
            "scheduler": {"policy": "SCHED_RR", "priority": 7},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 3},
            "execCPUAffinity": {"initial": "0", "final": "1-2"},
        },
        "linux": {
            "personality": {"domain": "LINUX32"},
            "mountLabel": "system_u:object_r:container_file_t:s0:c1,c2",
            "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}},
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "time"}],
        },
    }));
    let labels = &plan.process.labels;
    assert_eq!(labels.apparmor.as_deref(), Some("docker-default"));
    assert_eq!(
        labels.selinux.as_deref(),
        Some("system_u:system_r:container_t:s0:c1,c2")
    );
    let scheduling = &plan.process.scheduling;
    let scheduler = scheduling.scheduler.as_ref().unwrap();
    assert_eq!((scheduler.policy, scheduler.priority), (2, 7));
    let io = scheduling.io_priority.unwrap();
    assert_eq!((io.class, io.level), (3, 3));
    assert_eq!(scheduling.exec_affinity.initial, [0]);
    assert_eq!(scheduling.exec_affinity.finally, [1, 2]);
    assert_eq!(scheduling.personality, Some(8));
    let offset = plan.time_offsets[&TimeClock::Boottime];
    assert_eq!((offset.secs, offset.nanos), (-5, 7));
    let labelled = plan
        .mounts
        .iter()
        .find(|m| m.destination == std::path::Path::new("/dev"));
    let MountSource::Filesystem { options, .. } = &labelled.unwrap().source else {
        panic!("{labelled:?}")
    };
    assert!(
        options.contains(&"context=system_u:object_r:container_file_t:s0:c1,c2".to_owned()),
        "{options:?}"
    );
    for step in [Step::SecurityLabels, Step::Scheduling, Step::TimeNamespace] {
        assert!(!commands(&plan, step).is_empty(), "{step:?}");
    }
}

fn commands(plan: &LaunchPlan, step: Step) -> Vec<String> {
    explain(plan)
        .into_iter()
        .find(|s| s.step == step)
        .map(|s| s.commands)
        .unwrap_or_default()
}

#[test]
fn steps_are_explained_once_and_in_order() {
    let steps: Vec<Step> = explain(&good(json!({}))).iter().map(|s| s.step).collect();
    let mut sorted = steps.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(steps, sorted);
    for step in [
        Step::Clone,
        Step::Mounts,
        Step::Terminal,
        Step::PivotRoot,
        Step::ReadonlyRoot,
        Step::Exec,
    ] {
        assert!(steps.contains(&step), "{step:?}");
    }
    for step in [Step::IdMaps, Step::JoinNamespaces, Step::Sysctls] {
        assert!(!steps.contains(&step), "{step:?}");
    }
}

#[test]
fn commands_say_what_the_plan_does() {
    let plan = good(json!({
        "hostname": "my box",
        "process": {"args": ["sh", "-c", "echo 'hi' $HOME"]},
        "linux": {"resources": {"pids": {"limit": 2048}}}
    }));
    assert_eq!(commands(&plan, Step::Hostname), ["hostname 'my box'"]);
    assert_eq!(
        commands(&plan, Step::Clone),
        ["unshare --fork --mount --uts --ipc --net --pid sh"]
    );
    assert_eq!(
        commands(&plan, Step::PivotRoot),
        ["pivot_root . .", "umount -l .", "cd /"]
    );
    assert!(
        commands(&plan, Step::Cgroup)
            .contains(&"echo 2048 > /sys/fs/cgroup/littlebox/x/id/pids.max".into())
    );
    assert!(commands(&plan, Step::Mounts).contains(&"mount -t proc proc \"$ROOT\"/proc".into()));
    assert_eq!(
        commands(&plan, Step::Exec),
        [r"exec env -i PATH=/bin TERM=xterm sh -c 'echo '\''hi'\'' $HOME'"]
    );
}

#[test]
fn an_overlay_is_explained_with_its_directories() {
    let mut envelope = envelope();
    envelope.rootfs = RootfsSource::Overlay {
        lower: vec!["/a b".into(), "/c".into()],
        upper: "/u".into(),
        work: "/w".into(),
        volatile: true,
    };
    let plan = launch_plan(&patched(json!({})), envelope).unwrap();
    assert_eq!(
        commands(&plan, Step::Rootfs)[1],
        "mount -t overlay overlay -o 'lowerdir=/a b:/c,upperdir=/u,workdir=/w,volatile' \"$ROOT\""
    );
}

/// Every command must be something that a shell can read.
#[test]
fn commands_are_valid_shell() {
    let spec = patched(json!({
        "process": {"args": ["a\nb", "it's", "\u{1b}[2J"], "env": ["X=a b"]},
        "linux": {"sysctl": {"net.ipv4.ping_group_range": "0 1"}, "namespaces": [
            {"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "user"}, {"type": "cgroup"},
        ], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
           "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}
    }));
    let mut envelope = envelope();
    envelope.joins = BTreeMap::from([(NamespaceKind::Pid, 0)]);
    envelope.hidden = vec!["/a 'b'".into()];
    let plan = launch_plan(&spec, envelope).unwrap();
    for step in explain(&plan) {
        assert!(step.what.ends_with('.') && !step.what.contains(char::is_control));
        for command in step.commands {
            assert!(!command.contains(char::is_control), "{command:?}");
            let status = std::process::Command::new("bash")
                .args(["-n", "-c", &command])
                .status();
            assert!(status.unwrap().success(), "{command}");
        }
    }
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
fn hooks_are_for_the_host_alone() {
    let hooks = json!({"hooks": {"prestart": [{"path": "/bin/true", "timeout": 3}]}});
    assert_eq!(plan(hooks).unwrap_err().pointer, "/hooks/prestart");
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
fn a_client_of_the_api_has_a_mount_namespace_of_its_own() {
    let refused = plan(json!({"linux": {"namespaces": [{"type": "pid"}]}})).unwrap_err();
    assert_eq!(refused.pointer, "/linux/namespaces");
    assert!(refused.message.contains("mount namespace"), "{refused}");
}
