//! Which sysctls belong to a namespace, so that setting one cannot change the host.

use littlebox_protocol::NamespaceKind;

/// The sysctls of an IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The longest value that is taken; the kernel reads at most a page.
const VALUE_LIMIT: usize = 4000;

/// Checks a sysctl's name and value. `is_new` tells whether the container has a new namespace of a
/// kind: in a shared one the sysctl would be somebody else's too.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check(
    name: &str,
    value: &str,
    is_new: impl Fn(NamespaceKind) -> bool,
) -> Result<(), String> {
    if !is_well_formed(name) {
        return Err(format!(
            "'{}' is not the name of a sysctl; write it with dots, like net.ipv4.ip_forward",
            name.escape_default()
        ));
    }
    let Some(kind) = namespace(name) else {
        return Err(format!(
            "the sysctl {name} belongs to no namespace; it would change the host"
        ));
    };
    if !is_new(kind) {
        let kind = kind.name();
        return Err(format!(
            "the sysctl {name} needs a new {kind} namespace; it would change another's"
        ));
    }
    if value.len() > VALUE_LIMIT || value.contains(['\0', '\n']) {
        return Err(format!(
            "the value of {name} has a newline, a zero byte or more than {VALUE_LIMIT} bytes"
        ));
    }
    Ok(())
}

/// Components of letters, digits, `_` and `-` between single dots: nothing that could leave `/proc/sys`.
fn is_well_formed(name: &str) -> bool {
    name.len() <= 255
        && name.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
}

/// The kind of namespace that a sysctl belongs to.
pub fn namespace(name: &str) -> Option<NamespaceKind> {
    if name.starts_with("net.") {
        return Some(NamespaceKind::Net);
    }
    if name.starts_with("fs.mqueue.") || IPC.contains(&name) {
        return Some(NamespaceKind::Ipc);
    }
    if name.starts_with("user.") {
        // The limits of user_namespaces(7), /proc/sys/user: each namespace has its own.
        return Some(NamespaceKind::User);
    }
    matches!(name, "kernel.hostname" | "kernel.domainname").then_some(NamespaceKind::Uts)
}
