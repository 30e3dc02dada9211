//! What is accepted, what is refused and where, and what comes out.

mod bad;
mod random;

use std::collections::BTreeMap;

use littlebox_plan::{Envelope, ExecEnvelope};
use littlebox_protocol::{
    LaunchPlan, LogPlan, MountSource, NamespacePlan, RootfsSource, Step, UserRef,
};
use littlebox_types::{ExecConfig, MountConfig, MountKind, NamespaceType, Rlimit};
use serde_json::{Value, json};

use super::*;

fn id() -> ContainerId {
    "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap()
}

/// A container whose range of the pool begins at 700,000,000.
fn ctx(id: &ContainerId) -> SpecContext<'_> {
    static SECCOMP: std::sync::LazyLock<Compiler> =
        std::sync::LazyLock::new(|| Compiler::new((6, 1)));
    SpecContext {
        id,
        seccomp: &SECCOMP,
        range: Some(IdRange {
            first: 700_000_000,
            size: 65_536,
        }),
    }
}

fn base() -> ContainerConfig {
    ContainerConfig {
        rootfs: "dir:/srv/root".into(),
        command: vec!["sleep".into(), "10".into()],
        ..ContainerConfig::default()
    }
}

fn prepared(config: &ContainerConfig) -> Prepared {
    prepare(config, &ctx(&id())).unwrap()
}

fn log_plan() -> LogPlan {
    LogPlan {
        path: "/var/lib/littlebox/c/log".into(),
        max_size: None,
        max_files: 1,
    }
}

fn envelope(prepared: &Prepared) -> Envelope {
    let rootfs = RootfsSource::Overlay {
        lower: vec!["/srv/root".into()],
        upper: "/var/lib/littlebox/c/upper".into(),
        work: "/var/lib/littlebox/c/work".into(),
        volatile: false,
    };
    let joins = prepared
        .namespaces
        .iter()
        .filter(|(_, s)| matches!(s, NamespaceOrigin::Container(_) | NamespaceOrigin::Pid(_)))
        .enumerate()
        .map(|(i, (kind, _))| (*kind, i))
        .collect();
    Envelope {
        cgroup_path: Some("/littlebox/0123456789ab/c".into()),
        joins,
        user: Some(prepared.user.clone()),
        seccomp: prepared.seccomp.clone(),
        create_cwd: prepared.create_cwd,
        terminal_size: prepared.terminal_size,
        hidden: vec!["/var/lib/littlebox".into()],
        ..Envelope::new(
            id().to_string(),
            "/run/littlebox/c/x".into(),
            rootfs,
            log_plan(),
        )
    }
}

fn plan(config: &ContainerConfig) -> LaunchPlan {
    let prepared = prepared(config);
    littlebox_plan::launch_plan(&prepared.spec, envelope(&prepared)).unwrap()
}

fn exec_envelope() -> ExecEnvelope {
    ExecEnvelope {
        id: "e".into(),
        log: log_plan(),
        exit_record: "/run/x".into(),
        user: None,
        create_cwd: false,
        terminal_size: None,
        stdin: false,
        gate: false,
        seccomp: None,
        state: serde_json::Map::new(),
        timeout_ms: None,
        start_timeout_ms: None,
    }
}

/// The whole default plan: a change of a default is seen in review. After a wanted change write
/// the new one with `LITTLEBOX_WRITE_GOLDEN=1 cargo test -p littleboxd default_plan`.
#[test]
fn default_plan_is_the_golden_one() {
    let config = ContainerConfig {
        rootfs: "host".into(),
        ..base()
    };
    let mut plan = plan(&config);
    // Tested where it is made, and another one on each architecture.
    plan.process.seccomp.as_mut().unwrap().program.0.clear();
    let json = serde_json::to_string_pretty(&plan).unwrap() + "\n";
    if std::env::var_os("LITTLEBOX_WRITE_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/spec/golden/default-plan.json"
        );
        std::fs::write(path, &json).unwrap();
    }
    assert_eq!(json, include_str!("../golden/default-plan.json"));
}

#[test]
fn default_capabilities_are_eleven_and_nothing_is_inheritable() {
    let sets = plan(&base()).process.capabilities;
    assert_eq!(sets.bounding.count_ones(), 11);
    assert_eq!(
        (sets.permitted, sets.effective),
        (sets.bounding, sets.bounding)
    );
    assert_eq!((sets.inheritable, sets.ambient), (0, 0));
    for name in ["MKNOD", "NET_RAW", "AUDIT_WRITE", "SYS_ADMIN"] {
        let number = littlebox_plan::capability::number(name).unwrap();
        assert_eq!(sets.bounding >> number & 1, 0, "{name}");
    }
}

