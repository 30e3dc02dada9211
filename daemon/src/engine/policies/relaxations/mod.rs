//! By what a container is less closed than the default one: a list for people, of what was asked
//! for. Computed, never kept.

mod spec;

use std::collections::BTreeSet;
use std::path::Path;

use littlebox_types::{
    ContainerConfig, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, DeviceConfig, MountConfig,
    MountKind, NamespaceSource, NamespaceType, Seccomp,
};
use serde_json::{Map, Value};

/// The relaxations of a configuration, in a stable order.
pub(in crate::engine) fn of(config: &ContainerConfig, socket: &Path) -> Vec<String> {
    let mut list = Vec::new();
    if has_socket(config, socket) {
        list.push("littlebox's own socket: it can do all that littlebox can".to_owned());
    }
    if let Some(spec) = &config.spec {
        list.extend(spec::of(spec));
        return list;
    }
    if config.privileged {
        list.push("privileged: all capabilities, every device, nothing masked".to_owned());
    }
    if config.rootfs == "host" {
        list.push("the machine's own files can be read".to_owned());
    }
    if config.privileged
        && config.id_maps.is_none()
        && !config.namespaces.contains_key(&NamespaceType::User)
    {
        list.push("host user namespace".to_owned());
    }
    if let Some(maps) = &config.id_maps
        && let Some(root) = maps.uid.iter().find(|map| map.host_id == 0 && map.size > 0)
    {
        list.push(host_root(u64::from(root.container_id)));
    }
    list.extend(namespaces(config));
    list.extend(capabilities(config));
    if config.no_new_privileges == Some(false) {
        list.push("set-user-ID programs give privileges".to_owned());
    }
    match &config.seccomp {
        Some(Seccomp::Unconfined) if !config.privileged => {
            list.push("seccomp unconfined: every system call".to_owned());
        }
        Some(Seccomp::Profile(profile)) => {
            list.push("a seccomp profile of its own".to_owned());
            list.extend(seccomp_agent(profile));
        }
        Some(Seccomp::Unconfined | Seccomp::Default) | None => {}
    }
    if config.apparmor.as_deref() == Some("unconfined") {
        list.push("AppArmor unconfined".to_owned());
    }
    if !config.privileged {
        list.extend(missing(
            "unmasked",
            config.masked_paths.as_deref(),
            &DEFAULT_MASKED_PATHS,
        ));
        list.extend(missing(
            "writable",
            config.readonly_paths.as_deref(),
            &DEFAULT_READONLY_PATHS,
        ));
    }
    list.extend(config.devices.iter().map(device));
    list.extend(
        config
            .device_rules
            .iter()
            .map(|rule| format!("device rule {rule}")),
    );
    list.extend(config.mounts.iter().filter_map(mount));
    if let Some(propagation) = config.propagation.filter(|p| !p.is_private()) {
        list.push(format!("mount propagation {propagation}"));
    }
    if config.resources.pids_limit == Some(-1) {
        list.push("no limit of processes".to_owned());
    }
    if config.oom_score_adj.is_some_and(|score| score < 0) {
        list.push("spared by the OOM killer".to_owned());
    }
    list
}

/// The agent of a seccomp profile that leaves calls to one.
fn seccomp_agent(profile: &Map<String, Value>) -> Option<String> {
    let rules = profile.get("syscalls").and_then(Value::as_array);
    let rules = rules.into_iter().flatten().map(|rule| rule.get("action"));
    let mut actions = rules.chain([profile.get("defaultAction")]).flatten();
    let asks = actions.any(|action| action == "SCMP_ACT_NOTIFY");
    let path = profile.get("listenerPath").filter(|_| asks)?.as_str()?;
    Some(format!(
        "seccomp agent at {path}: it decides about system calls"
    ))
}

/// A map of the host's root.
fn host_root(container_id: u64) -> String {
    format!("user {container_id} is the host's root in its rights over files and processes")
}

/// What a capability gives beyond its name.
fn capability(name: &str) -> String {
    match name {
        "SYS_ADMIN" => {
            "capability SYS_ADMIN: read-only mounts and masked paths can be changed from inside"
                .to_owned()
        }
        name => format!("capability {name}"),
    }
}

/// Whether it was given the API's socket.
pub(in crate::engine) fn has_socket(config: &ContainerConfig, socket: &Path) -> bool {
    let binds = config
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Bind);
    let is_socket = |source: &String| Path::new(source) == socket;
    binds
        .filter_map(|mount| mount.source.as_ref())
        .any(is_socket)
        || (config.spec.as_ref()).is_some_and(|spec| spec::binds(spec, socket))
}

fn namespaces(config: &ContainerConfig) -> impl Iterator<Item = String> {
    config.namespaces.iter().filter_map(|(kind, source)| {
        let kind = match kind {
            NamespaceType::Net => "network",
            kind => kind.name(),
        };
        match source {
            NamespaceSource::New => None,
            NamespaceSource::Host => Some(format!("host {kind} namespace")),
            NamespaceSource::Container(name) => {
                Some(format!("{kind} namespace of container {name}"))
            }
            NamespaceSource::Pid(pid) => Some(format!("{kind} namespace of process {pid}")),
        }
    })
}

