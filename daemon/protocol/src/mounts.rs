//! What a container sees as files: its root, the mounts below, devices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::IdMapping;

/// How the container's root is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// What it is made from.
    pub source: RootfsSource,
    /// The root mount itself is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Propagation of the whole tree inside the container.
    #[serde(default)]
    pub propagation: Propagation,
    /// Of an overlay: the SELinux label of all its files, the mount option `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Test only: takes a way that this kernel or file system would not need.
    #[serde(default)]
    pub idmap: LayerIdmap,
}

/// How the layers of an overlay are seen through the id map of the container's user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerIdmap {
    /// The best way that works.
    #[default]
    Auto,
    /// Idmapped mounts that are attached in a mount namespace for the purpose (kernel 5.19).
    Attached,
    /// Not at all: the container's root owns the upper layer, and nobody what is below.
    Refused,
}

/// What the root is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RootfsSource {
    /// overlayfs: directories below, one writable above. Paths are host paths.
    Overlay {
        /// Uppermost first, never empty.
        lower: Vec<PathBuf>,
        /// Where writes go.
        upper: PathBuf,
        /// overlayfs' scratch directory on the same filesystem as `upper`.
        work: PathBuf,
        /// Skip syncs of the upper filesystem: for containers that are removed when they end.
        #[serde(default)]
        volatile: bool,
    },
    /// A directory bound as it is.
    Bind {
        /// Host path of a directory.
        path: PathBuf,
    },
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Nothing in, nothing out (recursive).
    #[default]
    Rprivate,
    /// This mount only.
    Private,
    /// Host's later mounts come in, none go out (recursive).
    Rslave,
    /// This mount only.
    Slave,
    /// Both ways (recursive).
    Rshared,
    /// This mount only.
    Shared,
    /// As `rprivate`, and no bind mount can be made of it (recursive).
    Runbindable,
    /// This mount only.
    Unbindable,
}

/// One mount below the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute container path, resolved inside the root (`openat2`, `RESOLVE_IN_ROOT`).
    pub destination: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Per-mount attributes.
    #[serde(default)]
    pub attrs: MountAttrs,
    /// For a bind: attributes that its source may have, and this mount has not.
    #[serde(default, skip_serializing_if = "MountAttrs::is_empty")]
    pub cleared: MountAttrs,
    /// For a recursive bind: what holds for the mount and every one below it, beside `attrs` of its
    /// top. Applied after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeAttrs>,
    /// Propagation of this mount.
    #[serde(default)]
    pub propagation: Option<Propagation>,
    /// For a bind: seen through an id map (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
    #[serde(default)]
    pub idmap: Option<MountIdmap>,
}

/// The id map of one mount (OCI config.md, "mounts": `uidMappings`, `idmap`, `ridmap`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountIdmap {
    /// With everything mounted below it.
    pub recursive: bool,
    /// The start fails where a file system refuses; else the mount stays as it is and is reported.
    pub required: bool,
    /// `container_id` on the file system is `host_id` in the mount; both maps empty: the
    /// container's user namespace.
    pub uid_map: Vec<IdMapping>,
    /// The groups.
    pub gid_map: Vec<IdMapping>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MountSource {
    /// A host file or directory.
    Bind {
        /// Host path.
        path: PathBuf,
        /// With everything mounted below it.
        #[serde(default)]
        recursive: bool,
        /// The container path of what lies in the container's own root: it is bound as the mounts
        /// before this one have left it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inside: Option<PathBuf>,
    },
    /// A fresh filesystem made with `fsopen(2)`: proc, sysfs, tmpfs, devpts, mqueue...
    Filesystem {
        /// Filesystem type as in `/proc/filesystems`.
        fstype: String,
        /// `key=value` and flag options for `fsconfig(2)`, e.g. `size=64m`, `newinstance`.
        #[serde(default)]
        options: Vec<String>,
        /// tmpfs only: start with a copy of what the image has at the destination.
        #[serde(default)]
        copy_up: bool,
    },
    /// The cgroup hierarchies as seen from the container's cgroup namespace (v1: a tmpfs with one
    /// mount per hierarchy, v2: one mount).
    Cgroup,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Attributes of one mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountAttrs {
    /// MS_RDONLY / MOUNT_ATTR_RDONLY.
    pub read_only: bool,
    /// MOUNT_ATTR_NOSUID.
    pub nosuid: bool,
    /// MOUNT_ATTR_NODEV.
    pub nodev: bool,
    /// MOUNT_ATTR_NOEXEC.
    pub noexec: bool,
    /// MOUNT_ATTR_NOATIME.
    pub noatime: bool,
    /// MOUNT_ATTR_NOSYMFOLLOW.
    pub nosymfollow: bool,
    /// MOUNT_ATTR_STRICTATIME.
    #[serde(skip_serializing_if = "is_false")]
    pub strictatime: bool,
    /// MOUNT_ATTR_RELATIME: what a fresh mount has anyway, and a bind of another one need not.
    #[serde(skip_serializing_if = "is_false")]
    pub relatime: bool,
    /// MOUNT_ATTR_NODIRATIME.
    #[serde(skip_serializing_if = "is_false")]
    pub nodiratime: bool,
    /// Apply to every mount below as well (`AT_RECURSIVE`).
    pub recursive: bool,
}

impl MountAttrs {
    /// None is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Attributes of a whole tree of mounts (mount_setattr(2), `AT_RECURSIVE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TreeAttrs {
    /// Which are set.
    pub set: MountAttrs,
    /// Which are cleared.
    pub clear: MountAttrs,
}

/// A device node (mknod(2); a bind mount of the host's node where mknod is refused).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Absolute container path. Below `/dev` the node is made in the plan's tmpfs, elsewhere in what
    /// is there.
    pub path: PathBuf,
    /// `'c'`, `'b'`, or `'p'` for a FIFO, which has no numbers.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    #[serde(default)]
    pub uid: u32,
    /// Group inside the container.
    #[serde(default)]
    pub gid: u32,
}
