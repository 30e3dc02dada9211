//! The list as a tree.

use lbctl::types::{NamespaceInfo, NamespaceNode};

/// What makes one namespace another's child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeBy {
    /// The user namespace that owns it.
    Owner,
    /// The namespace it is nested in (pid and user).
    Parent,
}

/// Arranges a list. What has no parent in the list is a root.
pub fn tree(_list: Vec<NamespaceInfo>, _by: TreeBy) -> Vec<NamespaceNode> {
    unimplemented!()
}
