//! Users, groups and capabilities of a process that becomes a program.

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::program::harden;
use super::stdio::ChildStdio;
use super::steps::Warnings;
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use crate::{sys, users};
use littlebox_protocol::{CapabilityPlan, Defence, IdMapping, UserPlan};

/// Makes the ids of this thread others' for one clone, in what counts for a new user namespace: who
/// it belongs to, and whose account everything is charged to that the kernel counts per user below
/// it (inotify(7), mq_overview(7), POSIX timers, pending signals, namespaces). With the host's root as
/// its owner, every container and the host's root would share one account.
///
/// Only the effective ids change. The real and saved ones stay, so the permitted capabilities do,
/// too (capabilities(7), "Effect of user ID changes on capabilities"), nobody may send this process
/// signals or trace it by having these ids, and there is a way back. Files are opened as before.
pub fn appear_as((uid, gid): (u32, u32)) -> Result<OwnIds, Fault> {
    let own = OwnIds {
        uid: geteuid(),
        gid: getegid(),
    };
    let appeared = own.set_effective(Uid::from_raw(uid), Gid::from_raw(gid));
    if appeared.is_err() {
        own.take_back()?;
    }
    appeared.map(|()| own)
}

/// The ids that a thread had before [`appear_as`].
#[derive(Debug)]
pub struct OwnIds {
    uid: Uid,
    gid: Gid,
}

impl OwnIds {
    /// This thread is itself again.
    pub fn take_back(&self) -> Result<(), Fault> {
        self.set_effective(self.uid, self.gid)
    }

    fn set_effective(&self, uid: Uid, gid: Gid) -> Result<(), Fault> {
        set_thread_res_gid(self.gid, gid, self.gid).fault("setresgid")?;
        set_thread_res_uid(self.uid, uid, self.uid).fault("setresuid")?;
        sys::set_fs_ids(self.uid.as_raw(), self.gid.as_raw());
        raise_effective()?;
        // A change of the effective ids has undone it.
        harden()
    }
}

/// Takes over the plan's user and groups. The capabilities stay permitted for the steps that
/// follow. Returns the value for HOME where it was asked for.
pub fn assume(
    plan: &UserPlan,
    needs_home: bool,
    stdio: &ChildStdio,
    warnings: &mut Warnings,
) -> Result<Option<String>, Fault> {
    let identity = users::look_up(plan, needs_home, warnings)?;
    if identity.uid != 0 {
        stdio.give_to(identity.uid, None)?;
        set_keep_capabilities(true).fault("prctl(PR_SET_KEEPCAPS)")?;
    }
    set_groups(&identity.groups, warnings)?;
    set_ids(identity.uid, identity.gid)?;
    if identity.uid != 0 {
        harden()?;
    }
    Ok(needs_home.then(|| identity.home.unwrap_or_else(|| "/".to_owned())))
}

fn set_groups(groups: &[u32], warnings: &mut Warnings) -> Result<(), Fault> {
    let list: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&list) {
        Ok(()) => Ok(()),
        // A user namespace that was made without privileges denies it (user_namespaces(7)).
        Err(Errno::PERM) if groups.is_empty() => {
            warnings
                .push("the user namespace denies setgroups: groups stay as they are".to_owned());
            Ok(())
        }
        Err(Errno::INVAL) => Err(Fault::of("setgroups", Errno::INVAL).because(format!(
            "one of the groups {groups:?} is not mapped in the user namespace"
        ))),
        Err(errno) => Err(Fault::of("setgroups", errno)),
    }
}

fn set_ids(uid: u32, gid: u32) -> Result<(), Fault> {
    let unmapped = |fault: Fault, what: &str, id: u32| {
        if fault.is(Errno::INVAL) {
            fault.because(format!("{what} {id} is not mapped in the user namespace"))
        } else {
            fault
        }
    };
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(g, g, g)
        .fault("setresgid")
        .map_err(|f| unmapped(f, "group", gid))?;
    set_thread_res_uid(u, u, u)
        .fault("setresuid")
        .map_err(|f| unmapped(f, "user", uid))
}

