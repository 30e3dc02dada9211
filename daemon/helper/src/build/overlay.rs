//! A root made by overlayfs, as it is or through an id map.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, StatVfsMountFlags, Uid, chownat, fstatvfs, mkdirat, open,
    openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    open_tree,
};

use super::idmap::{self, Ids};
use super::rootfs::Root;
use super::steps::Warnings;
use super::tree::attach;
use super::{deputy, identity, mounts};
use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::{IdmapState, LayerIdmap, MountAttrs};

/// A filesystem layer by a name that `fsconfig(2)` takes.
struct Layer {
    name: String,
    /// Keeps `/proc/self/fd/N` true until the filesystem is made.
    open: Option<OwnedFd>,
}

struct Layers {
    lower: Vec<Layer>,
    upper: Layer,
    work: Layer,
    /// Who overlayfs must be to write there; `None`: the helper as it is.
    writer: Option<(u32, u32)>,
}

/// What the plan says of an overlay.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Uppermost first.
    pub lower: &'a [PathBuf],
    /// Where writes go.
    pub upper: &'a Path,
    /// overlayfs' scratch directory.
    pub work: &'a Path,
    /// Without syncs.
    pub volatile: bool,
    /// The label of its files.
    pub label: Option<&'a str>,
}

impl Overlay<'_> {
    /// Makes it with its layers seen through a user namespace's id map: files that belong to 0 on
    /// the disk belong to the container's root. In turn are tried detached layers (kernel 6.15),
    /// attached ones (5.19), and what works everywhere: layers as they are, with an upper one that
    /// belongs to the container's root.
    pub fn make_through(
        &self,
        ids: Ids<'_>,
        way: LayerIdmap,
        warnings: &mut Warnings,
    ) -> Result<Root, Fault> {
        self.clear_volatile_mark();
        let shifted = self.is_shifted(ids)?;
        let refusal = match way {
            _ if shifted => None,
            LayerIdmap::Refused => Some(Fault::of("mount_setattr", Errno::INVAL)),
            LayerIdmap::Auto | LayerIdmap::Attached => match self.make_idmapped(ids, way) {
                Ok(mount) => {
                    return Ok(Root {
                        mount,
                        state: IdmapState::Mapped,
                    });
                }
                Err(fault) => Some(fault),
            },
        };
        let mount = self.make_shifted(ids)?;
        let why = refusal.map_or_else(
            || "it was not when the container first started".to_owned(),
            |fault| format!("{} failed with errno {}", fault.syscall, fault.errno),
        );
        warnings.push(format!(
            "the root filesystem is not idmapped ({why}): files of the image belong to nobody"
        ));
        Ok(Root {
            mount,
            state: IdmapState::Refused,
        })
    }

    fn make_idmapped(&self, ids: Ids<'_>, way: LayerIdmap) -> Result<OwnedFd, Fault> {
        let layers = self.layers_through(ids.userns)?;
        if way == LayerIdmap::Auto {
            match self.mount(&layers).and_then(writable) {
                Ok(root) => return Ok(root),
                // Before 6.15 overlayfs says EINVAL of layers that are not attached.
                Err(fault) if !fault.is(Errno::INVAL) => return Err(fault),
                Err(_) => {}
            }
        }
        let new_mounts = u64::from(libc::CLONE_NEWNS.unsigned_abs());
        deputy::fetch(new_mounts, || {
            self.attach_layers(&layers)?;
            self.mount(&layers).and_then(writable)
        })
    }

    /// Attaches the layers on a tmpfs in this process' own mount namespace. The overlay keeps
    /// clones of them that outlive it (`clone_private_mount` in the kernel).
    fn attach_layers(&self, layers: &Layers) -> Result<(), Fault> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).fault_at("mount", "/")?;
        let place = self.upper.parent().unwrap_or(Path::new("/"));
        let tmpfs = mounts::make("tmpfs", &["mode=700"], MountAttrs::default())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let on = open(place, flags, Mode::empty()).fault_at("open", place.display())?;
        attach(&tmpfs, on, place)?;
        let all = layers.lower.iter().chain([&layers.upper]);
        for (i, mount) in all.filter_map(|layer| layer.open.as_ref()).enumerate() {
            let name = i.to_string();
            mkdirat(&tmpfs, &name, Mode::from_raw_mode(0o700)).fault_at("mkdirat", &name)?;
            let to = openat(&tmpfs, &name, flags, Mode::empty()).fault_at("openat", &name)?;
            attach(mount, to, Path::new(&name))?;
        }
        Ok(())
    }

    /// Whether the upper layer was given to the container's root by an earlier start: then it
    /// stays so, because its files bear the ids of the host.
    fn is_shifted(&self, ids: Ids<'_>) -> Result<bool, Fault> {
        let owner = statat(CWD, self.upper, AtFlags::SYMLINK_NOFOLLOW)
            .fault_at("fstatat", self.upper.display())?
            .st_uid;
        Ok(ids.root().is_some_and(|(uid, _)| uid == owner))
    }

    fn make_shifted(&self, ids: Ids<'_>) -> Result<OwnedFd, Fault> {
        if let Some((uid, gid)) = ids.root() {
            for path in [self.upper, self.work] {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                chownat(CWD, path, Some(uid), Some(gid), flags)
                    .fault_at("fchownat", path.display())?;
            }
        }
        self.make()
    }

    /// Makes it with its layers as they are.
    pub fn make(&self) -> Result<OwnedFd, Fault> {
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
                open: Some(mount),
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
                open: Some(mount),
            },
            work: Layer {
                name: work,
                open: None,
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
        for (key, value) in FEATURES {
            set(context, key, value)?;
        }
        if self.volatile {
            fsconfig_set_flag(context, "volatile").fault_at("fsconfig", "volatile")?;
        }
        if let Some(label) = self.label {
            set(context, "context", label)
                .map_err(|fault| fault.because("the root cannot have this SELinux label here"))?;
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

/// What the kernel's configuration decides otherwise (overlayfs.rst): a container's upper directory
/// never says where files of lower layers are, and inode numbers are the same whatever layers there are.
const FEATURES: [(&str, &str); 3] = [
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("xino", "on"),
];

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
            open: None,
        });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).fault_at("open", path.display())?;
    Ok(Layer {
        name: format!("/proc/self/fd/{}", fd.as_raw_fd()),
        open: Some(fd),
    })
}

fn idmapped_mount(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags).fault_at("open_tree", path.display())?;
    idmap::apply(&mount, false, userns).fault_at("mount_setattr", path.display())?;
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
