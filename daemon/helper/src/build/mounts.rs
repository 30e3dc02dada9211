//! The mounts of the plan: bind sources opened by the helper, everything attached by the child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::paths::{Links, PROC_MAGIC};
use super::steps::Warnings;
use super::tree::{Tree, attach, clone_mount};
use super::{cgroup_mount, copy_up, namespaces, source};
use crate::cgroup::Cgroup;
use crate::fault::{Fault, OrFault};
use crate::sys::{self, MountAttr, mount_setattr};
use littlebox_protocol::file_systems::is_kernel_interface;
use littlebox_protocol::{IdMapping, MountAttrs, MountPlan, MountSource, Propagation};

/// What the helper has made of a mount before the child attaches it.
#[derive(Debug)]
pub enum Source {
    /// Nothing: the child makes it.
    Nothing,
    /// A detached tree: the source of a bind, or a filesystem that the child may not make.
    Tree(OwnedFd),
    /// The cgroup hierarchies that the child may not mount.
    Hierarchies(Vec<OwnedFd>),
}

/// Opens the source of a bind mount as a detached tree with its attributes set. Done by the
/// helper: inside a user namespace the host's paths need not be reachable.
pub fn open_source(mount: &MountPlan) -> Result<Source, Fault> {
    let MountSource::Bind {
        path,
        recursive,
        inside: None,
    } = &mount.source
    else {
        return Ok(Source::Nothing);
    };
    let tree = source::clone_path(path, *recursive)?;
    set_attributes(&tree, mount, *recursive)
        .map_err(|fault| fault.at(mount.destination.display()))?;
    Ok(Source::Tree(tree))
}

/// A clone is a peer of its source: without a wish of the plan it is cut off.
fn set_attributes(tree: &OwnedFd, mount: &MountPlan, recursive: bool) -> Result<(), Fault> {
    let (propagation, deep) = propagation_flags(mount.propagation.unwrap_or_default());
    let deep = deep && recursive;
    let mut attr = MountAttr {
        propagation,
        ..attr_of(mount.attrs)
    };
    attr.clear |= attr_of(mount.cleared).set;
    let attrs_deep = mount.attrs.recursive && recursive;
    if deep != attrs_deep {
        let only_attrs = MountAttr {
            propagation: 0,
            ..attr
        };
        mount_setattr(tree.as_fd(), attrs_deep, only_attrs).fault("mount_setattr")?;
        attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
    }
    mount_setattr(tree.as_fd(), deep, attr).fault("mount_setattr")?;
    match mount.tree {
        Some(whole) => {
            let mut attr = attr_of(whole.set);
            attr.clear |= attr_of(whole.clear).set;
            mount_setattr(tree.as_fd(), true, attr).fault("mount_setattr")
        }
        None => Ok(()),
    }
}

/// The kernel's flag, and whether it holds for the mounts below as well.
pub fn propagation_flags(propagation: Propagation) -> (u64, bool) {
    match propagation {
        Propagation::Rprivate => (libc::MS_PRIVATE, true),
        Propagation::Private => (libc::MS_PRIVATE, false),
        Propagation::Rslave => (libc::MS_SLAVE, true),
        Propagation::Slave => (libc::MS_SLAVE, false),
        Propagation::Rshared => (libc::MS_SHARED, true),
        Propagation::Shared => (libc::MS_SHARED, false),
        Propagation::Runbindable => (libc::MS_UNBINDABLE, true),
        Propagation::Unbindable => (libc::MS_UNBINDABLE, false),
    }
}

pub fn attr_of(attrs: MountAttrs) -> MountAttr {
    let flags = [
        (attrs.read_only, sys::MOUNT_ATTR_RDONLY),
        (attrs.nosuid, sys::MOUNT_ATTR_NOSUID),
        (attrs.nodev, sys::MOUNT_ATTR_NODEV),
        (attrs.noexec, sys::MOUNT_ATTR_NOEXEC),
        (attrs.noatime, sys::MOUNT_ATTR_NOATIME),
        (attrs.strictatime, sys::MOUNT_ATTR_STRICTATIME),
        (attrs.nodiratime, sys::MOUNT_ATTR_NODIRATIME),
        (attrs.nosymfollow, sys::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let set = flags
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, flag)| flag)
        .sum();
    // Of the three policies relatime is the one without a bit.
    let clear = if attrs.noatime || attrs.strictatime || attrs.relatime {
        sys::MOUNT_ATTR__ATIME
    } else {
        0
    };
    MountAttr {
        set,
        clear,
        ..MountAttr::default()
    }
}

