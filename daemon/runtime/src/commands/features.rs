//! `features`.

use littlebox_helper::sys;
use littlebox_plan::{SPEC_VERSION, capability, hooks, scheduling, seccomp};
use littlebox_protocol::NamespaceKind;
use serde_json::{Value, json};

use crate::cli::OLDEST_SPEC_VERSION;
use crate::error::Result;
use crate::output;

/// What a seccomp profile may say; a test asks the compiler of profiles for each.
const SECCOMP_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const SECCOMP_ARCHS: [&str; 5] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];
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
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                "archs": SECCOMP_ARCHS,
                "knownFlags": seccomp::FLAGS.map(|(flag, _)| flag),
                "supportedFlags": supported_flags(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {
                "modes": scheduling::MEMORY_MODES.map(|(mode, _)| mode.to_string()),
                "flags": scheduling::MEMORY_FLAGS.map(|(flag, _)| flag.to_string()),
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false},
        },
        "annotations": {"littlebox.version": env!("CARGO_PKG_VERSION")},
    })
}

/// Those of the flags that this kernel knows. Asked one by one: TSYNC does not go with all others.
fn supported_flags() -> Vec<&'static str> {
    let known = seccomp::FLAGS.into_iter();
    let supported = known.filter(|(_, bit)| sys::knows_seccomp_flags(*bit));
    supported.map(|(flag, _)| flag).collect()
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

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    fn is_taken(seccomp: Value) -> bool {
        let spec = json!({"ociVersion": "1.0.2", "linux": {"seccomp": seccomp}});
        let spec = serde_json::from_value::<Spec>(spec);
        spec.is_ok_and(|spec| littlebox_plan::seccomp::of_spec(&spec).is_ok())
    }

    fn rule(rule: Value) -> Value {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    }

    #[test]
    fn what_is_announced_of_seccomp_is_taken_and_the_rest_refused() {
        for action in SECCOMP_ACTIONS {
            let mut profile = rule(json!({"names": ["sync"], "action": action}));
            profile["listenerPath"] = "/run/agent.sock".into();
            assert!(is_taken(profile), "{action}");
        }
        for op in SECCOMP_OPERATORS {
            let argument = json!({"index": 0, "value": 1, "valueTwo": 1, "op": op});
            let action = "SCMP_ACT_LOG";
            let profile = rule(json!({"names": ["sync"], "action": action, "args": [argument]}));
            assert!(is_taken(profile), "{op}");
        }
        for arch in SECCOMP_ARCHS {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch]});
            assert!(is_taken(profile), "{arch}");
        }
        for (flag, _) in seccomp::FLAGS {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]});
            assert!(is_taken(profile), "{flag}");
        }
        assert!(!is_taken(json!({"defaultAction": "SCMP_ACT_OTHER"})));
    }
}
