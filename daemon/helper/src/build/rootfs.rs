//! The root filesystem as a detached mount: made by the helper in the host's namespaces, attached
//! by the child in the container's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, open, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::steps::Warnings;
use crate::fault::{Fault, OrFault};
use crate::protocol::{Propagation, RootfsPlan, RootfsSource};
use crate::sys::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};

/// A filesystem layer by a name that `fsconfig(2)` takes.
struct Layer {
    name: String,
    /// Keeps `/proc/self/fd/N` true until the filesystem is made.
    _open: Option<OwnedFd>,
}

/// Makes the root. With `userns` the layers of an overlay are seen through that user namespace's
/// id map, so that files of the host's root belong to the container's.
pub fn make(
    plan: &RootfsPlan,
    userns: Option<BorrowedFd<'_>>,
    warnings: &mut Warnings,
) -> Result<OwnedFd, Fault> {
    match &plan.source {
        RootfsSource::Overlay {
            lower,
            upper,
            work,
            volatile,
        } => {
            let overlay = Overlay {
                lower,
                upper,
                work,
                volatile: *volatile,
            };
            overlay.make_idmapped(userns, warnings)
        }
        RootfsSource::Bind { path } => bind(path, plan.propagation),
    }
}

struct Overlay<'a> {
    lower: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
    volatile: bool,
}

impl Overlay<'_> {
    fn make_idmapped(
        &self,
        userns: Option<BorrowedFd<'_>>,
        warnings: &mut Warnings,
    ) -> Result<OwnedFd, Fault> {
        let Some(userns) = userns else {
            return self.make();
        };
        let idmapped = |path: &Path| idmapped_layer(path, userns);
        match self.mount(&idmapped) {
            Ok(root) => Ok(root),
            Err(fault) => {
                // Detached layers are refused before kernel 6.15, idmapped ones before 5.19 and
                // on filesystems that cannot do it.
                let root = self.make()?;
                warnings.push(format!(
                    "the root filesystem is not idmapped ({} failed with errno {}): \
                     its files keep the host's owners",
                    fault.syscall, fault.errno
                ));
                Ok(root)
            }
        }
    }

    fn make(&self) -> Result<OwnedFd, Fault> {
        match self.mount(&plain_layer) {
            Ok(root) => Ok(root),
            Err(fault) => {
                self.explain(&fault)?;
                if self.clear_volatile_mark() {
                    self.mount(&plain_layer)
                } else {
                    Err(fault)
                }
            }
        }
    }

    fn mount(&self, layer: &dyn Fn(&Path) -> Result<Layer, Fault>) -> Result<OwnedFd, Fault> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .fault("fsopen")
            .map_err(|fault| fault.at("overlay"))?;
        let context = context.as_fd();
        let lower = self
            .lower
            .iter()
            .map(|path| layer(path))
            .collect::<Result<Vec<_>, _>>()?;
        let upper = layer(self.upper)?;
        let work = layer(self.work)?;
        set_lower(context, &lower)?;
        set(context, "upperdir", &upper.name)?;
        set(context, "workdir", &work.name)?;
        if self.volatile {
            fsconfig_set_flag(context, "volatile").fault_at("fsconfig", "volatile")?;
        }
        fsconfig_create(context).fault_at("fsconfig", self.upper.display())?;
        fsmount(
            context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
        .fault("fsmount")
    }

    /// overlayfs says EINVAL or ENOENT for many things; looks which directory is at fault.
    fn explain(&self, fault: &Fault) -> Result<(), Fault> {
        let lower = self.lower.iter().map(PathBuf::as_path);
        for path in lower.chain([self.upper, self.work]) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).fault_at("open", path.display())?;
        }
        if fault.is(Errno::NODEV) {
            return Err(fault.clone().because("this kernel has no overlayfs"));
        }
        Ok(())
    }

    /// A volatile overlay leaves `work/incompat/volatile` behind, and overlayfs then refuses the
    /// next mount because it does not know whether the host crashed in between (overlayfs.rst).
    /// The daemon knows: it discards such layers after a crash.
    fn clear_volatile_mark(&self) -> bool {
        let mark = self.work.join("work/incompat/volatile");
        let cleared = unlinkat(CWD, &mark, AtFlags::REMOVEDIR).is_ok();
        if cleared {
            // Best effort: an empty `incompat` does no harm.
            let _ = unlinkat(CWD, self.work.join("work/incompat"), AtFlags::REMOVEDIR);
        }
        cleared
    }
}

/// `lowerdir` takes several layers separated by colons on every kernel (`lowerdir+` only since
/// 6.8); where one string would pass fsconfig's limit, the newer key is the only way.
fn set_lower(context: BorrowedFd<'_>, lower: &[Layer]) -> Result<(), Fault> {
    let joined = lower
        .iter()
        .map(|layer| layer.name.as_str())
        .collect::<Vec<_>>()
        .join(":");
    if joined.len() < FSCONFIG_LIMIT {
        return set(context, "lowerdir", &joined);
    }
    lower
        .iter()
        .try_for_each(|layer| set(context, "lowerdir+", &layer.name))
}

/// `fsconfig(2)` takes strings of less than 256 bytes.
const FSCONFIG_LIMIT: usize = 256;

fn set(context: BorrowedFd<'_>, key: &str, value: &str) -> Result<(), Fault> {
    fsconfig_set_string(context, key, value).fault_at("fsconfig", value)
}

/// A layer by its own path where overlayfs takes that literally, else by a descriptor's.
fn plain_layer(path: &Path) -> Result<Layer, Fault> {
    const LITERAL_LIMIT: usize = 120;
    if let Some(name) = path.to_str().filter(|name| {
        // Colon and backslash have a meaning in lowerdir; kernels before 6.5 glue all options
        // into one comma separated string.
        name.len() < LITERAL_LIMIT && !name.contains([':', '\\', ','])
    }) {
        return Ok(Layer {
            name: name.to_owned(),
            _open: None,
        });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).fault_at("open", path.display())?;
    Ok(Layer {
        name: format!("/proc/self/fd/{}", fd.as_raw_fd()),
        _open: Some(fd),
    })
}

fn idmapped_layer(path: &Path, userns: BorrowedFd<'_>) -> Result<Layer, Fault> {
    let fd = open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .fault_at("open_tree", path.display())?;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: userns.as_raw_fd().unsigned_abs().into(),
        ..MountAttr::default()
    };
    mount_setattr(fd.as_fd(), false, attr).fault_at("mount_setattr", path.display())?;
    Ok(Layer {
        name: format!("/proc/self/fd/{}", fd.as_raw_fd()),
        _open: Some(fd),
    })
}

fn bind(path: &Path, propagation: Propagation) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).fault_at("open", path.display())?;
    let tree = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let root = open_tree(directory, "", tree).fault_at("open_tree", path.display())?;
    // A clone is a peer of what it was cloned from: cut that before anything is mounted in it.
    let attr = MountAttr {
        propagation: inherited_propagation(propagation),
        ..MountAttr::default()
    };
    mount_setattr(root.as_fd(), true, attr).fault_at("mount_setattr", path.display())?;
    Ok(root)
}

/// What a tree that came from the host is set to while the container is built: nothing that the
/// helper mounts may go out, and the host's mounts come in only where the plan wants them.
pub fn inherited_propagation(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Rprivate | Propagation::Private => libc::MS_PRIVATE,
        Propagation::Rslave | Propagation::Slave | Propagation::Rshared | Propagation::Shared => {
            libc::MS_SLAVE
        }
    }
}