/// What the child needs to know to mount.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The container's cgroup, for its view of the hierarchies.
    pub cgroup: &'a Cgroup,
    /// The id maps when the child is in a user namespace and they are known.
    pub maps: Option<(&'a [IdMapping], &'a [IdMapping])>,
    /// Whether the child is in a cgroup namespace that is not the host's.
    pub cgroup_namespace: bool,
}

/// Makes a filesystem of the plan before there is a root to attach it to; `None`: it waits for its
/// turn, and what fails here is tried again and explained then.
pub fn make_ahead(mount: &MountPlan, context: Context<'_>) -> Option<Source> {
    match &mount.source {
        MountSource::Filesystem {
            fstype, options, ..
        } => {
            let (attrs, _) = attrs_at_first(fstype, mount.attrs);
            let made = make(fstype, &usable_options(options, context), attrs);
            made.ok().map(Source::Tree)
        }
        MountSource::Cgroup => {
            let made = if context.cgroup_namespace {
                cgroup_mount::hierarchies(context.cgroup, mount.attrs)
            } else {
                cgroup_mount::host_view(context.cgroup, mount.attrs)
            };
            made.ok().map(Source::Hierarchies)
        }
        MountSource::Bind { .. } => None,
    }
}

/// Mounts one entry of the plan; `source` is what [`open_source`] gave.
pub fn mount(
    tree: &mut Tree,
    mount: &MountPlan,
    source: Source,
    context: Context<'_>,
    warnings: &mut Warnings,
) -> Result<(), Fault> {
    match (&mount.source, source) {
        (MountSource::Bind { .. }, Source::Tree(source)) => bind(tree, mount, &source),
        (
            MountSource::Bind {
                recursive,
                inside: Some(at),
                ..
            },
            _,
        ) => {
            let found = tree.open(at, OFlags::PATH);
            let found = found.fault_at("openat2", at.display())?;
            let source = clone_mount(found, *recursive).map_err(|f| f.at(at.display()))?;
            set_attributes(&source, mount, *recursive)
                .map_err(|fault| fault.at(mount.destination.display()))?;
            bind(tree, mount, &source)
        }
        (MountSource::Bind { path, .. }, _) => {
            Err(Fault::refused("the source was not opened").at(path.display()))
        }
        (
            MountSource::Filesystem {
                fstype,
                options,
                copy_up,
            },
            made,
        ) => {
            let fresh = Wanted {
                fstype,
                options,
                copy_up: *copy_up,
                made: match made {
                    Source::Tree(made) => Some(made),
                    Source::Nothing | Source::Hierarchies(_) => None,
                },
            };
            filesystem(tree, mount, fresh, context, warnings)
        }
        (MountSource::Cgroup, Source::Hierarchies(made)) => {
            cgroup_mount::mount(tree, mount, context.cgroup, Some(made))
        }
        (MountSource::Cgroup, _) if context.cgroup_namespace => {
            cgroup_mount::mount(tree, mount, context.cgroup, None)
        }
        (MountSource::Cgroup, _) => {
            let made = cgroup_mount::host_view(context.cgroup, mount.attrs)?;
            cgroup_mount::mount(tree, mount, context.cgroup, Some(made))
        }
    }
}

fn bind(tree: &Tree, mount: &MountPlan, source: &OwnedFd) -> Result<(), Fault> {
    let path = &mount.destination;
    let kind = FileType::from_raw_mode(fstat(source).fault("fstat")?.st_mode);
    if kind == FileType::Directory {
        let target = tree.ensure_dir(path, Links::Inside).map_err(|fault| {
            if fault.is(Errno::NOTDIR) {
                fault.because("a directory cannot be mounted on a file")
            } else {
                fault
            }
        })?;
        refuse_proc(target.as_fd(), path)?;
        return attach(source, target, path);
    }
    let target = tree.ensure_file(path)?;
    refuse_proc(target.as_fd(), path)?;
    attach(source, target, path).map_err(|fault| {
        if fault.is(Errno::INVAL) {
            fault.because("a file cannot be mounted on a directory")
        } else {
            fault
        }
    })
}

