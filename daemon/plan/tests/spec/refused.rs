//! What is refused, and what is passed over.

use super::*;

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
            "/linux/seccomp/listenerPath",
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
            json!({"linux": {"devices": [{"path": "etc/x", "type": "c", "major": 1, "minor": 3}]}}),
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
fn hooks_are_for_the_host_alone() {
    let hooks = json!({"hooks": {"prestart": [{"path": "/bin/true", "timeout": 3}]}});
    assert_eq!(plan(hooks).unwrap_err().pointer, "/hooks/prestart");
}

#[test]
fn a_client_of_the_api_has_a_mount_namespace_of_its_own() {
    let refused = plan(json!({"linux": {"namespaces": [{"type": "pid"}]}})).unwrap_err();
    assert_eq!(refused.pointer, "/linux/namespaces");
    assert!(refused.message.contains("mount namespace"), "{refused}");
}
