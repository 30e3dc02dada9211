//! Plans of OCI runtime specs as other engines write them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod explained;
mod limits;
mod mounts;
mod process;
mod refused;

use std::collections::BTreeMap;

use littlebox_plan::explain::explain;
use littlebox_plan::{Envelope, PlanError, launch_plan};
use littlebox_protocol::cgroup::Layout;
use littlebox_protocol::{
    DeviceRule, LaunchPlan, LogPlan, MountSource, NamespaceKind, NamespacePlan, Propagation,
    RootfsSource, Step, TerminalSize, TimeClock, UserRef,
};
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