#[test]
fn dropping_comes_before_adding() {
    let mut config = base();
    config.capabilities.drop = vec!["ALL".into()];
    config.capabilities.add = vec!["cap_net_raw".into(), "KILL".into()];
    assert_eq!(
        plan(&config).process.capabilities.bounding,
        1 << 13 | 1 << 5
    );
}

#[test]
fn privileged_takes_the_covers_off() {
    let plan = plan(&ContainerConfig {
        privileged: true,
        ..base()
    });
    assert_eq!(
        plan.process.capabilities.bounding,
        littlebox_plan::capability::ALL_MASK
    );
    // What the daemon hides stays hidden.
    assert_eq!(plan.masked_paths, [PathBuf::from("/var/lib/littlebox")]);
    assert!(plan.readonly_paths.is_empty());
    let sys = plan
        .mounts
        .iter()
        .find(|m| m.destination.ends_with("sys"))
        .unwrap();
    assert!(!sys.attrs.read_only);
}

#[test]
fn host_name_is_the_random_end_of_the_id() {
    assert_eq!(plan(&base()).hostname.as_deref(), Some("0c1d2e3f4a5b"));
    assert!(
        plan(&base())
            .process
            .env
            .contains(&"HOSTNAME=0c1d2e3f4a5b".to_owned())
    );
    let shared = BTreeMap::from([(NamespaceType::Uts, NamespaceSource::Host)]);
    let plan = plan(&ContainerConfig {
        namespaces: shared,
        ..base()
    });
    assert_eq!(plan.hostname, None);
    assert!(!plan.process.env.iter().any(|e| e.starts_with("HOSTNAME=")));
}

#[test]
fn namespaces_are_new_shared_or_joined() {
    let asked = json!({"net": "host", "pid": "container:db", "ipc": "pid:1", "user": "new"});
    let config = changed(json!({"namespaces": asked}));
    let plan = plan(&config);
    assert_eq!(plan.namespaces.get(&NamespaceKind::Net), None);
    assert!(!plan.loopback_up);
    assert!(matches!(
        plan.namespaces[&NamespaceKind::Pid],
        NamespacePlan::Join(_)
    ));
    assert!(matches!(
        plan.namespaces[&NamespaceKind::Ipc],
        NamespacePlan::Join(_)
    ));
    assert_eq!(plan.namespaces[&NamespaceKind::User], NamespacePlan::New);
    assert_eq!(plan.uid_map[0].host_id, 700_000_000);
    assert_eq!(
        prepared(&config).namespaces[&NamespaceKind::Pid],
        NamespaceOrigin::Container("db".into())
    );
}

#[test]
fn environment_of_the_request_comes_instead_of_defaults() {
    let env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    let plan = plan(&ContainerConfig {
        env,
        terminal: true,
        ..base()
    });
    assert_eq!(
        plan.process
            .env
            .iter()
            .filter(|e| e.starts_with("PATH="))
            .count(),
        1
    );
    assert!(plan.process.env.contains(&"PATH=/bin".to_owned()));
    assert!(plan.process.env.contains(&"TERM=xterm".to_owned()));
    assert_eq!(
        plan.process.terminal,
        Some(TerminalSize { rows: 24, cols: 80 })
    );
}

#[test]
fn the_user_arrives_in_the_plan() {
    let user = |text: &str| {
        plan(&ContainerConfig {
            user: Some(text.parse().unwrap()),
            ..base()
        })
        .process
        .user
    };
    let both = user("www-data:0");
    assert_eq!(both.user, UserRef::Name("www-data".into()));
    assert_eq!(both.group, Some(UserRef::Id(0)));
    assert_eq!(plan(&base()).process.user, user("0"));
}

