//! Device nodes and the customary links in `/dev`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat,
    symlinkat,
};
use rustix::io::Errno;

use super::namespaces;
use super::paths::{self, Dir, Links};
use super::tree::{Tree, attach, clone_mount};
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::sys::{
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, mount_setattr,
};
use littlebox_protocol::{Defence, DevicePlan, IdMapping};

/// What programs expect beside the nodes.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Users and groups of a user namespace.
type Maps<'m> = (&'m [IdMapping], &'m [IdMapping]);

/// Fills a `/dev` that the helper has made, by descriptor alone. `maps`: of the container's user
/// namespace, whose root this process makes files as.
pub fn fill(
    dev: BorrowedFd<'_>,
    devices: &[DevicePlan],
    maps: Option<Maps<'_>>,
) -> Result<(), Fault> {
    for device in devices {
        let Ok(rest) = device.path.strip_prefix("/dev") else {
            continue;
        };
        let parent = rest.parent().unwrap_or(Path::new(""));
        let parent = paths::ensure_dir(dev, parent, Links::Inside)?;
        make_node(parent.as_fd(), device, maps)?;
    }
    links(dev)
}

/// Whether the node is below `/dev`.
pub fn is_below_dev(device: &DevicePlan) -> bool {
    device.path.starts_with("/dev")
}

/// Fills a fresh `/dev`. Where the plan has none (the host's is bound), nothing there is touched.
pub fn make(tree: &Tree, devices: &[DevicePlan]) -> Result<(), Fault> {
    let Some(dev) = tree.fresh("/dev", "tmpfs") else {
        return Ok(());
    };
    // Nodes on a filesystem of a user namespace are refused, and would not open: once is enough
    // to know.
    let mut refused = false;
    for device in devices.iter().filter(|device| is_below_dev(device)) {
        refused = node(tree, device, refused)?;
    }
    links(dev)
}

/// Makes the nodes elsewhere, in what the image or a mount has there. What is there from an earlier
/// run of the same bundle is used as it is.
pub fn make_elsewhere(tree: &Tree, devices: &[DevicePlan]) -> Result<(), Fault> {
    for device in devices.iter().filter(|device| !is_below_dev(device)) {
        match node(tree, device, false) {
            Err(fault) if fault.is(Errno::EXIST) => {
                let found = tree.open(&device.path, OFlags::PATH | OFlags::NOFOLLOW);
                let found = found.fault_at("openat2", device.path.display())?;
                if !is_node(found.as_fd(), device)? {
                    return Err(fault.because("something else than the device is there already"));
                }
            }
            made => made.map(drop)?,
        }
    }
    Ok(())
}

fn links(dev: BorrowedFd<'_>) -> Result<(), Fault> {
    for (name, target) in LINKS {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::of("symlinkat", errno).at(format!("/dev/{name}"))),
        }
    }
    Ok(())
}

/// Makes one node; returns whether mknod is refused here.
fn node(tree: &Tree, device: &DevicePlan, refused: bool) -> Result<bool, Fault> {
    let path = device.path.as_path();
    if !refused {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = if stands(Defence::DevByDescriptor) || !is_below_dev(device) {
            tree.ensure_dir(parent, Links::Inside)?
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dev = openat(tree.root(), "dev", flags, Mode::empty()).fault_at("openat", "dev")?;
            Dir::Owned(dev)
        };
        match make_node(parent.as_fd(), device, None) {
            Err(fault) if fault.is(Errno::PERM) => {}
            result => return result.map(|()| false),
        }
    }
    let (kind, numbers) = (file_type(device)?, (device.major, device.minor));
    let host = host_node(path, kind, numbers).or_else(|fault| {
        // Elsewhere the host has it by the same name at most.
        let in_dev = Path::new("/dev").join(paths::file_name(path)?);
        host_node(&in_dev, kind, numbers).map_err(|_| fault)
    })?;
    attach(host, tree.ensure_file(path)?, path)?;
    Ok(true)
}

fn make_node(
    parent: BorrowedFd<'_>,
    device: &DevicePlan,
    maps: Option<Maps<'_>>,
) -> Result<(), Fault> {
    let path = device.path.as_path();
    let name = paths::file_name(path)?;
    let kind = file_type(device)?;
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    mknodat(
        parent,
        name,
        kind,
        mode,
        makedev(device.major, device.minor),
    )
    .fault_at("mknodat", path.display())?;
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    // An id that the container does not have leaves the node its root's.
    let on_host = |map: &[IdMapping], id| namespaces::host_id(map, id);
    let (uid, gid) = match maps {
        None => (Some(device.uid), Some(device.gid)),
        Some((uids, gids)) => (on_host(uids, device.uid), on_host(gids, device.gid)),
    };
    // By a descriptor that was looked at: elsewhere than in a fresh /dev somebody may have put a
    // file of the host in its place.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(parent, name, flags, Mode::empty()).fault_at("openat", path.display())?;
    if !is_node(node.as_fd(), device)? || fstat(&node).fault("fstat")?.st_nlink != 1 {
        return Err(Fault::refused("the node was exchanged for something else").at(path.display()));
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    chownat(node, "", uid, gid, AtFlags::EMPTY_PATH).fault_at("fchownat", path.display())
}

fn is_node(fd: BorrowedFd<'_>, device: &DevicePlan) -> Result<bool, Fault> {
    let kind = file_type(device)?;
    if kind == FileType::Fifo {
        let mode = fstat(fd).fault("fstat")?.st_mode;
        return Ok(FileType::from_raw_mode(mode) == kind);
    }
    is_device(fd, kind, device.major, device.minor)
}

/// The host's node, if it is the device that is meant, as a detached mount. The mount is
/// read-only: the device is written to as ever, but mode, owner and times of the node are the
/// host's, and root in a container must not change them.
pub fn host_node(
    path: &Path,
    kind: FileType,
    (major, minor): (u32, u32),
) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).fault_at("openat", path.display())?;
    if !is_device(fd.as_fd(), kind, major, minor)? {
        return Err(Fault::refused("the host's node is another device").at(path.display()));
    }
    let node = clone_mount(fd, false).map_err(|fault| fault.at(path.display()))?;
    if stands(Defence::ReadOnlyDevices) {
        let attr = MountAttr {
            set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
            propagation: libc::MS_PRIVATE,
            ..MountAttr::default()
        };
        mount_setattr(node.as_fd(), false, attr).fault_at("mount_setattr", path.display())?;
    }
    Ok(node)
}

/// Whether a descriptor is this device.
pub fn is_device(
    fd: BorrowedFd<'_>,
    kind: FileType,
    major: u32,
    minor: u32,
) -> Result<bool, Fault> {
    let meta = fstat(fd).fault("fstat")?;
    Ok(FileType::from_raw_mode(meta.st_mode) == kind && meta.st_rdev == makedev(major, minor))
}

fn file_type(device: &DevicePlan) -> Result<FileType, Fault> {
    match device.kind {
        'c' => Ok(FileType::CharacterDevice),
        'b' => Ok(FileType::BlockDevice),
        'p' => Ok(FileType::Fifo),
        other => Err(Fault::refused(format!("no such kind of device: {other}"))),
    }
}