/// After a user namespace was entered: its root, so that what is made from now on belongs to it.
/// In one that does not map 0, its first id.
pub fn become_namespace_root(uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Result<(), Fault> {
    let first = |map: &[IdMapping]| {
        let ids = map.iter().map(|mapping| mapping.container_id);
        ids.min().unwrap_or(0)
    };
    // Denied where setgroups is; the program's own step says so.
    let _ = set_thread_groups(&[]);
    set_ids(first(uid_map), first(gid_map))?;
    harden()
}

/// Leaves exactly the plan's capabilities, as far as they are there to be left; and `besides`,
/// until [`give_back`].
pub fn restrict(
    plan: &CapabilityPlan,
    besides: CapabilitySet,
    warnings: &mut Warnings,
) -> Result<(), Fault> {
    // Dropping from the bounding set takes CAP_SETPCAP.
    let permitted = raise_effective()?;
    drop_from_bounding_set(plan.bounding)?;
    let missing = not_granted(plan, permitted);
    if !missing.is_empty() {
        let names: Vec<String> = missing
            .iter_names()
            .map(|(name, _)| format!("CAP_{name}"))
            .collect();
        warnings.push(format!(
            "capabilities that this host does not grant: {}",
            names.join(", ")
        ));
    }
    let wanted = sets(plan, permitted);
    clear_ambient_capability_set().fault("prctl(PR_CAP_AMBIENT)")?;
    let for_now = CapabilitySets {
        effective: wanted.effective | besides & permitted,
        permitted: wanted.permitted | besides & permitted,
        ..wanted
    };
    set_capabilities(None, for_now).fault("capset")?;
    let ambient = CapabilitySet::from_bits_retain(plan.ambient);
    let ambient = ambient & wanted.permitted & wanted.inheritable;
    each(ambient.bits()).try_for_each(|capability| {
        configure_capability_in_ambient_set(capability, true).fault("prctl(PR_CAP_AMBIENT)")
    })
}

/// What the plan has in any of its sets, and the host does not. The bounding set is that which is
/// left of the host's.
fn not_granted(plan: &CapabilityPlan, permitted: CapabilitySet) -> CapabilitySet {
    let held = plan.permitted | plan.effective | plan.inheritable | plan.ambient;
    let unbound = each(plan.bounding).filter(|capability| {
        // One that this kernel does not know is none of the host's either.
        !capability_is_in_bounding_set(*capability).unwrap_or(false)
    });
    let held = CapabilitySet::from_bits_retain(held) & !permitted;
    unbound.fold(held, |missing, capability| missing | capability)
}

/// Leaves the plan's capabilities and nothing besides.
pub fn give_back(plan: &CapabilityPlan) -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    set_capabilities(None, sets(plan, held.permitted))
}

/// The plan's sets, as far as they are permitted.
fn sets(plan: &CapabilityPlan, permitted: CapabilitySet) -> CapabilitySets {
    let set = |bits: u64| CapabilitySet::from_bits_retain(bits) & permitted;
    let inheritable = if stands(Defence::Inheritable) {
        plan.inheritable
    } else {
        plan.permitted
    };
    CapabilitySets {
        effective: set(plan.effective & plan.permitted),
        permitted: set(plan.permitted),
        inheritable: set(inheritable),
    }
}

/// Makes effective what is permitted, and returns it: a change from root to another user clears
/// the one and, with PR_SET_KEEPCAPS, keeps the other.
pub fn raise_effective() -> Result<CapabilitySet, Fault> {
    let held = capabilities(None).fault("capget")?;
    if held.effective != held.permitted {
        let raised = CapabilitySets {
            effective: held.permitted,
            ..held
        };
        set_capabilities(None, raised).fault("capset")?;
    }
    Ok(held.permitted)
}

fn drop_from_bounding_set(keep: u64) -> Result<(), Fault> {
    for capability in each(!keep) {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know: there are no more.
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(Fault::of("prctl(PR_CAPBSET_DROP)", errno)),
        }
    }
    Ok(())
}

fn each(bits: u64) -> impl Iterator<Item = CapabilitySet> {
    let all = (0..u64::BITS).map(|n| 1u64 << n);
    all.filter(move |bit| bits & bit != 0)
        .map(CapabilitySet::from_bits_retain)
}
