//! Requests that are refused, each with the pointer of what is wrong.

use littlebox_plan::pointer;
use littlebox_types::{ContainerConfig, ExecConfig};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// A patch over a good request, and the pointer of the refusal.
fn container_cases() -> Vec<(Value, &'static str)> {
    let long = "x".repeat(200_000);
    let many: Value = (0..300)
        .map(|i| (format!("k{i}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    vec![
        (json!({"rootfs": ""}), "/rootfs"),
        (json!({"rootfs": "debian"}), "/rootfs"),
        (json!({"rootfs": "dir:relative"}), "/rootfs"),
        (json!({"rootfs": "dir:/a/../b"}), "/rootfs"),
        (json!({"rootfs": "dir:/a\u{0}b"}), "/rootfs"),
        (json!({"rootfs": "dir:/"}), "/rootfs"),
        (json!({"rootfs": "dir://./"}), "/rootfs"),
        (json!({"command": []}), "/command"),
        (json!({"command": [""]}), "/command"),
        (json!({"command": ["a", "b\u{0}"]}), "/command/1"),
        (json!({"command": ["a", long]}), "/command/1"),
        (json!({"env": {"": "x"}}), "/env/"),
        (json!({"env": {"A=B": "x"}}), "/env/A=B"),
        (json!({"env": {"A/~": "\u{0}"}}), "/env/A~1~0"),
        (json!({"env": {"A": long}}), "/env/A"),
        (json!({"working_dir": "srv"}), "/working_dir"),
        (json!({"working_dir": "/srv/../.."}), "/working_dir"),
        (json!({"working_dir": ""}), "/working_dir"),
        (json!({"user": ""}), "/user"),
        (json!({"user": "-1"}), "/user"),
        (json!({"user": "4294967295"}), "/user"),
        (json!({"user": "4294967296"}), "/user"),
        (json!({"user": "99999999999999999999999"}), "/user"),
        (json!({"user": "1000:"}), "/user"),
        (json!({"user": ":0"}), "/user"),
        (json!({"user": "a b"}), "/user"),
        (json!({"user": "0:0:0"}), "/user"),
        (json!({"user": "root\n"}), "/user"),
        (json!({"groups": ["adm", "-2"]}), "/groups/1"),
        (json!({"seccomp": {}}), "/seccomp/defaultAction"),
        (
            json!({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}),
            "/seccomp/syscalls",
        ),
        (
            json!({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["a"], "action": "X"}]}}),
            "/seccomp/syscalls/0/action",
        ),
        (json!({"umask": "9"}), "/umask"),
        (json!({"umask": "1000"}), "/umask"),
        (json!({"umask": "-22"}), "/umask"),
        (json!({"umask": "+22"}), "/umask"),
        (json!({"umask": ""}), "/umask"),
        (json!({"hostname": ""}), "/hostname"),
        (json!({"hostname": "a b"}), "/hostname"),
        (json!({"hostname": "-a"}), "/hostname"),
        (json!({"hostname": "a".repeat(65)}), "/hostname"),
        (
            json!({"hostname": "x", "namespaces": {"uts": "host"}}),
            "/hostname",
        ),
        (
            json!({"domainname": "x", "namespaces": {"uts": "container:a"}}),
            "/domainname",
        ),
        (json!({"domainname": "a\u{0}"}), "/domainname"),
        (json!({"labels": {"": "x"}}), "/labels/"),
        (json!({"labels": {"a=b": "x"}}), "/labels/a=b"),
        (json!({"labels": many}), "/labels"),
        (
            json!({"restart": {"policy": "always", "max_retries": 3}}),
            "/restart/max_retries",
        ),
        (
            json!({"restart": {"policy": "on-failure", "max_retries": 0}}),
            "/restart/max_retries",
        ),
        (
            json!({"restart": {"policy": "always"}, "auto_remove": true}),
            "/restart",
        ),
        (json!({"propagation": "unbindable"}), "/propagation"),
        (
            json!({"namespaces": {"network": "host"}}),
            "/namespaces/network",
        ),
        (json!({"namespaces": {"net": "bridge"}}), "/namespaces/net"),
        (
            json!({"namespaces": {"net": "container:"}}),
            "/namespaces/net",
        ),
        (
            json!({"namespaces": {"net": "container:../x"}}),
            "/namespaces/net",
        ),
        (json!({"namespaces": {"net": "pid:0"}}), "/namespaces/net"),
        (json!({"namespaces": {"net": "pid:+1"}}), "/namespaces/net"),
        (
            json!({"namespaces": {"net": "pid:4294967297"}}),
            "/namespaces/net",
        ),
        (json!({"namespaces": {"mnt": "host"}}), "/namespaces/mnt"),
        (
            json!({"namespaces": {"mnt": "container:a"}}),
            "/namespaces/mnt",
        ),
        (
            json!({"namespaces": {"pid": "host"}, "init": true}),
            "/init",
        ),
        (
            json!({"namespaces": {"user": "host"}, "id_maps": {"uid": [], "gid": []}}),
            "/id_maps",
        ),
        (
            json!({"namespaces": {"user": "host"},
                   "mounts": [{"type": "bind", "source": "/a", "destination": "/b", "idmap": true}]}),
            "/mounts/0/idmap",
        ),
        (
            json!({"mounts": [{"type": "tmpfs", "destination": "/b", "idmap": false}]}),
            "/mounts/0/idmap",
        ),
        (
            json!({"namespaces": {"user": "new"}, "id_maps": {"uid": [], "gid": []}}),
            "/id_maps/uid",
        ),
        (maps(json!([[0, 0, 0]])), "/id_maps/uid/0"),
        (maps(json!([[0, 4_294_967_290u32, 10]])), "/id_maps/uid/0"),
        (maps(json!([[0, 0, 10], [5, 100, 10]])), "/id_maps/uid/1"),
        (maps(json!([[0, 0, 10], [20, 5, 10]])), "/id_maps/uid/1"),
        (json!({"resources": {"memory": 0}}), "/resources/memory"),
        (
            json!({"resources": {"memory": 524_287}}),
            "/resources/memory",
        ),
        (
            json!({"resources": {"memory": u64::MAX}}),
            "/resources/memory",
        ),
        (
            json!({"resources": {"memory_swap": 1_048_576}}),
            "/resources/memory_swap",
        ),
        (
            json!({"resources": {"memory": 2_097_152, "memory_swap": 1_048_576}}),
            "/resources/memory_swap",
        ),
        (
            json!({"resources": {"memory": 2_097_152, "memory_swap": -2}}),
            "/resources/memory_swap",
        ),
        (
            json!({"resources": {"memory": 1_048_576, "memory_reservation": 2_097_152}}),
            "/resources/memory_reservation",
        ),
        (json!({"resources": {"cpus": 0.0}}), "/resources/cpus"),
        (json!({"resources": {"cpus": -1.0}}), "/resources/cpus"),
        (json!({"resources": {"cpus": 1e300}}), "/resources/cpus"),
        (
            json!({"resources": {"cpu_weight": 0}}),
            "/resources/cpu_weight",
        ),
        (
            json!({"resources": {"cpu_weight": 10_001}}),
            "/resources/cpu_weight",
        ),
        (
            json!({"resources": {"cpuset_cpus": ""}}),
            "/resources/cpuset_cpus",
        ),
        (
            json!({"resources": {"cpuset_cpus": "0-"}}),
            "/resources/cpuset_cpus",
        ),
        (
            json!({"resources": {"cpuset_cpus": "3-1"}}),
            "/resources/cpuset_cpus",
        ),
        (
            json!({"resources": {"cpuset_mems": "0,,1"}}),
            "/resources/cpuset_mems",
        ),
        (
            json!({"resources": {"pids_limit": 0}}),
            "/resources/pids_limit",
        ),
        (
            json!({"resources": {"pids_limit": -2}}),
            "/resources/pids_limit",
        ),
        (
            json!({"resources": {"pids_limit": 4_194_305}}),
            "/resources/pids_limit",
        ),
        (json!({"rlimits": {"files": {}}}), "/rlimits/files"),
        (
            json!({"rlimits": {"nofile": {"soft": 2, "hard": 1}}}),
            "/rlimits/nofile",
        ),
        (
            json!({"rlimits": {"nofile": {"hard": 1}}}),
            "/rlimits/nofile",
        ),
        (
            json!({"sysctls": {"kernel.panic": "1"}}),
            "/sysctls/kernel.panic",
        ),
        (
            json!({"sysctls": {"net/../kernel/panic": "1"}}),
            "/sysctls/net~1..~1kernel~1panic",
        ),
        (json!({"sysctls": {"net..ipv4": "1"}}), "/sysctls/net..ipv4"),
        (json!({"sysctls": {"net.": "1"}}), "/sysctls/net."),
        (json!({"sysctls": {"net.x": "1\n2"}}), "/sysctls/net.x"),
        (
            json!({"sysctls": {"net.x": "1"}, "namespaces": {"net": "host"}}),
            "/sysctls/net.x",
        ),
        (
            json!({"sysctls": {"kernel.sem": "1"}, "namespaces": {"ipc": "pid:1"}}),
            "/sysctls/kernel.sem",
        ),
        (
            json!({"sysctls": {"kernel.hostname": "a"}, "hostname": "b"}),
            "/sysctls/kernel.hostname",
        ),
        (
            json!({"capabilities": {"add": ["NET_ADMIN", "ROOT"]}}),
            "/capabilities/add/1",
        ),
        (
            json!({"capabilities": {"drop": [""]}}),
            "/capabilities/drop/0",
        ),
        (json!({"oom_score_adj": 1001}), "/oom_score_adj"),
        (json!({"stop_signal": "SIGNOTHING"}), "/stop_signal"),
        (json!({"stop_signal": "0"}), "/stop_signal"),
        (json!({"stop_signal": "65"}), "/stop_signal"),
        (json!({"log": {"max_size": 100}}), "/log/max_size"),
        (json!({"log": {"max_files": 0}}), "/log/max_files"),
        (mount(json!({"destination": "x"})), "/mounts/0/destination"),
        (mount(json!({"destination": "/"})), "/mounts/0/destination"),
        (
            mount(json!({"destination": "/proc"})),
            "/mounts/0/destination",
        ),
        (
            mount(json!({"destination": "/./proc/sys"})),
            "/mounts/0/destination",
        ),
        (
            mount(json!({"destination": "/a/../proc"})),
            "/mounts/0/destination",
        ),
        (mount(json!({"source": "relative"})), "/mounts/0/source"),
        (mount(json!({"source": null})), "/mounts/0/source"),
        (mount(json!({"size": 1})), "/mounts/0/size"),
        (mount(json!({"mode": "755"})), "/mounts/0/mode"),
        (
            mount(json!({"propagation": "both"})),
            "/mounts/0/propagation",
        ),
        (
            mount(json!({"options": ["nosuid", "suid"]})),
            "/mounts/0/options/1",
        ),
        (mount(json!({"type": "tmpfs"})), "/mounts/0/source"),
        (
            mount(json!({"type": "tmpfs", "source": null, "create": true})),
            "/mounts/0/create",
        ),
        (
            mount(json!({"type": "tmpfs", "source": null, "recursive": true})),
            "/mounts/0/recursive",
        ),
        (
            mount(json!({"type": "tmpfs", "source": null, "size": 0})),
            "/mounts/0/size",
        ),
        (
            mount(json!({"type": "tmpfs", "source": null, "mode": "4755"})),
            "/mounts/0/mode",
        ),
    ]
}

