//! The container's cgroup.

use super::*;

#[test]
fn the_cgroup_is_limited_seen_frozen_and_killed() {
    let mut bed = Bed::new("cat /proc/self/cgroup; sleep 100");
    bed.plan.cgroup.resources.memory = Some(64 << 20);
    bed.plan.cgroup.resources.cpu_weight = Some(50);
    bed.plan.cgroup.resources.cpuset_cpus = Some("0".to_owned());
    let mut container = bed.launch().unwrap();
    let cgroup = &container.built.cgroup;
    let paths = cgroup.paths();
    let memory = &paths
        .iter()
        .find(|(name, _)| name == "memory" || name == "unified")
        .unwrap()
        .1;
    assert!(memory.ends_with(&bed.id));
    cgroup.set_frozen(true, bounds::FREEZE).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.set_frozen(false, bounds::FREEZE).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    assert_eq!(cgroup.oom_kills(), 0);
    cgroup.signal_all(libc::SIGCONT).unwrap();
    cgroup.set_frozen(true, bounds::FREEZE).unwrap();
    cgroup.kill_all().unwrap();
    assert_eq!(container.wait(), ProcessExit::Signal(libc::SIGKILL));
}

#[test]
fn a_container_over_its_memory_is_told_by_its_cgroup() {
    let mut bed = Bed::new("x=a; while :; do x=$x$x; done");
    bed.plan.cgroup.resources.memory = Some(16 << 20);
    let mut container = bed.launch().unwrap();
    assert_eq!(container.wait(), ProcessExit::Signal(libc::SIGKILL));
    assert!(container.built.cgroup.oom_kills() > 0);
}

#[test]
fn the_container_sees_only_its_own_cgroup_and_cannot_write_it() {
    let output = Bed::new("ls /sys/fs/cgroup; find /sys/fs/cgroup -name cgroup.procs | wc -l; (mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x) 2>&1; true").output();
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(!output.contains("littlebox-test"), "{output}");
}