/// Nothing but what the plan itself puts below `/proc` may be mounted there: a link of the image
/// would else lay a volume over the files that programs believe (CVE-2019-16884).
fn refuse_proc(target: BorrowedFd<'_>, path: &Path) -> Result<(), Fault> {
    if path.starts_with("/proc") || fstatfs(target).fault("fstatfs")?.f_type != PROC_MAGIC {
        return Ok(());
    }
    Err(Fault::refused("the image has a link into /proc where a mount is to be").at(path.display()))
}

/// A link in the image must not make the helper read kernel interfaces with its own rights.
fn refuse_copy_of_kernel(target: BorrowedFd<'_>, path: &Path) -> Result<(), Fault> {
    let asked_for = ["/proc", "/sys", "/dev"]
        .iter()
        .any(|at| path.starts_with(at));
    if asked_for || !is_kernel_interface(fstatfs(target).fault("fstatfs")?.f_type) {
        return Ok(());
    }
    let why = "the image has a link into /sys where a tmpfs is to start with a copy";
    Err(Fault::refused(why).at(path.display()))
}

struct Wanted<'a> {
    fstype: &'a str,
    options: &'a [String],
    copy_up: bool,
    /// By the helper.
    made: Option<OwnedFd>,
}

/// Attributes of a filesystem into which something is still to be put.
pub fn writable(attrs: MountAttrs) -> MountAttrs {
    MountAttrs {
        read_only: false,
        ..attrs
    }
}

/// What mounts and devices of the plan may still be put into stays writable until the end.
fn attrs_at_first(fstype: &str, attrs: MountAttrs) -> (MountAttrs, bool) {
    if fstype == "tmpfs" && attrs.read_only {
        (writable(attrs), true)
    } else {
        (attrs, false)
    }
}

fn filesystem(
    tree: &mut Tree,
    mount: &MountPlan,
    wanted: Wanted<'_>,
    context: Context<'_>,
    warnings: &mut Warnings,
) -> Result<(), Fault> {
    let path = mount.destination.as_path();
    let (attrs, read_only_later) = attrs_at_first(wanted.fstype, mount.attrs);
    let options = usable_options(wanted.options, context);
    let fresh = match wanted.made {
        Some(made) => Ok(made),
        None => make(wanted.fstype, &options, attrs),
    };
    let made = match fresh {
        Ok(made) => made,
        Err(fault) if fault.is(Errno::PERM) => {
            host_view(wanted.fstype, attrs, warnings)?.ok_or_else(|| denied(fault, path))?
        }
        Err(fault) => return Err(fault.at(path.display())),
    };
    let mode = mode_below(tree, path, wanted.fstype, wanted.options)?;
    let target = tree.ensure_dir(path, links_for(wanted.fstype))?;
    refuse_proc(target.as_fd(), path)?;
    if let Some(mode) = mode {
        chmodat(&made, ".", mode, AtFlags::empty()).fault_at("fchmodat", path.display())?;
    }
    if wanted.copy_up {
        refuse_copy_of_kernel(target.as_fd(), path)?;
        copy_up::copy(target.as_fd(), made.as_fd()).map_err(|fault| {
            if fault.is(Errno::NOSPC) {
                fault.because("the image's content does not fit the tmpfs")
            } else {
                fault.at(path.display())
            }
        })?;
    }
    attach(&made, target, path)?;
    if let Some(propagation) = mount.propagation {
        let (propagation, deep) = propagation_flags(propagation);
        let attr = MountAttr {
            propagation,
            ..MountAttr::default()
        };
        mount_setattr(made.as_fd(), deep, attr).fault_at("mount_setattr", path.display())?;
    }
    if !wanted.copy_up {
        tree.add_fresh(path, wanted.fstype, made, read_only_later);
    } else if read_only_later {
        let attr = MountAttr {
            set: sys::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        mount_setattr(made.as_fd(), false, attr).fault_at("mount_setattr", path.display())?;
    }
    Ok(())
}

/// The mode of the directory that a tmpfs without one of its own takes over. Where there is none, it
/// is the kernel's, 1777.
fn mode_below(
    tree: &Tree,
    path: &Path,
    fstype: &str,
    options: &[String],
) -> Result<Option<Mode>, Fault> {
    if fstype != "tmpfs" || options.iter().any(|option| option.starts_with("mode=")) {
        return Ok(None);
    }
    let Some(below) = tree.find(path)? else {
        return Ok(None);
    };
    let mode = fstat(below).fault_at("fstat", path.display())?.st_mode;
    Ok(Some(Mode::from_raw_mode(mode & 0o7777)))
}

/// Programs and the helper itself trust what they find in `/proc` and `/sys`.
fn links_for(fstype: &str) -> Links {
    if matches!(fstype, "proc" | "sysfs") {
        Links::Refused
    } else {
        Links::Inside
    }
}

/// A new filesystem, not attached anywhere.
pub fn make(fstype: &str, options: &[&str], attrs: MountAttrs) -> Result<OwnedFd, Fault> {
    create(&configure(fstype, options)?, attrs)
}

/// A procfs of a PID namespace that this process is not in; `None`: the kernel does not know the
/// option `pidns` (Linux 6.18).
pub fn make_procfs_of(
    pid_namespace: BorrowedFd<'_>,
    options: &[&str],
    attrs: MountAttrs,
) -> Result<Option<OwnedFd>, Fault> {
    let context = configure("proc", options)?;
    match fsconfig_set_fd(context.as_fd(), "pidns", pid_namespace) {
        Err(Errno::INVAL) => Ok(None),
        set => {
            set.fault_at("fsconfig", "pidns")?;
            create(&context, attrs).map(Some)
        }
    }
}

fn configure(fstype: &str, options: &[&str]) -> Result<OwnedFd, Fault> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).fault_at("fsopen", fstype)?;
    // What `mount` shows in its first column, as mount(8) would have set it.
    // An option that names another one comes instead: the kernel takes one source.
    if !options.iter().any(|option| option.starts_with("source=")) {
        fsconfig_set_string(context.as_fd(), "source", fstype).fault("fsconfig")?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), *option),
        }
        .fault("fsconfig")
        .map_err(|fault| fault.because(format!("{fstype} refuses the option {option}")))?;
    }
    Ok(context)
}

