//! The relaxations of an OCI runtime spec, read from its JSON.

use std::collections::BTreeSet;
use std::path::Path;

use littlebox_types::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
use serde_json::Value;

use super::missing;

/// The types of namespaces by the specification's names.
const NAMESPACES: [&str; 7] = ["uts", "ipc", "network", "pid", "user", "cgroup", "time"];

/// In a stable order.
pub(super) fn of(spec: &Value) -> Vec<String> {
    let mut list = namespaces(spec);
    let root = items(spec, "/linux/uidMappings").find(|map| map["hostID"] == 0);
    list.extend(root.and_then(|map| Some(super::host_root(map["containerID"].as_u64()?))));
    list.extend(capabilities(spec));
    if spec.pointer("/process/noNewPrivileges") != Some(&Value::Bool(true)) {
        list.push("set-user-ID programs give privileges".to_owned());
    }
    if spec.pointer("/linux/seccomp").is_none_or(Value::is_null) {
        list.push("seccomp unconfined".to_owned());
    }
    let profile = spec.pointer("/linux/seccomp").and_then(Value::as_object);
    list.extend(profile.and_then(super::seccomp_agent));
    let masked = strings(spec, "/linux/maskedPaths");
    list.extend(missing("unmasked", Some(&masked), &DEFAULT_MASKED_PATHS));
    let read_only = strings(spec, "/linux/readonlyPaths");
    list.extend(missing(
        "writable",
        Some(&read_only),
        &DEFAULT_READONLY_PATHS,
    ));
    let devices = items(spec, "/linux/devices");
    list.extend(devices.filter_map(|d| Some(format!("device {}", d["path"].as_str()?))));
    list.extend(items(spec, "/mounts").filter_map(bind));
    list
}

fn items<'a>(spec: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    spec.pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn strings(spec: &Value, pointer: &str) -> Vec<String> {
    items(spec, pointer)
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn namespaces(spec: &Value) -> Vec<String> {
    let list: Vec<&Value> = items(spec, "/linux/namespaces").collect();
    NAMESPACES
        .into_iter()
        .filter_map(|kind| {
            let Some(own) = list.iter().find(|n| n["type"] == kind) else {
                return Some(format!("host {kind} namespace"));
            };
            let path = own["path"].as_str()?;
            Some(format!("{kind} namespace of {path}"))
        })
        .collect()
}

fn capabilities(spec: &Value) -> impl Iterator<Item = String> {
    let sets = [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ];
    let names: BTreeSet<String> = sets
        .into_iter()
        .flat_map(|set| strings(spec, &format!("/process/capabilities/{set}")))
        .map(|name| name.trim_start_matches("CAP_").to_owned())
        .filter(|name| !crate::spec::is_default_capability(name))
        .collect();
    names.into_iter().map(|name| super::capability(&name))
}

/// Whether a mount of the specification has exactly this source.
pub(super) fn binds(spec: &Value, path: &Path) -> bool {
    let mut binds = items(spec, "/mounts").filter(|mount| bind(mount).is_some());
    binds.any(|mount| {
        mount["source"]
            .as_str()
            .is_some_and(|source| Path::new(source) == path)
    })
}

fn bind(mount: &Value) -> Option<String> {
    let options = strings(mount, "/options");
    let has = |names: [&str; 2]| options.iter().any(|o| names.contains(&o.as_str()));
    if mount["type"] != "bind" && !has(["bind", "rbind"]) {
        return None;
    }
    let (source, at) = (mount["source"].as_str()?, mount["destination"].as_str()?);
    let access = if has(["ro", "rro"]) {
        "read-only"
    } else {
        "writable"
    };
    Some(format!("host path {source} at {at} ({access})"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_spec_leaves_open_is_told() {
        let spec = json!({
            "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_ADMIN"]}},
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/d", "source": "/s", "options": ["rbind", "ro"]},
            ],
            "linux": {
                "namespaces": [{"type": "uts"}, {"type": "ipc"}, {"type": "user"}, {"type": "time"},
                               {"type": "network", "path": "/proc/1/ns/net"}, {"type": "cgroup"}],
                "maskedPaths": DEFAULT_MASKED_PATHS,
                "devices": [{"path": "/dev/fuse"}],
            },
        });
        assert_eq!(
            of(&spec),
            [
                "network namespace of /proc/1/ns/net",
                "host pid namespace",
                "capability SYS_ADMIN: read-only mounts and masked paths can be changed from inside",
                "set-user-ID programs give privileges",
                "seccomp unconfined",
                "writable: all default paths",
                "device /dev/fuse",
                "host path /s at /d (read-only)",
            ]
        );
    }
}
