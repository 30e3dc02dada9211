//! `features`.

use littlebox_helper::protocol::NamespaceKind;
use littlebox_plan::{capability, hooks};
use serde_json::{Value, json};

use crate::cli::{OLDEST_SPEC_VERSION, SPEC_VERSION};
use crate::error::Result;
use crate::output;

/// Prints what this runtime can do (OCI features.md), from the tables that do it.
pub fn run() -> Result<()> {
    output::line(&serde_json::to_string_pretty(&document()).expect("strings are JSON"))
}

fn document() -> Value {
    let capabilities: Vec<String> = capability::ALL
        .iter()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    json!({
        "ociVersionMin": OLDEST_SPEC_VERSION,
        "ociVersionMax": SPEC_VERSION,
        "hooks": hooks::NAMES,
        "mountOptions": littlebox_plan::mount_options(),
        "linux": {
            "namespaces": NamespaceKind::ALL.map(namespace),
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {"enabled": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false},
        },
        "annotations": {"littlebox.version": env!("CARGO_PKG_VERSION")},
    })
}

/// The specification's name of a kind (OCI config-linux.md, "Namespaces").
fn namespace(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mnt => "mount",
        NamespaceKind::Net => "network",
        NamespaceKind::Uts
        | NamespaceKind::Ipc
        | NamespaceKind::Pid
        | NamespaceKind::User
        | NamespaceKind::Cgroup
        | NamespaceKind::Time => kind.name(),
    }
}
