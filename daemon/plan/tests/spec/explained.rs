//! Plans as people read them.

use super::*;

pub fn commands(plan: &LaunchPlan, step: Step) -> Vec<String> {
    explain(plan)
        .into_iter()
        .find(|s| s.step == step)
        .map(|s| s.commands)
        .unwrap_or_default()
}

#[test]
fn steps_are_explained_once_and_in_order() {
    let steps: Vec<Step> = explain(&good(json!({}))).iter().map(|s| s.step).collect();
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
    for step in explain(&plan) {
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
