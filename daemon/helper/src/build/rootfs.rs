//! The root filesystem as a detached mount: made by the helper in the host's namespaces, attached
//! by the child in the container's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, open, statat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::identity;
use super::steps::Warnings;
use crate::fault::{Fault, OrFault};
use crate::protocol::{Propagation, RootfsPlan, RootfsSource};
use crate::sys::{self, MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};

/// A filesystem layer by a name that `fsconfig(2)` takes.
struct Layer {
    name: String,
    /// Keeps `/proc/self/fd/N` true until the filesystem is made.
    _open: Option<OwnedFd>,
}

struct Layers {
    lower: Vec<Layer>,
    upper: Layer,
    work: Layer,
    /// Who overlayfs must be to write there; `None`: the helper as it is.
    writer: Option<(u32, u32)>,
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
        self.clear_volatile_mark();
        match self
            .layers_through(userns)
            .and_then(|layers| writable(self.mount(&layers)?))
        {
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
        match self.plain_layers().and_then(|layers| self.mount(&layers)) {
            Ok(root) => Ok(root),
            Err(fault) => {
                self.explain(&fault)?;
                if !self.clear_volatile_mark() {
                    return Err(fault);
                }
                self.mount(&self.plain_layers()?)
            }
        }
    }

    fn plain_layers(&self) -> Result<Layers, Fault> {
        Ok(Layers {
            lower: self
                .lower
                .iter()
                .map(|path| plain_layer(path))
                .collect::<Result<_, _>>()?,
            upper: plain_layer(self.upper)?,
            work: plain_layer(self.work)?,
            writer: None,
        })
    }

    /// The layers through an id map: each a mount of its own, but for upper and work, which
    /// overlayfs wants in one mount; so that is a mount of what they have in common.
    fn layers_through(&self, userns: BorrowedFd<'_>) -> Result<Layers, Fault> {
        let lower = self.lower.iter().map(|path| {
            let mount = idmapped_mount(path, userns)?;
            Ok(Layer {
                name: fd_path(&mount),
                _open: Some(mount),
            })
        });
        let lower = lower.collect::<Result<_, Fault>>()?;
        let common = common_ancestor(self.upper, self.work);
        let mount = idmapped_mount(common, userns)?;
        let rest = |path: &'_ Path| path.strip_prefix(common).unwrap_or(path).to_owned();
        let (upper, work) = (rest(self.upper), rest(self.work));
        // Through the mount the owner is who may write there.
        let owner = statat(&mount, &work, AtFlags::SYMLINK_NOFOLLOW)
            .fault_at("fstatat", self.work.display())?;
        let below = |path: PathBuf| format!("{}/{}", fd_path(&mount), path.display());
        let (upper, work) = (below(upper), below(work));
        Ok(Layers {
            lower,
            upper: Layer {
                name: upper,
                _open: Some(mount),
            },
            work: Layer {
                name: work,
                _open: None,
            },
            writer: Some((owner.st_uid, owner.st_gid)),
        })
    }

    fn mount(&self, layers: &Layers) -> Result<OwnedFd, Fault> {
        let context =
            fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).fault_at("fsopen", "overlay")?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "overlay").fault("fsconfig")?;
        let Layers {
            lower,
            upper,
            work,
            writer,
        } = layers;
        set_lower(context, lower)?;
        set(context, "upperdir", &upper.name)?;
        set(context, "workdir", &work.name)?;
        if self.volatile {
            fsconfig_set_flag(context, "volatile").fault_at("fsconfig", "volatile")?;
        }
        match writer {
            None => fsconfig_create(context).fault_at("fsconfig", self.upper.display())?,
            Some(ids) => self.create_as(context, *ids)?,
        }
        fsmount(
            context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
        .fault("fsmount")
    }

    /// overlayfs works in its layers with the ids of the process that makes it (and its
    /// capabilities, which the change of ids would clear). Ids that an idmapped layer does not
    /// know cannot write there.
    fn create_as(&self, context: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> Result<(), Fault> {
        sys::set_fs_ids(uid, gid);
        let created = identity::raise_effective()
            .and_then(|_| fsconfig_create(context).fault_at("fsconfig", self.upper.display()));
        sys::set_fs_ids(0, 0);
        created
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

    /// A volatile overlay leaves `work/incompat/volatile/dirty` behind, and overlayfs then refuses
    /// the next mount because it does not know whether the host crashed in between
    /// (overlayfs.rst). The daemon knows: it discards such layers after a crash.
    fn clear_volatile_mark(&self) -> bool {
        let mark = self.work.join("work/incompat/volatile");
        // The file may be missing; what counts is that the directory goes.
        let _ = unlinkat(CWD, mark.join("dirty"), AtFlags::empty());
        let cleared = unlinkat(CWD, &mark, AtFlags::REMOVEDIR).is_ok();
        if cleared {
            // An empty `incompat` does no harm.
            let _ = unlinkat(CWD, self.work.join("work/incompat"), AtFlags::REMOVEDIR);
        }
        cleared
    }
}

/// overlayfs that cannot write to its upper layer mounts read-only and says so to nobody.
fn writable(root: OwnedFd) -> Result<OwnedFd, Fault> {
    if fstatvfs(&root)
        .fault("fstatvfs")?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Err(Fault::of("fsconfig", Errno::ROFS));
    }
    Ok(root)
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

fn idmapped_mount(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags).fault_at("open_tree", path.display())?;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: userns.as_raw_fd().unsigned_abs().into(),
        ..MountAttr::default()
    };
    mount_setattr(mount.as_fd(), false, attr).fault_at("mount_setattr", path.display())?;
    Ok(mount)
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn common_ancestor<'p>(a: &'p Path, b: &Path) -> &'p Path {
    a.ancestors()
        .find(|ancestor| b.starts_with(ancestor))
        .unwrap_or(Path::new("/"))
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
