//! `hugepageLimits`, `rdma`, `network`.

use littlebox_protocol::{RdmaPlan, ResourcePlan};
use oci_spec::runtime::LinuxResources;

use super::{check, unlimited};
use crate::{PlanError, pointer};

pub(super) fn plan(resources: &LinuxResources, plan: &mut ResourcePlan) -> Result<(), PlanError> {
    let limits = resources.hugepage_limits().as_deref().unwrap_or_default();
    for (i, limit) in limits.iter().enumerate() {
        let size = limit.page_size();
        check(
            is_page_size(size),
            &format!("hugepageLimits/{i}/pageSize"),
            format!("'{size}' is not a page size like 64KB, 2MB or 1GB"),
        )?;
        plan.hugetlb.insert(size.clone(), unlimited(limit.limit()));
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let field = pointer::below("rdma", device);
        check(is_word(device), &field, "not the name of a device")?;
        let limits = RdmaPlan {
            hca_handles: limits.hca_handles(),
            hca_objects: limits.hca_objects(),
        };
        let any = limits.hca_handles.is_some() || limits.hca_objects.is_some();
        check(any, &field, "neither hcaHandles nor hcaObjects is given")?;
        plan.rdma.insert(device.clone(), limits);
    }
    let Some(network) = resources.network() else {
        return Ok(());
    };
    plan.net_cls_classid = network.class_id();
    let priorities = network.priorities().as_deref().unwrap_or_default();
    for (i, priority) in priorities.iter().enumerate() {
        check(
            is_word(priority.name()),
            &format!("network/priorities/{i}/name"),
            "not the name of an interface",
        )?;
        plan.net_prio
            .insert(priority.name().clone(), priority.priority());
    }
    Ok(())
}

/// As the kernel names its files: a number and `KB`, `MB` or `GB`.
pub fn is_page_size(text: &str) -> bool {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|n| {
        !n.is_empty()
            && n.len() <= 6
            && !n.starts_with('0')
            && n.bytes().all(|b| b.is_ascii_digit())
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}
