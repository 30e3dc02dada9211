//! Paths that read empty, and paths that are read-only.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use super::devices::{host_node, is_device};
use super::mounts;
use super::paths::{Links, open_in};
use super::tree::{Tree, attach, clone_mount};
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::sys::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};
use littlebox_protocol::{Defence, MountAttrs};

/// Makes paths read-only and masks others. What the container does not have is skipped.
pub fn apply(tree: &Tree, masked: &[PathBuf], readonly: &[PathBuf]) -> Result<(), Fault> {
    readonly.iter().try_for_each(|path| read_only(tree, path))?;
    let mut masks = Masks::default();
    masked.iter().try_for_each(|path| masks.mask(tree, path))
}

fn read_only(tree: &Tree, path: &Path) -> Result<(), Fault> {
    let Some(target) = tree.find(path)? else {
        return Ok(());
    };
    let name = |fault: Fault| fault.at(path.display());
    let copy = clone_mount(&target, true).map_err(name)?;
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    mount_setattr(copy.as_fd(), true, attr)
        .fault("mount_setattr")
        .map_err(name)?;
    attach(copy, target, path)
}

/// What is laid over masked paths; made when first needed.
#[derive(Default)]
struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks {
    fn mask(&mut self, tree: &Tree, path: &Path) -> Result<(), Fault> {
        let Some(target) = tree.find(path)? else {
            return Ok(());
        };
        let mode = fstat(&target).fault_at("fstat", path.display())?.st_mode;
        if FileType::from_raw_mode(mode) == FileType::Directory {
            return self.mask_directory(target, path);
        }
        let null = match &self.null {
            Some(null) => null,
            None => self.null.insert(null_device(tree)?),
        };
        attach(clone_mount(null, false)?, target, path)
    }

    /// The first directory gets the mount itself and the others copies of it: before Linux 6.15 a
    /// mount can be copied only once it is attached (open_tree(2): EINVAL).
    fn mask_directory(&mut self, target: OwnedFd, path: &Path) -> Result<(), Fault> {
        if let Some(attached) = &self.empty {
            return attach(clone_mount(attached, false)?, target, path);
        }
        let made = empty_directory()?;
        attach(&made, target, path)?;
        self.empty = Some(made);
        Ok(())
    }
}

fn empty_directory() -> Result<OwnedFd, Fault> {
    let attrs = MountAttrs {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountAttrs::default()
    };
    mounts::make("tmpfs", &["size=4k", "nr_inodes=1", "mode=555"], attrs)
}

/// `/dev/null` of the container's fresh `/dev`, else of the host; in both no link of the image is
/// in the way, and what was opened is checked before it covers anything (CVE-2025-31133).
fn null_device(tree: &Tree) -> Result<OwnedFd, Fault> {
    if !stands(Defence::MaskDevice) {
        let null = Path::new("dev/null");
        return open_in(tree.root(), null, OFlags::PATH, Links::Inside).fault("openat2");
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = tree
        .fresh("/dev", "tmpfs")
        .and_then(|dev| openat(dev, "null", flags, Mode::empty()).ok());
    match own {
        Some(null) if is_device(null.as_fd(), FileType::CharacterDevice, 1, 3)? => Ok(null),
        Some(_) => Err(Fault::refused("/dev/null is not the null device")),
        None => host_node(Path::new("/dev/null"), FileType::CharacterDevice, (1, 3)),
    }
}
