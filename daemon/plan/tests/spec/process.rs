//! The program of a spec.

use super::explained::commands;
use super::*;

#[test]
fn process_is_as_the_spec_says() {
    let process = good(json!({})).process;
    assert_eq!(
        process.terminal,
        Some(TerminalSize {
            rows: 50,
            cols: 132
        })
    );
    assert_eq!(process.user.user, UserRef::Id(1000));
    assert_eq!(
        process.user.additional_groups,
        [UserRef::Id(5), UserRef::Id(6)]
    );
    assert_eq!(process.user.umask, Some(0o077));
    assert_eq!(process.capabilities.bounding, 1 << 29 | 1 << 5);
    assert_eq!(process.capabilities.ambient, 1 << 5);
    assert_eq!(process.capabilities.inheritable, 0);
    assert_eq!(
        (process.rlimits[0].soft, process.rlimits[0].hard),
        (Some(1024), None)
    );
}

#[test]
fn no_capabilities_object_means_none() {
    let process = good(json!({"process": {"capabilities": null}})).process;
    assert_eq!(process.capabilities.bounding, 0);
}

#[test]
fn scheduling_labels_and_clocks_become_the_plan() {
    let plan = good(json!({
        "process": {
            "apparmorProfile": "docker-default",
            "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2",
            "scheduler": {"policy": "SCHED_RR", "priority": 7},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 3},
            "execCPUAffinity": {"initial": "0", "final": "1-2"},
        },
        "linux": {
            "personality": {"domain": "LINUX32"},
            "mountLabel": "system_u:object_r:container_file_t:s0:c1,c2",
            "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}},
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "time"}],
        },
    }));
    let labels = &plan.process.labels;
    assert_eq!(labels.apparmor.as_deref(), Some("docker-default"));
    assert_eq!(
        labels.selinux.as_deref(),
        Some("system_u:system_r:container_t:s0:c1,c2")
    );
    let scheduling = &plan.process.scheduling;
    let scheduler = scheduling.scheduler.as_ref().unwrap();
    assert_eq!((scheduler.policy, scheduler.priority), (2, 7));
    let io = scheduling.io_priority.unwrap();
    assert_eq!((io.class, io.level), (3, 3));
    assert_eq!(scheduling.exec_affinity.initial, [0]);
    assert_eq!(scheduling.exec_affinity.finally, [1, 2]);
    assert_eq!(scheduling.personality, Some(8));
    let offset = plan.time_offsets[&TimeClock::Boottime];
    assert_eq!((offset.secs, offset.nanos), (-5, 7));
    let labelled = plan
        .mounts
        .iter()
        .find(|m| m.destination == std::path::Path::new("/dev"));
    let MountSource::Filesystem { options, .. } = &labelled.unwrap().source else {
        panic!("{labelled:?}")
    };
    assert!(
        options.contains(&"context=system_u:object_r:container_file_t:s0:c1,c2".to_owned()),
        "{options:?}"
    );
    for step in [Step::SecurityLabels, Step::Scheduling, Step::TimeNamespace] {
        assert!(!commands(&plan, step).is_empty(), "{step:?}");
    }
}
