//! The list as a tree.

use std::collections::BTreeMap;

use littlebox_protocol::NamespaceKind;
use littlebox_types::{NamespaceInfo, NamespaceNode};

/// What makes one namespace another's child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeBy {
    /// The user namespace that owns it (of a user namespace: its parent).
    Owner,
    /// The namespace it is nested in (pid and user).
    Parent,
}

/// A namespace among all others: inodes are unique per type only.
type Key = (String, u64);

/// Arranges a list. What has no parent in the list is a root.
pub fn tree(list: Vec<NamespaceInfo>, by: TreeBy) -> Vec<NamespaceNode> {
    let known: std::collections::BTreeSet<Key> = list
        .iter()
        .map(|info| (info.kind.clone(), info.inode))
        .collect();
    let mut roots = Vec::new();
    let mut children: BTreeMap<Key, Vec<NamespaceInfo>> = BTreeMap::new();
    for info in list {
        match parent_of(&info, by).filter(|parent| known.contains(parent)) {
            Some(parent) => children.entry(parent).or_default().push(info),
            None => roots.push(info),
        }
    }
    roots
        .into_iter()
        .map(|root| node(root, &mut children))
        .collect()
}

fn parent_of(info: &NamespaceInfo, by: TreeBy) -> Option<Key> {
    let parent = match by {
        TreeBy::Owner => (
            NamespaceKind::User.name().to_owned(),
            info.owner_user_inode?,
        ),
        TreeBy::Parent => (info.kind.clone(), info.parent_inode?),
    };
    (parent.1 != info.inode || parent.0 != info.kind).then_some(parent)
}

/// Takes its children out of the map, so this ends whatever the kernel said; user and PID
/// namespaces nest at most 32 deep (namespaces(7)).
fn node(info: NamespaceInfo, children: &mut BTreeMap<Key, Vec<NamespaceInfo>>) -> NamespaceNode {
    let below = children
        .remove(&(info.kind.clone(), info.inode))
        .unwrap_or_default();
    let children = below
        .into_iter()
        .map(|child| node(child, children))
        .collect();
    NamespaceNode { info, children }
}
