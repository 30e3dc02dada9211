//! Limits in littlebox's units as the files of cgroup v2 and v1.

mod cpu;
mod io;
mod memory;
mod other;

use crate::ResourcePlan;

/// What is written for one limit: into the first of `writes` whose file the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller.
    pub controller: String,
    /// How the request calls it.
    pub field: &'static str,
    /// Files of the cgroup's directory and what they take, the best first.
    pub writes: Vec<FileWrite>,
    /// Of a file with a line per device: which line.
    pub key: Option<String>,
    /// A kernel without any of the files does without.
    pub optional: bool,
}

/// One file and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWrite {
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// What takes a line of the file back to its default.
    pub default: String,
}

/// A limit that this kind of hierarchy cannot express, in words that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inexpressible(pub String);

/// Which kind of hierarchy a controller is on: `true` for v2.
pub type IsUnified<'a> = &'a dyn Fn(&str) -> bool;

/// What must be written for `plan`, where `is_unified` tells of a controller whether it is on a v2
/// hierarchy, in the order in which it is written first.
///
/// # Errors
///
/// The first limit that does not exist there.
pub fn settings(
    plan: &ResourcePlan,
    is_unified: IsUnified<'_>,
) -> Result<Vec<Setting>, Inexpressible> {
    let mut all = Vec::new();
    memory::settings(plan, is_unified("memory"), &mut all)?;
    cpu::settings(plan, is_unified("cpu"), &mut all)?;
    cpu::cpuset(plan, &mut all);
    all.extend(set("pids", "pids_limit", "pids.max", plan.pids.map(max_or)));
    io::settings(&plan.io, is_unified("io"), &mut all)?;
    other::settings(plan, is_unified, &mut all)?;
    Ok(all)
}

/// A setting of one file, when there is a value.
fn set(
    controller: &str,
    field: &'static str,
    file: &str,
    value: Option<String>,
) -> Option<Setting> {
    value.map(|value| Setting {
        controller: controller.to_owned(),
        field,
        writes: vec![FileWrite {
            file: file.to_owned(),
            value,
            default: String::new(),
        }],
        key: None,
        optional: false,
    })
}

fn refuse(given: bool, why: &str) -> Result<(), Inexpressible> {
    if given {
        Err(Inexpressible(why.to_owned()))
    } else {
        Ok(())
    }
}

