//! The root filesystem as a detached mount: made by the helper in the host's namespaces, attached
//! by the child in the container's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::idmap::Ids;
use super::overlay::Overlay;
use super::source;
use super::steps::Warnings;
use crate::fault::{Fault, OrFault};
use crate::sys::{MountAttr, mount_setattr};
use littlebox_protocol::{IdmapState, MountReport, Propagation, RootfsPlan, RootfsSource};

/// A root.
#[derive(Debug)]
pub struct Root {
    /// The detached mount.
    pub mount: OwnedFd,
    /// How it is seen from the container's user namespace.
    pub state: IdmapState,
}

impl Root {
    /// What is told of it, of a container in a user namespace.
    pub fn report(&self, user_namespace: bool) -> Option<MountReport> {
        user_namespace.then(|| MountReport {
            destination: PathBuf::from("/"),
            state: self.state,
        })
    }
}

/// Makes the root. With `ids` the layers of an overlay are seen through that user namespace's
/// id map, so that files of the host's root belong to the container's.
pub fn make(
    plan: &RootfsPlan,
    ids: Option<Ids<'_>>,
    warnings: &mut Warnings,
) -> Result<Root, Fault> {
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
                label: plan.label.as_deref(),
            };
            match ids.filter(|ids| !ids.is_identity()) {
                Some(ids) => overlay.make_through(ids, plan.idmap, warnings),
                None => Ok(Root {
                    mount: overlay.make()?,
                    state: IdmapState::Mapped,
                }),
            }
        }
        RootfsSource::Bind { path } => Ok(Root {
            mount: bind(path, plan.propagation)?,
            state: IdmapState::Off,
        }),
    }
}
fn bind(path: &Path, propagation: Propagation) -> Result<OwnedFd, Fault> {
    let root = source::clone_path(path, true)?;
    let kind = FileType::from_raw_mode(fstat(&root).fault("fstat")?.st_mode);
    if kind != FileType::Directory {
        return Err(Fault::of("open_tree", Errno::NOTDIR).at(path.display()));
    }
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
        Propagation::Rprivate
        | Propagation::Private
        | Propagation::Runbindable
        | Propagation::Unbindable => libc::MS_PRIVATE,
        Propagation::Rslave | Propagation::Slave | Propagation::Rshared | Propagation::Shared => {
            libc::MS_SLAVE
        }
    }
}