#[test]
fn limits_arrive_in_the_plan() {
    let mut config = base();
    config.resources.memory = Some(64 << 20);
    config.resources.memory_swap = Some(-1);
    config.resources.cpus = Some(1.5);
    config.resources.cpu_weight = Some(250);
    config.resources.pids_limit = Some(-1);
    let limits = plan(&config).cgroup.resources;
    assert_eq!(limits.memory, Some(64 << 20));
    assert_eq!(limits.memory_and_swap, Some(u64::MAX));
    assert_eq!(
        (limits.cpu_quota_us, limits.cpu_period_us),
        (Some(150_000), Some(100_000))
    );
    assert_eq!(limits.cpu_weight, Some(250));
    assert_eq!(limits.pids, Some(u64::MAX));
    assert_eq!(plan(&base()).cgroup.resources.pids, Some(2048));
}

#[test]
fn core_dumps_are_off_unless_asked_for() {
    let core = |plan: &LaunchPlan| {
        let limit = plan
            .process
            .rlimits
            .iter()
            .find(|l| l.resource == "core")
            .unwrap()
            .clone();
        (limit.soft, limit.hard)
    };
    assert_eq!(core(&plan(&base())), (Some(1), Some(1)));
    let rlimits = BTreeMap::from([(
        "core".to_owned(),
        Rlimit {
            soft: Some(1),
            hard: None,
        },
    )]);
    assert_eq!(
        core(&plan(&ContainerConfig { rlimits, ..base() })),
        (Some(1), None)
    );
}

#[test]
fn a_read_only_bind_is_read_only_to_its_depth() {
    let bind = MountConfig {
        kind: MountKind::Bind,
        source: Some("/data/".into()),
        destination: "/mnt//data".into(),
        read_only: true,
        recursive: None,
        propagation: None,
        create: true,
        idmap: None,
        size: None,
        mode: None,
        options: vec!["nosuid".into()],
    };
    let config = ContainerConfig {
        mounts: vec![bind],
        ..base()
    };
    assert_eq!(prepared(&config).create_sources, [PathBuf::from("/data")]);
    let mount = plan(&config).mounts.pop().unwrap();
    assert_eq!(mount.destination, PathBuf::from("/mnt/data"));
    assert_eq!(
        mount.source,
        MountSource::Bind {
            path: "/data".into(),
            recursive: true,
            inside: None,
        }
    );
    assert!(mount.attrs.read_only && mount.attrs.recursive && mount.attrs.nosuid);
}

#[test]
fn a_host_root_hides_run() {
    let host = plan(&ContainerConfig {
        rootfs: "host".into(),
        ..base()
    });
    assert!(
        host.mounts
            .iter()
            .any(|m| m.destination == std::path::Path::new("/run"))
    );
    assert!(
        !plan(&base())
            .mounts
            .iter()
            .any(|m| m.destination == std::path::Path::new("/run"))
    );
}

