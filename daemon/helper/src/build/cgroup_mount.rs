//! The container's view of its cgroups.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts;
use super::paths::Links;
use super::tree::{Tree, attach};
use crate::cgroup::Cgroup;
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::sys::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};
use littlebox_protocol::cgroup::Hierarchy;
use littlebox_protocol::{Defence, MountAttrs, MountPlan};

/// On a pure v2 host one cgroup2 mount; else a tmpfs with one mount for each hierarchy that the
/// container has a cgroup in. The others are left out: there the container lives in the helper's
/// cgroup, which is none of its business. Made inside the container's cgroup namespace, whose
/// root is its own cgroup.
///
/// `made`: the same mounts from the helper, in the order of the hierarchies, where the container's
/// user namespace does not own the cgroup namespace.
pub fn mount(
    tree: &mut Tree,
    mount: &MountPlan,
    cgroup: &Cgroup,
    made: Option<Vec<OwnedFd>>,
) -> Result<(), Fault> {
    let path = mount.destination.as_path();
    let attrs = MountAttrs {
        read_only: mount.attrs.read_only && stands(Defence::ReadOnlyCgroup),
        ..mount.attrs
    };
    let target = tree.ensure_dir(path, Links::Inside)?;
    let hierarchies: Vec<&Hierarchy> = cgroup.hierarchies().collect();
    let view = |made: Option<Vec<OwnedFd>>| match made {
        Some(made) => Ok(made),
        None => self::hierarchies(cgroup, attrs),
    };
    match hierarchies[..] {
        [] => Ok(()),
        [only] if only.is_unified() => view(made)?
            .into_iter()
            .try_for_each(|made| attach(made, &target, path)),
        _ => {
            let writable = mounts::writable(attrs);
            let tmpfs = mounts::make("tmpfs", &["mode=755", "size=64k"], writable)?;
            attach(&tmpfs, target, path)?;
            for (hierarchy, made) in hierarchies.into_iter().zip(view(made)?) {
                place(&tmpfs, hierarchy, made, path)?;
            }
            seal(&tmpfs, attrs)
        }
    }
}

/// The view in the host's cgroup namespace. There a fresh mount of a v1 hierarchy shows the cgroups
/// of everybody, where programs look for their own limits: so the container's directories are bound,
/// as runc does. On a pure v2 host the tree is one, and who shares the namespace sees it.
pub fn host_view(cgroup: &Cgroup, attrs: MountAttrs) -> Result<Vec<OwnedFd>, Fault> {
    if cgroup.hierarchies().all(Hierarchy::is_unified) {
        return hierarchies(cgroup, attrs);
    }
    let one = |path: &Path| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags).fault_at("open_tree", path.display())?;
        let attr = MountAttr {
            propagation: libc::MS_PRIVATE,
            ..mounts::attr_of(attrs)
        };
        mount_setattr(tree.as_fd(), false, attr).fault_at("mount_setattr", path.display())?;
        Ok(tree)
    };
    cgroup.directories().map(one).collect()
}

/// The mounts of the hierarchies, seen from the cgroup namespace of the calling process.
pub fn hierarchies(cgroup: &Cgroup, attrs: MountAttrs) -> Result<Vec<OwnedFd>, Fault> {
    let one = |hierarchy: &Hierarchy| {
        if hierarchy.is_unified() {
            return mounts::make("cgroup2", &[], attrs);
        }
        let options: Vec<&str> = hierarchy.controllers().iter().map(String::as_str).collect();
        mounts::make("cgroup", &options, attrs)
    };
    cgroup.hierarchies().map(one).collect()
}

fn place(tmpfs: &OwnedFd, hierarchy: &Hierarchy, made: OwnedFd, path: &Path) -> Result<(), Fault> {
    let name = hierarchy.name();
    mkdirat(tmpfs, &name, Mode::from_raw_mode(0o755)).fault_at("mkdirat", &name)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(tmpfs, &name, flags, Mode::empty()).fault_at("openat", &name)?;
    attach(made, target, &path.join(&name))?;
    if hierarchy.controllers().len() > 1 {
        // `cpu` for `cpu,cpuacct`, as programs expect it.
        for controller in hierarchy.controllers() {
            symlinkat(&name, tmpfs, controller).fault_at("symlinkat", controller)?;
        }
    }
    Ok(())
}

fn seal(tmpfs: &OwnedFd, attrs: MountAttrs) -> Result<(), Fault> {
    if !attrs.read_only {
        return Ok(());
    }
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(tmpfs.as_fd(), false, attr).fault("mount_setattr")
}