fn capabilities(config: &ContainerConfig) -> impl Iterator<Item = String> {
    let name = |text: &String| {
        let upper = text.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let added: BTreeSet<String> = config.capabilities.add.iter().map(name).collect();
    let added = added
        .into_iter()
        .filter(|name| !crate::spec::is_default_capability(name));
    added.map(|name| match name.as_str() {
        "ALL" => "all capabilities: read-only mounts and masked paths can be changed from inside"
            .to_owned(),
        name => capability(name),
    })
}

/// Which of the default paths a list that was given does not have.
fn missing(what: &str, given: Option<&[String]>, default: &[&str]) -> Vec<String> {
    let Some(given) = given else {
        return Vec::new();
    };
    let gone: Vec<_> = default
        .iter()
        .filter(|path| given.iter().all(|g| g != *path))
        .collect();
    if gone.len() == default.len() {
        return vec![format!("{what}: all default paths")];
    }
    gone.iter().map(|path| format!("{what}: {path}")).collect()
}

fn device(device: &DeviceConfig) -> String {
    let access = device.permissions.as_deref().unwrap_or("rwm");
    format!("device {} ({access})", device.path)
}

fn mount(mount: &MountConfig) -> Option<String> {
    let source = mount.source.as_ref()?;
    let access = if mount.read_only {
        "read-only"
    } else {
        "writable"
    };
    (mount.kind == MountKind::Bind)
        .then(|| format!("host path {source} at {} ({access})", mount.destination))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(config: serde_json::Value) -> Vec<String> {
        of(
            &serde_json::from_value(config).unwrap(),
            Path::new("/run/littlebox.sock"),
        )
    }

    #[test]
    fn a_default_container_has_none() {
        assert_eq!(list(json!({"rootfs": "dir:/r", "command": ["x"]})), [""; 0]);
    }

    #[test]
    fn what_is_stricter_than_the_default_is_none() {
        let config = json!({
            "capabilities": {"add": ["chown"], "drop": ["ALL"]}, "no_new_privileges": true,
            "read_only": true, "namespaces": {"net": "new"}, "propagation": "rprivate",
            "mounts": [{"type": "tmpfs", "destination": "/t"}],
        });
        assert_eq!(list(config), [""; 0]);
    }

    #[test]
    fn each_is_told() {
        let masked: Vec<&str> = DEFAULT_MASKED_PATHS.into_iter().skip(1).collect();
        let config = json!({
            "rootfs": "host",
            "namespaces": {"net": "host", "pid": "container:web", "ipc": "pid:7"},
            "capabilities": {"add": ["CAP_NET_ADMIN", "all", "KILL"]},
            "no_new_privileges": false,
            "masked_paths": masked, "readonly_paths": [],
            "devices": [{"path": "/dev/fuse", "permissions": "rw"}],
            "device_rules": ["c 10:* r"],
            "mounts": [{"type": "bind", "source": "/s", "destination": "/d", "read_only": true}],
            "propagation": "rslave", "resources": {"pids_limit": -1}, "oom_score_adj": -1,
            "apparmor": "unconfined", "seccomp": "unconfined",
        });
        assert_eq!(
            list(config),
            [
                "the machine's own files can be read",
                "ipc namespace of process 7",
                "host network namespace",
                "pid namespace of container web",
                "all capabilities: read-only mounts and masked paths can be changed from inside",
                "capability NET_ADMIN",
                "set-user-ID programs give privileges",
                "seccomp unconfined: every system call",
                "AppArmor unconfined",
                "unmasked: /proc/acpi",
                "writable: all default paths",
                "device /dev/fuse (rw)",
                "device rule c 10:* r",
                "host path /s at /d (read-only)",
                "mount propagation rslave",
                "no limit of processes",
                "spared by the OOM killer",
            ]
        );
    }

    #[test]
    fn the_socket_is_told_when_it_is_bound_itself() {
        let bind =
            |source| json!({"mounts": [{"type": "bind", "source": source, "destination": "/s"}]});
        assert!(list(bind("/run/littlebox.sock"))[0].contains("own socket"));
        assert!(!list(bind("/run"))[0].contains("own socket"));
    }

    #[test]
    fn a_map_of_the_hosts_root_is_told() {
        let map = json!([{"container_id": 5, "host_id": 0, "size": 65_536}]);
        let config = json!({"id_maps": {"uid": map, "gid": map}});
        assert_eq!(list(config), [host_root(5)]);
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        let spec = json!({"linux": {"uidMappings": map}});
        assert!(spec::of(&spec).contains(&host_root(0)));
    }

    #[test]
    fn an_agent_that_a_profile_asks_is_told() {
        let told = "seccomp agent at /run/a: it decides about system calls".to_owned();
        let of = |profile: &serde_json::Value| list(json!({"seccomp": profile})).contains(&told);
        let of_spec = |profile: &serde_json::Value| {
            spec::of(&json!({"linux": {"seccomp": profile}})).contains(&told)
        };
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/a"});
        assert!(!of(&profile) && !of_spec(&profile));
        profile["syscalls"] = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
        assert!(of(&profile) && of_spec(&profile));
        profile["syscalls"] = json!(null);
        profile["defaultAction"] = "SCMP_ACT_NOTIFY".into();
        assert!(of(&profile) && of_spec(&profile));
    }

    #[test]
    fn privileged_says_it_once() {
        let config = json!({"privileged": true, "masked_paths": [], "namespaces": {"user": "new"}});
        assert_eq!(list(config).len(), 1);
    }
}
