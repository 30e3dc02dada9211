//! Limits, devices and the cgroup they are set in.

use super::*;

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
