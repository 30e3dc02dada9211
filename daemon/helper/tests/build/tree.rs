//! The tree of files that a container sees.

use super::*;

#[test]
fn the_tree_has_what_was_planned_and_nothing_of_the_host() {
    let mounts = Bed::new("cat /proc/self/mountinfo").output();
    let points: Vec<&str> = mounts
        .lines()
        .map(|l| l.split(' ').nth(4).unwrap())
        .collect();
    let planned = [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
    ];
    assert_eq!(points[..planned.len()], planned);
    for foreign in ["/etc", "/mnt", "/run", "/home"] {
        assert!(
            !points.iter().any(|point| point.starts_with(foreign)),
            "{mounts}"
        );
    }
    // Nothing is shared with the host.
    assert!(
        !mounts.contains("shared:") && !mounts.contains("master:"),
        "{mounts}"
    );
}

#[test]
fn devices_are_nodes_that_work_and_links() {
    let script = "echo lost > /dev/null; head -c 2 /dev/zero | wc -c; cat /dev/fd/0 < /dev/null; \
                  ls -l /dev/ptmx /dev/stdout /dev/core | sed 's/.*-> //'; ls /dev";
    let output = Bed::new(script).output();
    assert_eq!(
        output,
        "2\n/proc/kcore\npts/ptmx\n/proc/self/fd/1\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\n\
         random\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
}

#[test]
fn masked_paths_read_empty_and_read_only_ones_refuse() {
    let script = "wc -c < /proc/interrupts; ls /sys/firmware | wc -l; \
                  (echo 1 > /proc/sys/kernel/panic) 2>&1; (mkdir /sys/x) 2>&1; \
                  (touch /sys/firmware/x) 2>&1; true";
    let output = Bed::new(script).output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["0", "0"]);
    assert!(
        lines[2..]
            .iter()
            .all(|line| line.contains("Read-only file system")),
        "{output}"
    );
    assert_eq!(lines.len(), 5);
}

#[test]
fn a_missing_mount_source_is_told_by_its_path() {
    let mut bed = Bed::new("");
    bed.plan.mounts.push(bind(
        "/no/such/source".as_ref(),
        "/mnt",
        MountAttrs::default(),
    ));
    let failure = bed.failure();
    assert_eq!((failure.step, failure.errno), (Step::Mounts, libc::ENOENT));
    assert_eq!(failure.path.as_deref(), Some("/no/such/source"));
}

#[test]
fn binds_carry_files_and_directories_and_can_be_read_only() {
    let mut bed = Bed::new("cat /data/file /etc/one; (echo x > /data/file) 2>&1; mkdir /rw/made");
    fs::create_dir(bed.path("source")).unwrap();
    fs::write(bed.path("source/file"), "content\n").unwrap();
    let read_only = MountAttrs {
        read_only: true,
        ..MountAttrs::default()
    };
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), "/data", read_only));
    bed.plan
        .mounts
        .push(bind(&bed.path("source/file"), "/etc/one", read_only));
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), "/rw", MountAttrs::default()));
    let output = bed.output();
    assert!(output.starts_with("content\ncontent\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(bed.path("source/made").is_dir());
}

#[test]
fn a_tmpfs_can_start_with_what_the_image_has() {
    let mut bed = Bed::new("cat /etc/sub/x; ls -l /etc/sub/x | cut -c1-10; touch /etc/new");
    fs::create_dir(bed.path("root/etc/sub")).unwrap();
    fs::write(bed.path("root/etc/sub/x"), "copied\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(bed.path("root/etc/sub/x"), mode).unwrap();
    let mut tmpfs = mount("/etc", "tmpfs", &["size=1m"], MountAttrs::default());
    let MountSource::Filesystem { copy_up, .. } = &mut tmpfs.source else {
        panic!()
    };
    *copy_up = true;
    bed.plan.mounts.push(tmpfs);
    assert_eq!(bed.output(), "copied\n-rw-r-----\n");
    assert!(!bed.path("upper/etc").exists());
}

#[test]
fn a_read_only_root_refuses_writes_but_has_its_mounts() {
    let mut bed = Bed::new("(touch /x) 2>&1; touch /dev/shm/x && echo shm");
    bed.plan.rootfs.read_only = true;
    let output = bed.output();
    assert!(
        output.contains("Read-only file system") && output.ends_with("shm\n"),
        "{output}"
    );
}

#[test]
fn links_in_the_image_stay_inside_the_root() {
    let mut bed = Bed::new("cat /link/canary");
    let canary = bed.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(bed.path("source"), "bound\n").unwrap();
    std::os::unix::fs::symlink(&canary, bed.path("root/link")).unwrap();
    let target = format!("{}/canary", canary.display());
    bed.plan
        .mounts
        .push(bind(&bed.path("source"), &target, MountAttrs::default()));
    assert_eq!(bed.output(), "bound\n");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
}

#[test]
fn an_image_with_a_linked_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let bed = Bed::new("");
        std::os::unix::fs::symlink("/etc", bed.path("root").join(name)).unwrap();
        let failure = bed.failure();
        assert_eq!((failure.step, failure.errno), (Step::Mounts, libc::ELOOP));
    }
}

#[test]
fn an_image_with_a_linked_dev_does_not_lead_outside() {
    let bed = Bed::new("ls /etc/null");
    std::os::unix::fs::symlink("/etc", bed.path("root/dev")).unwrap();
    assert_eq!(bed.output(), "/etc/null\n");
}

#[test]
fn the_machines_own_root_can_be_the_base() {
    let mut bed = Bed::new("");
    bed.plan.process.args = ["/bin/ls", "/etc/passwd"].map(str::to_owned).into();
    let RootfsSource::Overlay { lower, .. } = &mut bed.plan.rootfs.source else {
        panic!()
    };
    *lower = vec!["/".into()];
    assert_eq!(bed.output(), "/etc/passwd\n");
}

#[test]
fn a_container_in_the_hosts_mount_namespace_mounts_nothing() {
    let mut bed = Bed::new("busybox readlink /proc/self/ns/mnt");
    bed.plan.namespaces.remove(&NamespaceKind::Mnt);
    let before = Leftovers::take();
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(bed.output().trim(), host.to_str().unwrap());
    Leftovers::take().assert_same(&before, &bed.id);
}
