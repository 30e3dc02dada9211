//! Id maps of mounts (mount_setattr(2), "ID-mapped mounts").

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::process::geteuid;

use super::deputy;
use super::namespaces;
use super::steps::Warnings;
use crate::fault::{Fault, OrFault};
use crate::sys::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};
use littlebox_protocol::{IdMapping, IdmapState, MountIdmap, MountPlan, MountReport, MountSource};

/// The user namespace of a container, and what it is known to map.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// The namespace, with its maps written.
    pub userns: BorrowedFd<'a>,
    /// Users; empty where they are not known.
    pub uid_map: &'a [IdMapping],
    /// Groups.
    pub gid_map: &'a [IdMapping],
}

impl Ids<'_> {
    /// Whether the container sees the ids of the host as they are.
    pub fn is_identity(&self) -> bool {
        let same = |map: &[IdMapping]| {
            !map.is_empty() && map.iter().all(|line| line.container_id == line.host_id)
        };
        same(self.uid_map) && same(self.gid_map)
    }

    /// The host's ids of the container's root.
    pub fn root(&self) -> Option<(u32, u32)> {
        root_of(self.uid_map, self.gid_map)
    }
}

/// The host's ids of root in these maps; where they do not map 0, of the first id.
pub fn root_of(uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Option<(u32, u32)> {
    let first = |map: &[IdMapping]| {
        let line = map.iter().min_by_key(|line| line.container_id)?;
        Some(namespaces::host_id(map, 0).unwrap_or(line.host_id))
    };
    Some((first(uid_map)?, first(gid_map)?))
}

/// Who a user namespace with these maps is to belong to: its own root, where that is not the
/// helper's user.
pub fn owner_of(uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Option<(u32, u32)> {
    root_of(uid_map, gid_map).filter(|(uid, _)| *uid != geteuid().as_raw())
}

/// Gives a detached mount the id map of a user namespace.
pub fn apply(mount: impl AsFd, recursive: bool, userns: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: userns.as_raw_fd().unsigned_abs().into(),
        ..MountAttr::default()
    };
    mount_setattr(mount.as_fd(), recursive, attr)
}

/// Idmaps the source of one bind, a detached tree, as the plan wants it. `ids` is the container's
/// user namespace, where it has one.
pub fn source(
    mount: &MountPlan,
    tree: &OwnedFd,
    ids: Option<Ids<'_>>,
    warnings: &mut Warnings,
) -> Result<Option<MountReport>, Fault> {
    let MountSource::Bind { path, .. } = &mount.source else {
        return Ok(None);
    };
    let state = match &mount.idmap {
        None if ids.is_none() => return Ok(None),
        None => IdmapState::Off,
        Some(wanted) if wanted.uid_map.is_empty() => match ids {
            Some(ids) if ids.is_identity() => IdmapState::Mapped,
            Some(ids) => wanted_state(wanted, path, tree, ids.userns, warnings)?,
            None => return Err(Fault::refused("an idmapped mount needs a user namespace")),
        },
        Some(wanted) => {
            let userns = deputy::user_namespace(&wanted.uid_map, &wanted.gid_map)?;
            wanted_state(wanted, path, tree, userns.as_fd(), warnings)?
        }
    };
    Ok(Some(MountReport {
        destination: mount.destination.clone(),
        state,
    }))
}

fn wanted_state(
    wanted: &MountIdmap,
    path: &Path,
    tree: &OwnedFd,
    userns: BorrowedFd<'_>,
    warnings: &mut Warnings,
) -> Result<IdmapState, Fault> {
    let errno = match apply(tree, wanted.recursive, userns) {
        Ok(()) => return Ok(IdmapState::Mapped),
        Err(errno) => errno,
    };
    if wanted.required {
        return Err(Fault::of("mount_setattr", errno)
            .at(path.display())
            .because(format!("it cannot be idmapped: {}", reason(errno))));
    }
    if has_no_files_to_own(tree)? {
        return Ok(IdmapState::NotApplicable);
    }
    if wanted.recursive && apply(tree, false, userns).is_ok() {
        warnings.push(format!(
            "mounts below {} are not idmapped ({}): their files keep the host's owners",
            path.display(),
            reason(errno)
        ));
        return Ok(IdmapState::Partly);
    }
    warnings.push(format!(
        "the mount of {} is not idmapped ({}): its files keep the host's owners",
        path.display(),
        reason(errno)
    ));
    Ok(IdmapState::Refused)
}

/// `can_idmap_mount` of the kernel's fs/namespace.c.
fn reason(errno: Errno) -> String {
    match errno {
        Errno::INVAL => "its file system cannot do that".to_owned(),
        Errno::PERM => "it is idmapped already, or belongs to another user namespace".to_owned(),
        other => format!("errno {}", other.raw_os_error()),
    }
}

/// Kernel interfaces in the shape of file systems: what counts in them is not who owns a file.
fn has_no_files_to_own(tree: &OwnedFd) -> Result<bool, Fault> {
    // statfs(2), "The f_type field"; devtmpfs is a tmpfs or ramfs by its number, and told by its
    // device nodes.
    const INTERFACES: [u32; 10] = [
        0x9fa0,      // PROC_SUPER_MAGIC
        0x6265_6572, // SYSFS_MAGIC
        0x0027_e0eb, // CGROUP_SUPER_MAGIC
        0x6367_7270, // CGROUP2_SUPER_MAGIC
        0x1cd1,      // DEVPTS_SUPER_MAGIC
        0x1980_0202, // MQUEUE_MAGIC
        0xcafe_4a11, // BPF_FS_MAGIC
        0x6462_6720, // DEBUGFS_MAGIC
        0x7472_6163, // TRACEFS_MAGIC
        0x6e73_6673, // NSFS_MAGIC
    ];
    let meta = rustix::fs::fstat(tree).fault("fstat")?;
    let kind = rustix::fs::FileType::from_raw_mode(meta.st_mode);
    if kind.is_char_device() || kind.is_block_device() {
        return Ok(true);
    }
    let magic = fstatfs(tree).fault("fstatfs")?.f_type;
    Ok(INTERFACES.iter().any(|known| i64::from(*known) == magic))
}