fn maps(uid: Value) -> Value {
    let lines: Vec<Value> = uid
        .as_array()
        .unwrap()
        .iter()
        .map(|l| json!({"container_id": l[0], "host_id": l[1], "size": l[2]}))
        .collect();
    json!({
        "namespaces": {"user": "new"},
        "id_maps": {"uid": lines, "gid": [{"container_id": 0, "host_id": 0, "size": 1}]},
    })
}

fn mount(patch: Value) -> Value {
    let mut mount = json!({"type": "bind", "source": "/data", "destination": "/mnt"});
    merge(&mut mount, patch);
    json!({"mounts": [mount]})
}

fn merge(into: &mut Value, patch: Value) {
    let (Value::Object(into), Value::Object(patch)) = (into, patch) else {
        return;
    };
    into.extend(patch);
}

/// A request, or where it cannot be read.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(body)
        .map_err(|e| check::error(pointer::of(e.path()), e.inner().to_string()))
}

#[test]
fn a_bad_container_is_refused_where_it_is_bad() {
    for (patch, pointer) in container_cases() {
        let shown = patch.to_string().chars().take(200).collect::<String>();
        let mut body = serde_json::to_value(base()).unwrap();
        merge(&mut body, patch);
        let read = read::<ContainerConfig>(body);
        match read.and_then(|config| prepare(&config, &ctx(&id()))) {
            Ok(_) => panic!("accepted: {shown}"),
            Err(error) => {
                assert_eq!(error.pointer, pointer, "{shown}: {error}");
                assert_sentence(&error);
            }
        }
    }
}

