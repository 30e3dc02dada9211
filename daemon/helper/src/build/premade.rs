//! What the helper mounts for a container in a user namespace, because the container itself may
//! not: the filesystems of namespaces that its user namespace does not own (pid_namespaces(7),
//! network_namespaces(7)...), and a `/dev` whose nodes work.
//!
//! A filesystem that is made in a user namespace has no devices (`SB_I_NODEV`); each node would
//! have to be a bind mount. In one that the helper makes they are nodes, as without a user
//! namespace, and cost no mount.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;

use super::deputy::{self, inside};
use super::idmap::root_of;
use super::mounts::{self, Source};
use super::namespaces::{Namespaces, Origin};
use super::{cgroup_mount, devices, identity};
use crate::cgroup::Cgroup;
use crate::fault::Fault;
use crate::sys;
use littlebox_protocol::{LaunchPlan, MountPlan, MountSource, NamespaceKind};

/// Makes what the child could not; `None`: it can, or the helper cannot either.
pub fn make(
    plan: &LaunchPlan,
    mount: &MountPlan,
    namespaces: &Namespaces,
    cgroup: &Cgroup,
) -> Result<Option<Source>, Fault> {
    match try_make(plan, mount, namespaces, cgroup) {
        // A procfs that the child made would be of another PID namespace.
        Err(fault) if fault.is(Errno::PERM) && !is_joined_procfs(mount, namespaces) => Ok(None),
        made => made,
    }
}

fn try_make(
    plan: &LaunchPlan,
    mount: &MountPlan,
    namespaces: &Namespaces,
    cgroup: &Cgroup,
) -> Result<Option<Source>, Fault> {
    let host_user = namespaces.origin(NamespaceKind::User) == Origin::Host;
    if host_user && !is_joined_procfs(mount, namespaces) {
        return Ok(None);
    }
    let foreign = |kind| namespaces.origin(kind) != Origin::New;
    match &mount.source {
        MountSource::Filesystem {
            fstype, options, ..
        } => match fstype.as_str() {
            "tmpfs" if is_dev(plan, mount) => dev(plan, mount, options),
            "proc" if foreign(NamespaceKind::Pid) => {
                procfs_of_others(mount, namespaces, options).map(|made| Some(Source::Tree(made)))
            }
            "sysfs" if foreign(NamespaceKind::Net) => {
                let made = inside(namespaces, NamespaceKind::Net, || {
                    filesystem(mount, "sysfs", options)
                })?;
                Ok(Some(Source::Tree(made)))
            }
            "mqueue" if foreign(NamespaceKind::Ipc) => {
                let made = inside(namespaces, NamespaceKind::Ipc, || {
                    filesystem(mount, "mqueue", options)
                })?;
                Ok(Some(Source::Tree(made)))
            }
            _ => Ok(None),
        },
        MountSource::Cgroup if namespaces.origin(NamespaceKind::Cgroup) == Origin::Host => {
            Ok(Some(Source::Hierarchies(cgroup_mount::host_view(
                cgroup,
                mount.attrs,
            )?)))
        }
        MountSource::Cgroup if foreign(NamespaceKind::Cgroup) => {
            let made = inside(namespaces, NamespaceKind::Cgroup, || {
                cgroup_mount::hierarchies(cgroup, mount.attrs)
            })?;
            Ok(Some(Source::Hierarchies(made)))
        }
        MountSource::Cgroup | MountSource::Bind { .. } => Ok(None),
    }
}

/// A procfs for the plan's sysctls, for a child in a user namespace.
pub fn sysctls(plan: &LaunchPlan, namespaces: &Namespaces) -> Result<Option<OwnedFd>, Fault> {
    if plan.sysctls.is_empty() || namespaces.origin(NamespaceKind::User) == Origin::Host {
        return Ok(None);
    }
    match super::sysctls::procfs() {
        Err(fault) if fault.is(Errno::PERM) => Ok(None),
        made => made.map(Some),
    }
}

/// Whether this is the procfs of a PID namespace that the child is never in itself.
fn is_joined_procfs(mount: &MountPlan, namespaces: &Namespaces) -> bool {
    let is_proc =
        matches!(&mount.source, MountSource::Filesystem { fstype, .. } if fstype == "proc");
    is_proc && namespaces.origin(NamespaceKind::Pid) == Origin::Joined
}

/// A procfs of a PID namespace that the helper is not in. Before Linux 6.18 only a process inside that
/// namespace can make one. That process still has the host's root, so until it ends, a process in the
/// same namespace that holds CAP_SYS_PTRACE in the host's user namespace can reach the host through it.
fn procfs_of_others(
    mount: &MountPlan,
    namespaces: &Namespaces,
    options: &[String],
) -> Result<OwnedFd, Fault> {
    if let Some(given) = namespaces.given(NamespaceKind::Pid) {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let made = mounts::make_procfs_of(given, &options, mount.attrs)
            .map_err(|f| f.at(mount.destination.display()))?;
        if let Some(made) = made {
            return Ok(made);
        }
    }
    inside(namespaces, NamespaceKind::Pid, || {
        deputy::fetch(0, || filesystem(mount, "proc", options))
    })
}

fn filesystem(mount: &MountPlan, fstype: &str, options: &[String]) -> Result<OwnedFd, Fault> {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    mounts::make(fstype, &options, mount.attrs).map_err(|f| f.at(mount.destination.display()))
}

/// Whether this is the tmpfs that the plan's devices are for: the last one on `/dev`.
fn is_dev(plan: &LaunchPlan, mount: &MountPlan) -> bool {
    let on_dev = |m: &&MountPlan| m.destination == std::path::Path::new("/dev");
    plan.mounts
        .iter()
        .rev()
        .find(on_dev)
        .is_some_and(|last| std::ptr::eq(last, mount))
}

/// `/dev` with its nodes and links, all of which belong to the container's root.
fn dev(plan: &LaunchPlan, mount: &MountPlan, options: &[String]) -> Result<Option<Source>, Fault> {
    let Some((uid, gid)) = root_of(&plan.uid_map, &plan.gid_map) else {
        return Ok(None);
    };
    let owner = [format!("uid={uid}"), format!("gid={gid}")];
    let options: Vec<&str> = options.iter().chain(&owner).map(String::as_str).collect();
    let attrs = mounts::writable(mount.attrs);
    let made = mounts::make("tmpfs", &options, attrs)?;
    let mask = umask(Mode::empty());
    sys::set_fs_ids(uid, gid);
    let filled = identity::raise_effective().and_then(|_| {
        devices::fill(
            made.as_fd(),
            &plan.devices,
            Some((&plan.uid_map, &plan.gid_map)),
        )
    });
    sys::set_fs_ids(0, 0);
    umask(mask);
    // Where the helper itself may not make nodes (EPERM: it lives in a user namespace), the child
    // binds the host's.
    filled.map(|()| Some(Source::Tree(made)))
}
