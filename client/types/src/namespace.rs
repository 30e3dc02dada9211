//! Namespaces, always read from the kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One namespace of a container (`GET .../namespaces`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerNamespace {
    /// `mnt uts ipc net pid user cgroup time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The inode, as `ls -Li /proc/PID/ns` and `lsns` print it.
    pub inode: u64,
    /// The kernel's 64-bit id (Linux 6.13, `NS_GET_ID`), where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The daemon's own, for comparison.
    pub host_inode: u64,
    /// Whether it is the daemon's own.
    pub is_host: bool,
    /// Inode of the user namespace that owns it, where the kernel tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_user_inode: Option<u64>,
    /// Other containers in it, by name.
    #[serde(default)]
    pub shared_with: Vec<String>,
}

/// `GET .../namespaces`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerNamespaces {
    /// The container's id.
    pub container_id: String,
    /// PID 1's PID on the host.
    pub pid: u32,
    /// All eight.
    pub namespaces: Vec<ContainerNamespace>,
}

/// One namespace of the machine (`GET /v1/namespaces`, like `lsns`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Inode.
    pub inode: u64,
    /// How many processes live in it.
    pub processes: u32,
    /// The lowest PID in it.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// Its user id.
    pub uid: u32,
    /// Inode of the owning user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_user_inode: Option<u64>,
    /// Inode of the parent (pid and user).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_inode: Option<u64>,
    /// Containers in it, by name.
    #[serde(default)]
    pub containers: Vec<String>,
}

/// One node of `GET /v1/namespaces/tree`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamespaceNode {
    /// The namespace.
    #[serde(flatten)]
    pub info: NamespaceInfo,
    /// Those below it.
    pub children: Vec<NamespaceNode>,
}

/// `GET /v1/namespaces/diff?a=&b=`: two containers (or `host`), type by type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamespaceDiff {
    /// As asked.
    pub a: String,
    /// As asked.
    pub b: String,
    /// All eight.
    pub types: Vec<NamespaceTypeDiff>,
}

/// One type of a diff.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamespaceTypeDiff {
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// a's inode.
    pub a_inode: u64,
    /// b's inode.
    pub b_inode: u64,
    /// The same namespace.
    pub shared: bool,
    /// What differs inside, by subject (`hostname`, `interfaces`, `mounts`, `uid_map`, `cgroup`,
    /// `offsets`); empty where shared or alike.
    #[serde(default)]
    pub differences: BTreeMap<String, Difference>,
}

/// A value on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// In a (lists: only in a).
    pub a: serde_json::Value,
    /// In b (lists: only in b).
    pub b: serde_json::Value,
}