#[test]
fn infinite_cpus_are_refused() {
    for cpus in [f64::NAN, f64::INFINITY] {
        let mut config = base();
        config.resources.cpus = Some(cpus);
        let error = prepare(&config, &ctx(&id())).unwrap_err();
        assert_eq!(error.pointer, "/resources/cpus");
    }
}

#[test]
fn a_bad_exec_is_refused_where_it_is_bad() {
    let cases = [
        (json!({"command": []}), "/command"),
        (json!({"env": {"A=": ""}}), "/env/A="),
        (json!({"working_dir": "x"}), "/working_dir"),
        (json!({"user": "-1"}), "/user"),
        (json!({"input": "x", "stdin": true}), "/input"),
        (json!({"timeout_ms": 0}), "/timeout_ms"),
        (json!({"output_limit": 1}), "/output_limit"),
        (
            json!({"capabilities": {"add": ["X"]}}),
            "/capabilities/add/0",
        ),
    ];
    for (patch, pointer) in cases {
        let mut body = json!({"command": ["true"]});
        merge(&mut body, patch);
        let read = read::<ExecConfig>(body);
        let prepared = read.and_then(|config| exec_process(&config, &base(), &ctx(&id())));
        let error = prepared.unwrap_err();
        assert_eq!(error.pointer, pointer, "{error}");
        assert_sentence(&error);
    }
}

/// A detail can be read on a terminal: bounded, on one line, without a full stop.
fn assert_sentence(error: &ConfigError) {
    assert!(
        !error.detail.is_empty() && error.detail.len() < 400,
        "{}",
        error.detail
    );
    assert!(
        !error.detail.contains(char::is_control),
        "{:?}",
        error.detail
    );
    assert!(!error.detail.ends_with('.'), "{}", error.detail);
}
