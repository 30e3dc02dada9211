//! Who owns which namespace, and what it is nested in: the kernel tells by ioctl alone, which the
//! daemon, having no `unsafe`, cannot ask.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::sys;
use littlebox_protocol::{NamespaceRef, NamespaceRelation};

/// Asks the kernel about each namespace. What is gone, or changed since, is left out: the answer
/// is a view of a moment and its reader expects holes.
pub fn relations(namespaces: &[NamespaceRef]) -> Vec<NamespaceRelation> {
    namespaces.iter().filter_map(relation).collect()
}

fn relation(namespace: &NamespaceRef) -> Option<NamespaceRelation> {
    let path = format!("/proc/{}/ns/{}", namespace.pid, namespace.kind.name());
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if inode(&fd)? != namespace.inode {
        return None;
    }
    Some(NamespaceRelation {
        kind: namespace.kind,
        inode: namespace.inode,
        owner_inode: sys::ns_owner(&fd).ok().and_then(|owner| inode(&owner)),
        parent_inode: sys::ns_parent(&fd).ok().and_then(|parent| inode(&parent)),
        id: sys::ns_id(&fd).ok(),
    })
}

fn inode(fd: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use littlebox_protocol::NamespaceKind;

    fn own(kind: NamespaceKind) -> NamespaceRef {
        let path = format!("/proc/self/ns/{}", kind.name());
        let inode = rustix::fs::stat(path).unwrap().st_ino;
        NamespaceRef {
            pid: std::process::id(),
            kind,
            inode,
        }
    }

    #[test]
    fn namespaces_are_owned_by_the_user_namespace() {
        let all: Vec<NamespaceRef> = NamespaceKind::ALL.into_iter().map(own).collect();
        let relations = relations(&all);
        assert_eq!(relations.len(), 8);
        let user = own(NamespaceKind::User).inode;
        let uts = relations
            .iter()
            .find(|one| one.kind == NamespaceKind::Uts)
            .unwrap();
        // Only where this test itself runs in a nested user namespace may the owner be another.
        assert!(uts.owner_inode == Some(user) || uts.owner_inode.is_none());
        assert_eq!(uts.parent_inode, None);
    }

    #[test]
    fn a_namespace_that_changed_is_left_out() {
        let mut gone = own(NamespaceKind::Uts);
        gone.inode += 1;
        let nobody = NamespaceRef {
            pid: 0,
            ..own(NamespaceKind::Uts)
        };
        assert_eq!(relations(&[gone, nobody]), vec![]);
    }
}