#[test]
fn no_device_node_is_made_in_a_bound_dev() {
    let mut config = base();
    config.mounts = vec![
        serde_json::from_str(r#"{"type": "bind", "source": "/dev", "destination": "/dev"}"#)
            .unwrap(),
    ];
    assert!(plan(&config).devices.is_empty());
    assert_eq!(plan(&base()).devices.len(), 6);
}

#[test]
fn a_failure_is_injected_by_a_label() {
    let with = |text: &str| {
        let labels = BTreeMap::from([("littlebox.test/inject".to_owned(), text.to_owned())]);
        prepared(&ContainerConfig { labels, ..base() }).inject
    };
    assert_eq!(
        with("pivot_root:5"),
        Some(Injection {
            step: Step::PivotRoot,
            errno: 5
        })
    );
    for text in [
        "",
        "pivot_root",
        "pivot_root:-1",
        "nothing:5",
        "pivot_root:EIO",
    ] {
        assert_eq!(with(text), None, "{text}");
    }
}

#[test]
fn an_exec_stands_on_its_container() {
    let mut container = base();
    container.env = BTreeMap::from([("A".into(), "1".into()), ("B".into(), "1".into())]);
    container.working_dir = Some("/srv".into());
    container.user = "7:8".parse().ok();
    container.capabilities.drop = vec!["KILL".into()];
    let mut exec = ExecConfig {
        command: vec!["id".into()],
        ..ExecConfig::default()
    };
    exec.env = BTreeMap::from([("B".into(), "2".into())]);
    exec.capabilities.add = vec!["SYS_PTRACE".into()];
    let prepared = exec_process(&exec, &container, &ctx(&id())).unwrap();
    let plan = littlebox_plan::exec_plan(&prepared.process, exec_envelope())
        .unwrap()
        .process;
    assert!(plan.env.contains(&"A=1".into()) && plan.env.contains(&"B=2".into()));
    assert!(!plan.env.contains(&"B=1".into()));
    assert!(plan.env.contains(&"HOSTNAME=0c1d2e3f4a5b".into()));
    assert_eq!(plan.cwd, PathBuf::from("/srv"));
    assert_eq!(
        (plan.user.user, plan.user.group),
        (UserRef::Id(7), Some(UserRef::Id(8)))
    );
    assert_eq!(plan.capabilities.bounding >> 5 & 1, 0);
    assert_eq!(plan.capabilities.bounding >> 19 & 1, 1);
    assert!(plan.no_new_privileges);
}

#[test]
fn a_user_of_the_exec_brings_its_own_group() {
    let container = ContainerConfig {
        user: "7:8".parse().ok(),
        ..base()
    };
    let exec = ExecConfig {
        command: vec!["id".into()],
        user: "daemon".parse().ok(),
        ..ExecConfig::default()
    };
    let user = exec_process(&exec, &container, &ctx(&id())).unwrap().user;
    assert_eq!(
        (user.user, user.group),
        (UserRef::Name("daemon".into()), None)
    );
}

fn changed(config: Value) -> ContainerConfig {
    let mut body = serde_json::to_value(base()).unwrap();
    body.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    serde_json::from_value(body).unwrap()
}

#[test]
fn a_filter_is_on_unless_it_is_switched_off() {
    let own = json!({"defaultAction": "SCMP_ACT_LOG"});
    for (config, profile) in [
        (json!({}), Some("default")),
        (json!({"seccomp": "default"}), Some("default")),
        (json!({"seccomp": "unconfined"}), None),
        (json!({"privileged": true}), None),
        (
            json!({"privileged": true, "seccomp": "default"}),
            Some("default"),
        ),
        (json!({"seccomp": own}), Some("its own")),
        (json!({"privileged": true, "seccomp": own}), Some("its own")),
    ] {
        let container = changed(config.clone());
        let filter = prepared(&container).seccomp;
        assert_eq!(
            filter.as_ref().map(|f| f.profile.as_str()),
            profile,
            "{config}"
        );

        let mut exec = ExecConfig {
            command: vec!["id".into()],
            ..ExecConfig::default()
        };
        let of_exec = exec_process(&exec, &container, &ctx(&id()))
            .unwrap()
            .seccomp;
        assert_eq!(of_exec, filter, "{config}");
        exec.privileged = true;
        let of_exec = exec_process(&exec, &container, &ctx(&id()))
            .unwrap()
            .seccomp;
        assert_eq!(of_exec, None, "{config}");
    }
}

#[test]
fn a_filter_follows_the_capabilities() {
    let mut container = base();
    let plain = prepared(&container).seccomp;
    container.capabilities.add = vec!["SYS_ADMIN".into()];
    let more = prepared(&container).seccomp;
    assert_ne!(more, plain);
    let mut exec = ExecConfig {
        command: vec!["id".into()],
        ..ExecConfig::default()
    };
    exec.capabilities.drop = vec!["SYS_ADMIN".into()];
    let of_exec = exec_process(&exec, &container, &ctx(&id()))
        .unwrap()
        .seccomp;
    assert_eq!(of_exec, plain);
}

#[test]
fn mounts_come_after_those_of_the_directories_above_them() {
    let tmpfs = |destination: &str| json!({"type": "tmpfs", "destination": destination});
    let config = |mounts: Value| ContainerConfig {
        mounts: serde_json::from_value(mounts).unwrap(),
        ..base()
    };
    let asked = config(json!([
        tmpfs("/a/b/c"),
        tmpfs("/z/y"),
        tmpfs("/a"),
        tmpfs("/a/b/")
    ]));
    let planned = plan(&asked).mounts;
    let last: Vec<_> = planned[planned.len() - 4..]
        .iter()
        .map(|m| m.destination.to_str().unwrap())
        .collect();
    assert_eq!(last, ["/a", "/z/y", "/a/b", "/a/b/c"]);

    let twice = config(json!([tmpfs("/a/b"), tmpfs("/c"), tmpfs("/a//b/")]));
    let error = prepare(&twice, &ctx(&id())).unwrap_err();
    assert_eq!(error.pointer, "/mounts/2/destination");
    assert!(error.detail.contains("/mounts/0"), "{}", error.detail);
}
