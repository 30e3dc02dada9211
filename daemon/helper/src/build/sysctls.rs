//! Namespaced sysctls, written through a procfs that nothing else can reach.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::system::{setdomainname, sethostname};

use super::mounts;
use super::namespaces::{Namespaces, Origin};
use crate::fault::{Fault, OrFault};
use littlebox_protocol::{MountAttrs, NamespaceKind};

/// Writes them. One that belongs to the host, not to a namespace of the container, is refused.
///
/// The procfs is a fresh one that is attached nowhere: there is no mount of the container or link
/// of the image in it that could redirect the write (CVE-2025-52881). `proc` is one from the
/// helper: a user namespace may not mount one of a PID namespace that it does not own. What it
/// shows under `sys` are the namespaces of who looks.
pub fn write(
    sysctls: &BTreeMap<String, String>,
    namespaces: &Namespaces,
    proc: Option<OwnedFd>,
) -> Result<(), Fault> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = match proc {
        Some(proc) => proc,
        None => procfs()?,
    };
    sysctls
        .iter()
        .try_for_each(|(name, value)| write_one(&proc, name, value, namespaces))
}

/// A procfs that is attached nowhere.
pub fn procfs() -> Result<OwnedFd, Fault> {
    mounts::make("proc", &[], MountAttrs::default())
}

fn write_one(
    proc: &OwnedFd,
    name: &str,
    value: &str,
    namespaces: &Namespaces,
) -> Result<(), Fault> {
    let path = path_of(name);
    let kind = namespace_of(&path)
        .filter(|kind| namespaces.origin(*kind) != Origin::Host)
        .ok_or_else(|| {
            Fault::refused("this sysctl is the host's: no namespace of the container has its own")
                .at(name)
        })?;
    // In procfs these two belong to the machine's root, whoever owns the UTS namespace.
    match path.as_str() {
        "kernel/hostname" => return sethostname(value.as_bytes()).fault_at("sethostname", name),
        "kernel/domainname" => {
            return setdomainname(value.as_bytes()).fault_at("setdomainname", name);
        }
        _ => {}
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat2(
        proc.as_fd(),
        format!("sys/{path}"),
        flags,
        Mode::empty(),
        resolve,
    )
    .fault_at("openat2", name)?;
    rustix::io::write(&file, value.as_bytes())
        .fault_at("write", name)
        .map(drop)
        .map_err(|fault| fault.because(format!("in the {} namespace", kind.name())))
}

/// As sysctl(8) has it: dots separate, unless a slash does so first.
fn path_of(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn namespace_of(path: &str) -> Option<NamespaceKind> {
    const IPC: [&str; 12] = [
        "kernel/auto_msgmni",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/msg_next_id",
        "kernel/sem",
        "kernel/sem_next_id",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_next_id",
        "kernel/shm_rmid_forced",
    ];
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Some(NamespaceKind::Ipc)
    } else if path.starts_with("net/") {
        Some(NamespaceKind::Net)
    } else if path.starts_with("user/") {
        Some(NamespaceKind::User)
    } else if matches!(path, "kernel/hostname" | "kernel/domainname") {
        Some(NamespaceKind::Uts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_separate_as_in_sysctl() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn host_wide_sysctls_belong_to_no_namespace() {
        assert_eq!(namespace_of("kernel/core_pattern"), None);
        assert_eq!(namespace_of("vm/overcommit_memory"), None);
        assert_eq!(namespace_of("kernel/shmmax"), Some(NamespaceKind::Ipc));
        assert_eq!(
            namespace_of("user/max_net_namespaces"),
            Some(NamespaceKind::User)
        );
    }
}
