//! Huge pages, RDMA, marks of packets, and files of v2 by name.

use super::{FileWrite, Inexpressible, IsUnified, Setting, max_or, minus_one_or, refuse, set};
use crate::{RdmaPlan, ResourcePlan};

pub(super) fn settings(
    plan: &ResourcePlan,
    is_unified: IsUnified<'_>,
    all: &mut Vec<Setting>,
) -> Result<(), Inexpressible> {
    for (size, limit) in &plan.hugetlb {
        hugetlb(size, *limit, is_unified("hugetlb"), all);
    }
    for (device, limits) in &plan.rdma {
        all.push(rdma(device, *limits));
    }
    refuse(
        plan.net_cls_classid.is_some() && is_unified("net_cls"),
        "network.classID needs the v1 controller net_cls",
    )?;
    refuse(
        !plan.net_prio.is_empty() && is_unified("net_prio"),
        "network.priorities need the v1 controller net_prio",
    )?;
    let class = plan.net_cls_classid.map(|class| class.to_string());
    all.extend(set("net_cls", "network.classID", "net_cls.classid", class));
    for (interface, priority) in &plan.net_prio {
        all.push(net_prio(interface, *priority));
    }
    for (file, value) in &plan.unified {
        let controller = controller_of(file);
        if !is_unified(controller) {
            return Err(Inexpressible(format!(
                "unified/{file} needs the {controller} controller on cgroup v2"
            )));
        }
        all.extend(set(controller, "unified", file, Some(value.clone())));
    }
    Ok(())
}

/// `memory` of `memory.oom.group`.
fn controller_of(file: &str) -> &str {
    file.split_once('.')
        .map_or(file, |(controller, _)| controller)
}

/// Usage and reservations: only the latter is told to the program (ENOMEM of mmap(2)), by the
/// former alone it would be killed with SIGBUS. Reservations are limited since 5.7.
fn hugetlb(size: &str, limit: u64, unified: bool, all: &mut Vec<Setting>) {
    let value = if unified {
        max_or(limit)
    } else {
        minus_one_or(limit)
    };
    let name = if unified { "max" } else { "limit_in_bytes" };
    for (middle, optional) in [("", false), ("rsvd.", true)] {
        let file = format!("hugetlb.{size}.{middle}{name}");
        all.extend(
            set("hugetlb", "hugetlb", &file, Some(value.clone())).map(|setting| Setting {
                optional,
                ..setting
            }),
        );
    }
}

fn rdma(device: &str, limits: RdmaPlan) -> Setting {
    let counts = [
        ("hca_handle", limits.hca_handles),
        ("hca_object", limits.hca_objects),
    ];
    let asked: String = counts
        .iter()
        .filter_map(|(name, count)| Some(format!(" {name}={}", (*count)?)))
        .collect();
    Setting {
        controller: "rdma".to_owned(),
        field: "rdma",
        writes: vec![FileWrite {
            file: "rdma.max".to_owned(),
            value: format!("{device}{asked}"),
            default: format!("{device} hca_handle=max hca_object=max"),
        }],
        key: Some(device.to_owned()),
        optional: false,
    }
}

fn net_prio(interface: &str, priority: u32) -> Setting {
    Setting {
        controller: "net_prio".to_owned(),
        field: "network.priorities",
        writes: vec![FileWrite {
            file: "net_prio.ifpriomap".to_owned(),
            value: format!("{interface} {priority}"),
            default: format!("{interface} 0"),
        }],
        key: Some(interface.to_owned()),
        optional: false,
    }
}
