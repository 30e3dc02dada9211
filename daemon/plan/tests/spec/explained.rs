//! Plans as people read them.

use super::*;

/// A host with nothing but cgroup v2.
fn unified() -> Layout {
    Layout::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
        .offering("cpuset cpu io memory hugetlb pids rdma misc")
}

/// One that has its controllers on v1.
fn hybrid() -> Layout {
    Layout::parse(
        "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
         31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
         32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         33 23 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
         34 23 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
         35 23 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer",
    )
}

pub fn commands(plan: &LaunchPlan, step: Step) -> Vec<String> {
    explain(plan, &unified())
        .into_iter()
        .find(|s| s.step == step)
        .map(|s| s.commands)
        .unwrap_or_default()
}

#[test]
fn steps_are_explained_once_and_in_order() {
    let steps: Vec<Step> = explain(&good(json!({})), &unified())
        .iter()
        .map(|s| s.step)
        .collect();
    let mut sorted = steps.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(steps, sorted);
    for step in [
        Step::Clone,
        Step::Mounts,
        Step::Terminal,
        Step::PivotRoot,
        Step::ReadonlyRoot,
        Step::Exec,
    ] {
        assert!(steps.contains(&step), "{step:?}");
    }
    for step in [Step::IdMaps, Step::JoinNamespaces, Step::Sysctls] {
        assert!(!steps.contains(&step), "{step:?}");
    }
}

#[test]
fn commands_say_what_the_plan_does() {
    let plan = good(json!({
        "hostname": "my box",
        "process": {"args": ["sh", "-c", "echo 'hi' $HOME"]},
        "linux": {"resources": {"pids": {"limit": 2048}}}
    }));
    assert_eq!(commands(&plan, Step::Hostname), ["hostname 'my box'"]);
    assert_eq!(
        commands(&plan, Step::Clone),
        ["unshare --fork --mount --uts --ipc --net --pid sh"]
    );
    assert_eq!(
        commands(&plan, Step::PivotRoot),
        ["pivot_root . .", "umount -l .", "cd /"]
    );
    assert!(
        commands(&plan, Step::Cgroup)
            .contains(&"echo 2048 > /sys/fs/cgroup/littlebox/x/id/pids.max".into())
    );
    assert!(commands(&plan, Step::Mounts).contains(&"mount -t proc proc \"$ROOT\"/proc".into()));
    assert_eq!(
        commands(&plan, Step::Exec),
        [r"exec env -i PATH=/bin TERM=xterm sh -c 'echo '\''hi'\'' $HOME'"]
    );
}

#[test]
fn limits_are_written_where_this_host_has_them() {
    let plan = good(json!({"linux": {"resources": {
        "pids": {"limit": 7}, "memory": {"limit": 1_048_576}, "cpu": {"quota": 5000, "period": 10_000}
    }}}));
    let commands = |host: &Layout, step| {
        let explained = explain(&plan, host).into_iter().find(|s| s.step == step);
        explained.unwrap().commands
    };
    let v2 = commands(&unified(), Step::Cgroup);
    for command in [
        "mkdir -p /sys/fs/cgroup/littlebox/x/id",
        "echo '+cpu +io +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control",
        "echo '+cpu +io +memory +pids' > /sys/fs/cgroup/littlebox/x/cgroup.subtree_control",
        "echo 1048576 > /sys/fs/cgroup/littlebox/x/id/memory.max",
        "echo '5000 10000' > /sys/fs/cgroup/littlebox/x/id/cpu.max",
    ] {
        assert!(v2.contains(&command.to_owned()), "{command} in {v2:#?}");
    }
    assert_eq!(
        commands(&unified(), Step::CgroupAttach),
        ["echo $PID > /sys/fs/cgroup/littlebox/x/id/cgroup.procs"]
    );
    let v1 = commands(&hybrid(), Step::Cgroup);
    for command in [
        "mkdir -p /sys/fs/cgroup/unified/littlebox/x/id",
        "echo 7 > /sys/fs/cgroup/pids/littlebox/x/id/pids.max",
        "echo 1048576 > /sys/fs/cgroup/memory/littlebox/x/id/memory.limit_in_bytes",
        "echo 5000 > /sys/fs/cgroup/cpu,cpuacct/littlebox/x/id/cpu.cfs_quota_us",
    ] {
        assert!(v1.contains(&command.to_owned()), "{command} in {v1:#?}");
    }
    // Neither is needed by these limits.
    assert!(
        !v1.iter()
            .any(|c| c.contains("cpuset") || c.contains("freezer"))
    );
    let attach = commands(&hybrid(), Step::CgroupAttach);
    assert_eq!(attach.len(), 4, "{attach:?}");
}

#[test]
fn a_limit_that_this_host_cannot_express_is_said() {
    let plan = good(json!({"linux": {"resources": {"unified": {"memory.high": "1"}}}}));
    let step = explain(&plan, &hybrid())
        .into_iter()
        .find(|s| s.step == Step::Cgroup)
        .unwrap();
    assert!(
        step.what.contains("On this host that fails"),
        "{}",
        step.what
    );
}

#[test]
fn an_overlay_is_explained_with_its_directories() {
    let mut envelope = envelope();
    envelope.rootfs = RootfsSource::Overlay {
        lower: vec!["/a b".into(), "/c".into()],
        upper: "/u".into(),
        work: "/w".into(),
        volatile: true,
    };
    let plan = launch_plan(&patched(json!({})), envelope).unwrap();
    assert_eq!(
        commands(&plan, Step::Rootfs)[1],
        "mount -t overlay overlay -o 'lowerdir=/a b:/c,upperdir=/u,workdir=/w,volatile' \"$ROOT\""
    );
}

/// Every command must be something that a shell can read.
#[test]
fn commands_are_valid_shell() {
    let spec = patched(json!({
        "process": {"args": ["a\nb", "it's", "\u{1b}[2J"], "env": ["X=a b"]},
        "linux": {"sysctl": {"net.ipv4.ping_group_range": "0 1"}, "namespaces": [
            {"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "user"}, {"type": "cgroup"},
        ], "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
           "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}
    }));
    let mut envelope = envelope();
    envelope.joins = BTreeMap::from([(NamespaceKind::Pid, 0)]);
    envelope.hidden = vec!["/a 'b'".into()];
    let plan = launch_plan(&spec, envelope).unwrap();
    for step in explain(&plan, &unified()) {
        assert!(step.what.ends_with('.') && !step.what.contains(char::is_control));
        for command in step.commands {
            assert!(!command.contains(char::is_control), "{command:?}");
            let status = std::process::Command::new("bash")
                .args(["-n", "-c", &command])
                .status();
            assert!(status.unwrap().success(), "{command}");
        }
    }
}