/// v2: no limit is `max`.
fn max_or(value: u64) -> String {
    if value == u64::MAX {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// v1: no limit is -1.
fn minus_one_or(value: u64) -> String {
    if value == u64::MAX {
        "-1".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IoDevicePlan, IoPlan, RdmaPlan};

    /// The first file of each setting with its value.
    fn written(plan: &ResourcePlan, unified: bool) -> Vec<(String, String)> {
        let settings = settings(plan, &|_| unified).expect("expressible");
        let first = |s: Setting| (s.writes[0].file.clone(), s.writes[0].value.clone());
        settings.into_iter().map(first).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(file, value): &(&str, &str)| ((*file).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn v2_swap_is_what_is_left_of_memory_and_swap() {
        let plan = ResourcePlan {
            memory: Some(100),
            memory_and_swap: Some(150),
            ..ResourcePlan::default()
        };
        let expected = pairs(&[("memory.max", "100"), ("memory.swap.max", "50")]);
        assert_eq!(written(&plan, true), expected);
    }

    #[test]
    fn no_limit_is_max_on_v2_and_minus_one_on_v1() {
        let plan = ResourcePlan {
            pids: Some(u64::MAX),
            memory: Some(u64::MAX),
            memory_and_swap: Some(u64::MAX),
            ..Default::default()
        };
        let v1 = pairs(&[
            ("memory.limit_in_bytes", "-1"),
            ("memory.memsw.limit_in_bytes", "-1"),
            ("pids.max", "max"),
        ]);
        assert_eq!(written(&plan, false), v1);
        let v2 = pairs(&[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("pids.max", "max"),
        ]);
        assert_eq!(written(&plan, true), v2);
    }

    #[test]
    fn no_reservation_protects_nothing() {
        let plan = ResourcePlan {
            memory_reservation: Some(u64::MAX),
            ..Default::default()
        };
        assert_eq!(written(&plan, true), pairs(&[("memory.low", "0")]));
        assert_eq!(
            written(&plan, false),
            pairs(&[("memory.soft_limit_in_bytes", "-1")])
        );
    }

    #[test]
    fn what_only_one_version_has_is_refused_on_the_other() {
        let refused = |plan: ResourcePlan, unified: bool| {
            let settings = settings(&plan, &|_| unified);
            settings.expect_err("refused").0
        };
        let plan = ResourcePlan::default;
        let high = ResourcePlan {
            memory_high: Some(1),
            ..plan()
        };
        assert!(refused(high, false).starts_with("memory_high"));
        let swappiness = ResourcePlan {
            memory_swappiness: Some(1),
            ..plan()
        };
        assert!(refused(swappiness, true).starts_with("memory_swappiness"));
        let oom = ResourcePlan {
            memory_disable_oom_killer: Some(true),
            ..plan()
        };
        assert!(refused(oom, true).starts_with("memory.disableOOMKiller"));
        let realtime = ResourcePlan {
            cpu_rt_runtime_us: Some(1),
            ..plan()
        };
        assert!(refused(realtime, true).starts_with("cpu.realtime"));
        let class = ResourcePlan {
            net_cls_classid: Some(1),
            ..plan()
        };
        assert!(refused(class, true).starts_with("network.classID"));
        let raw = ResourcePlan {
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            ..plan()
        };
        assert!(refused(raw, false).starts_with("unified/memory.oom.group"));
    }

    #[test]
    fn cpu_limits_of_both_versions() {
        let plan = ResourcePlan {
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpu_weight: Some(100),
            cpu_burst_us: Some(10_000),
            cpu_idle: Some(0),
            ..Default::default()
        };
        let v2 = pairs(&[
            ("cpu.idle", "0"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("cpu.max.burst", "10000"),
        ]);
        assert_eq!(written(&plan, true), v2);
        let v1 = pairs(&[
            ("cpu.idle", "0"),
            ("cpu.shares", "1024"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_burst_us", "10000"),
        ]);
        assert_eq!(written(&plan, false), v1);
    }

    #[test]
    fn a_period_without_a_quota_is_no_limit() {
        let plan = ResourcePlan {
            cpu_period_us: Some(1000),
            ..ResourcePlan::default()
        };
        assert_eq!(written(&plan, true), pairs(&[("cpu.max", "max 1000")]));
    }

    #[test]
    fn shares_that_were_asked_for_are_written_as_they_are() {
        let plan = ResourcePlan {
            cpu_shares: Some(1000),
            cpu_weight: Some(98),
            ..ResourcePlan::default()
        };
        assert_eq!(written(&plan, false), pairs(&[("cpu.shares", "1000")]));
        assert_eq!(written(&plan, true), pairs(&[("cpu.weight", "98")]));
    }

    #[test]
    fn block_devices_have_a_line_each() {
        let device = IoDevicePlan {
            major: 8,
            minor: 16,
            read_bps: Some(1_048_576),
            write_iops: Some(u64::MAX),
            ..IoDevicePlan::default()
        };
        let plan = ResourcePlan {
            io: IoPlan {
                weight: Some(200),
                devices: vec![device],
                ..IoPlan::default()
            },
            ..ResourcePlan::default()
        };
        let v2 = pairs(&[
            ("io.bfq.weight", "200"),
            ("io.max", "8:16 rbps=1048576 wiops=max"),
        ]);
        assert_eq!(written(&plan, true), v2);
        let v1 = pairs(&[
            ("blkio.bfq.weight", "200"),
            ("blkio.throttle.read_bps_device", "8:16 1048576"),
            ("blkio.throttle.write_iops_device", "8:16 0"),
        ]);
        assert_eq!(written(&plan, false), v1);
    }

    #[test]
    fn weights_of_the_oci_spec_become_those_of_v2() {
        let plan = |weight| ResourcePlan {
            io: IoPlan {
                blkio_weight: Some(weight),
                ..IoPlan::default()
            },
            ..ResourcePlan::default()
        };
        for (weight, expected) in [(10, "1"), (1000, "10000"), (500, "4950")] {
            let settings = settings(&plan(weight), &|_| true).expect("expressible");
            assert_eq!(settings[0].writes[0].file, "io.bfq.weight");
            assert_eq!(settings[0].writes[0].value, weight.to_string());
            assert_eq!(settings[0].writes[1].file, "io.weight");
            assert_eq!(settings[0].writes[1].value, expected);
        }
    }

    #[test]
    fn the_rest() {
        let plan = ResourcePlan {
            hugetlb: [("2MB".to_owned(), 4_194_304)].into(),
            rdma: [(
                "mlx5_1".to_owned(),
                RdmaPlan {
                    hca_handles: Some(3),
                    hca_objects: None,
                },
            )]
            .into(),
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            ..ResourcePlan::default()
        };
        let v2 = pairs(&[
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
            ("rdma.max", "mlx5_1 hca_handle=3"),
            ("memory.oom.group", "1"),
        ]);
        assert_eq!(written(&plan, true), v2);
        let plan = ResourcePlan {
            unified: std::collections::BTreeMap::new(),
            net_cls_classid: Some(0x10_0001),
            net_prio: [("lo".to_owned(), 5)].into(),
            ..plan
        };
        let v1 = pairs(&[
            ("hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            ("rdma.max", "mlx5_1 hca_handle=3"),
            ("net_cls.classid", "1048577"),
            ("net_prio.ifpriomap", "lo 5"),
        ]);
        assert_eq!(written(&plan, false), v1);
    }
}
