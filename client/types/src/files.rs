//! Files of a container: what lies where, and what differs from its base.

use serde::{Deserialize, Serialize};

/// One path of `GET .../changes`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Absolute container path. Bytes outside UTF-8 are shown as U+FFFD.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path against the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Contents or attributes differ.
    Modified,
    /// Gone.
    Deleted,
}

/// `GET .../changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// By path.
    pub items: Vec<Change>,
}

/// What lies at a container path (`GET .../files?path=&stat=true`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// As asked, made absolute.
    pub path: String,
    /// `file`, `directory`, `symlink`, `char`, `block`, `fifo`, `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits, octal, e.g. `"0644"`.
    pub mode: String,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
    /// RFC 3339.
    pub modified_at: String,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
}
