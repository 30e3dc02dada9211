//! Containers whose mount namespace is not made for them: the host's (the spec lists none), or one by
//! a path.
//!
//! The specification says where the process lives, and nothing of where its mounts are made. Here
//! they are made in a namespace for the purpose, and the finished tree is the process' root without
//! being attached in any: see `take_outside` in the helper. So nothing is mounted over what others
//! use, and nothing is left behind. What that cannot give is refused.

use std::collections::BTreeMap;

use littlebox_protocol::{LaunchPlan, NamespaceKind, NamespacePlan, Propagation};

use crate::{Authority, PlanError};

/// Refuses them to clients of the API: the host's is not theirs to give.
pub(crate) fn check_authority(
    namespaces: &BTreeMap<NamespaceKind, NamespacePlan>,
    authority: Authority,
) -> Result<(), PlanError> {
    if has_own(namespaces) || authority == Authority::Host {
        return Ok(());
    }
    Err(PlanError::new(
        "/linux/namespaces",
        "a container needs a mount namespace of its own, because its root is made in it",
    ))
}

fn has_own(namespaces: &BTreeMap<NamespaceKind, NamespacePlan>) -> bool {
    namespaces.get(&NamespaceKind::Mnt) == Some(&NamespacePlan::New)
}

/// Refuses what takes a mount namespace of the container's own, where it has none.
pub(crate) fn check(plan: &LaunchPlan) -> Result<(), PlanError> {
    if has_own(&plan.namespaces) {
        return Ok(());
    }
    if plan.namespaces.contains_key(&NamespaceKind::User) {
        return Err(PlanError::new(
            "/linux/namespaces",
            "a container with a user namespace needs a mount namespace of its own: from there it \
             cannot enter another",
        ));
    }
    if !is_private(Some(plan.rootfs.propagation)) {
        return Err(without("/linux/rootfsPropagation"));
    }
    match plan.mounts.iter().position(|m| !is_private(m.propagation)) {
        Some(i) => Err(without(&format!("/mounts/{i}/options"))),
        None => Ok(()),
    }
}

fn is_private(propagation: Option<Propagation>) -> bool {
    matches!(
        propagation,
        None | Some(Propagation::Private | Propagation::Rprivate)
    )
}

fn without(pointer: &str) -> PlanError {
    PlanError::new(
        pointer,
        "without a mount namespace of its own a container has private mounts only; list a mount \
         namespace without a path, or leave the propagation out",
    )
}