fn create(context: &OwnedFd, attrs: MountAttrs) -> Result<OwnedFd, Fault> {
    fsconfig_create(context.as_fd()).fault("fsconfig")?;
    let flags = u32::try_from(attr_of(attrs).set).unwrap_or(0);
    let flags = MountAttrFlags::from_bits_retain(flags);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).fault("fsmount")
}

/// In a new user namespace an owner that has no id inside is EINVAL: such a `uid=`/`gid=` is left
/// out, and the mount's root is the owner.
fn usable_options<'o>(options: &'o [String], context: Context<'_>) -> Vec<&'o str> {
    let unmapped = |option: &str| {
        let Some((uids, gids)) = context.maps else {
            return false;
        };
        let (map, id) = match option.split_once('=') {
            Some(("uid", id)) => (uids, id),
            Some(("gid", id)) => (gids, id),
            _ => return false,
        };
        id.parse()
            .is_ok_and(|id| namespaces::host_id(map, id).is_none())
    };
    options
        .iter()
        .map(String::as_str)
        .filter(|option| !unmapped(option))
        .collect()
}

/// sysfs and mqueue belong to the network and the IPC namespace: in a user namespace that does
/// not own those (they are the host's, or another container's) no fresh one can be made, and the
/// host's is bound instead.
fn host_view(
    fstype: &str,
    attrs: MountAttrs,
    warnings: &mut Warnings,
) -> Result<Option<OwnedFd>, Fault> {
    let path = match fstype {
        "sysfs" => "/sys",
        "mqueue" => "/dev/mqueue",
        _ => return Ok(None),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags).fault_at("open_tree", path)?;
    let attr = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..attr_of(attrs)
    };
    mount_setattr(tree.as_fd(), true, attr).fault_at("mount_setattr", path)?;
    warnings.push(format!(
        "{path} is the host's: the container's user namespace does not own it"
    ));
    Ok(Some(tree))
}

fn denied(fault: Fault, path: &Path) -> Fault {
    fault
        .at(path.display())
        .because("not allowed in this user namespace; /proc must also be fully visible on the host")
}
