//! Whatever is asked: no panic, and what is accepted can be planned, explained and sent.

use std::fmt::Debug;
use std::str::FromStr;

use littlebox_types::{
    CapabilityChange, ContainerConfig, IdMap, IdMaps, LogConfig, MountConfig, MountKind,
    NamespaceSource, NamespaceType, Resources, RestartMode, RestartPolicy, Rlimit, Seccomp,
    TermSize, TimeOffset, TimeOffsets,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use littlebox_protocol::cgroup::Layout;

use super::*;

/// Mostly something that makes sense, sometimes anything.
fn text(sensible: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(sensible).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

/// One of these texts, as a value.
fn value<T: FromStr + Debug>(texts: &'static [&'static str]) -> impl Strategy<Value = T> {
    proptest::sample::select(texts).prop_map(|text| text.parse().ok().expect("a value"))
}

fn path() -> impl Strategy<Value = String> {
    text(&[
        "/", "/a", "/dev", "/dev/x", "/proc/x", "/a/../b", "/a//b", "", "rel", "/run", "/sys",
    ])
}

fn mount() -> impl Strategy<Value = MountConfig> {
    (
        (
            any::<bool>(),
            of(path()),
            path(),
            any::<bool>(),
            of(any::<bool>()),
        ),
        (
            of(value(&["rslave", "private", "rshared"])),
            any::<bool>(),
            of(any::<u64>()),
            of(any::<bool>()),
        ),
        (
            of(value(&["1777", "755", "0"])),
            vec(text(&["nosuid", "noexec", "noatime"]), 0..3),
        ),
    )
        .prop_map(
            |(
                (bind, source, destination, read_only, recursive),
                (propagation, create, size, idmap),
                (mode, options),
            )| {
                MountConfig {
                    kind: if bind {
                        MountKind::Bind
                    } else {
                        MountKind::Tmpfs
                    },
                    source,
                    destination,
                    read_only,
                    recursive,
                    propagation,
                    create,
                    idmap,
                    size,
                    mode,
                    options,
                }
            },
        )
}

fn resources() -> impl Strategy<Value = Resources> {
    (
        (
            of(0u64..1 << 40),
            of(-1i64..1 << 40),
            of(0u64..1 << 40),
            of(any::<f64>()),
        ),
        (
            of(0u64..20_000),
            of(text(&["0", "0-3,7", "1-"])),
            of(text(&["0"])),
            of(-2i64..1 << 23),
        ),
    )
        .prop_map(
            |(
                (memory, memory_swap, memory_reservation, cpus),
                (cpu_weight, cpuset_cpus, cpuset_mems, pids_limit),
            )| {
                Resources {
                    memory,
                    memory_swap,
                    memory_reservation,
                    cpus,
                    cpu_weight,
                    cpuset_cpus,
                    cpuset_mems,
                    pids_limit,
                    ..Resources::default()
                }
            },
        )
}

fn id_maps() -> impl Strategy<Value = IdMaps> {
    let line =
        (0u32..100_000, any::<u32>(), 0u32..100_000).prop_map(|(container_id, host_id, size)| {
            IdMap {
                container_id,
                host_id,
                size,
            }
        });
    (vec(line.clone(), 0..4), vec(line, 0..4)).prop_map(|(uid, gid)| IdMaps { uid, gid })
}

fn changes() -> impl Strategy<Value = CapabilityChange> {
    let names = || vec(text(&["ALL", "NET_ADMIN", "cap_kill", "CAP_BPF"]), 0..3);
    (names(), names()).prop_map(|(add, drop)| CapabilityChange { add, drop })
}

const TYPES: &[&str] = &["uts", "ipc", "net", "pid", "user", "cgroup", "time"];
const SOURCES: &[&str] = &["new", "host", "container:web", "pid:1"];
const NAMES: &[&str] = &["box", "a.b-c", "-x", ""];
const SYSCTLS: &[&str] = &[
    "net.ipv4.ip_forward",
    "kernel.sem",
    "kernel.hostname",
    "fs.mqueue.x",
    "vm.x",
];

/// What a configuration says of how closed the container is, and nothing else.
fn isolation() -> impl Strategy<Value = ContainerConfig> {
    let offset = || {
        let secs = prop_oneof![any::<i64>(), -5_000_000_000i64..5_000_000_000];
        of((secs, 0u32..2_000_000_000).prop_map(|(secs, nanos)| TimeOffset { secs, nanos }))
    };
    (
        of(vec(path(), 0..3)),
        of(vec(path(), 0..3)),
        of(
            (offset(), offset()).prop_map(|(monotonic, boottime)| TimeOffsets {
                monotonic,
                boottime,
            }),
        ),
    )
        .prop_map(
            |(masked_paths, readonly_paths, time_offsets)| ContainerConfig {
                masked_paths,
                readonly_paths,
                time_offsets,
                ..ContainerConfig::default()
            },
        )
}

fn config() -> impl Strategy<Value = ContainerConfig> {
    let first = (
        text(&["host", "dir:/srv", "dir:/"]),
        vec(text(&["sh", "-c", "true"]), 1..4),
        btree_map(text(&["A", "PATH", "HOME"]), any::<String>(), 0..3),
        of(path()),
        of(value(&["0", "root:adm", "1000:1000"])),
        vec(value(&["adm", "4"]), 0..3),
        of(value(&["022", "777", "0"])),
        of(text(NAMES)),
        of(text(NAMES)),
    );
    let second = (
        btree_map(
            text(&["a", "littlebox.test/inject"]),
            text(&["exec:2", "x"]),
            0..3,
        ),
        any::<(bool, bool, bool, bool, bool, bool, bool)>(),
        of(value(&["rprivate", "shared", "slave"])),
        vec(mount(), 0..4),
        btree_map(value(TYPES), value(SOURCES), 0..4),
        of(id_maps()),
        resources(),
        btree_map(
            text(&["nofile", "core", "nice"]),
            (of(any::<u64>()), of(any::<u64>())).prop_map(|(soft, hard)| Rlimit { soft, hard }),
            0..3,
        ),
    );
    let third = (
        btree_map(text(SYSCTLS), text(&["1", "a b"]), 0..2),
        changes(),
        of(-1001i32..=1001),
        of(value(&["TERM", "9", "RTMIN+1"])),
        of(any::<u32>()),
        of((of(any::<u64>()), of(0u32..2000))),
        of(any::<(u16, u16)>()),
        of(restart()),
        of(seccomp()),
    );
    (first, second, third, isolation()).prop_map(|(a, b, c, closed)| {
        let flags = b.1;
        ContainerConfig {
            name: None,
            rootfs: a.0,
            command: a.1,
            env: a.2,
            working_dir: a.3,
            user: a.4,
            groups: a.5,
            umask: a.6,
            hostname: a.7,
            domainname: a.8,
            labels: b.0,
            terminal: flags.0,
            stdin: flags.1,
            attach: flags.2,
            auto_remove: flags.3,
            init: flags.4,
            read_only: flags.5,
            privileged: flags.6,
            propagation: b.2,
            mounts: b.3,
            namespaces: b.4,
            id_maps: b.5,
            resources: b.6,
            rlimits: b.7,
            sysctls: c.0,
            capabilities: c.1,
            no_new_privileges: None,
            seccomp: c.8,
            oom_score_adj: c.2,
            stop_signal: c.3,
            stop_timeout_s: c.4,
            restart: c.7,
            log: c.5.map(|(max_size, max_files)| LogConfig {
                max_size,
                max_files,
            }),
            terminal_size: c.6.map(|(rows, cols)| TermSize { rows, cols }),
            ..closed
        }
    })
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    let policy = prop_oneof![
        Just(RestartMode::No),
        Just(RestartMode::OnFailure),
        Just(RestartMode::Always),
        Just(RestartMode::UnlessStopped),
    ];
    (policy, of(0u32..3)).prop_map(|(policy, max_retries)| RestartPolicy {
        policy,
        max_retries,
    })
}

/// A sensible request with one part of a random one, so that most are accepted.
fn nearly_good() -> impl Strategy<Value = ContainerConfig> {
    (config(), 0..13u8).prop_map(|(r, part)| {
        let mut good = base();
        match part {
            0 => good.mounts = r.mounts,
            1 => good.namespaces = r.namespaces,
            2 => good.resources = r.resources,
            3 => good.rlimits = r.rlimits,
            4 => (good.sysctls, good.labels) = (r.sysctls, r.labels),
            5 => {
                (good.capabilities, good.privileged) = (r.capabilities, r.privileged);
                good.seccomp = r.seccomp;
            }
            6 => (good.user, good.groups, good.umask) = (r.user, r.groups, r.umask),
            7 => (good.hostname, good.domainname) = (r.hostname, r.domainname),
            8 => {
                good.id_maps = r.id_maps;
                good.namespaces = BTreeMap::from([(NamespaceType::User, NamespaceSource::New)]);
            }
            9 => (good.env, good.working_dir) = (r.env, r.working_dir),
            10 => {
                (good.masked_paths, good.readonly_paths) = (r.masked_paths, r.readonly_paths);
                good.time_offsets = r.time_offsets;
            }
            11 => (good.rootfs, good.command) = (r.rootfs, r.command),
            _ => {
                (good.terminal, good.terminal_size, good.init) =
                    (r.terminal, r.terminal_size, r.init)
            }
        }
        good
    })
}

fn seccomp() -> impl Strategy<Value = Seccomp> {
    let action = text(&["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"]);
    let names = vec(text(&["read", "clone", "none_such"]), 0..3);
    prop_oneof![
        Just(Seccomp::Default),
        Just(Seccomp::Unconfined),
        (action, names, any::<u64>()).prop_map(|(action, names, value)| {
            let args = json!([{"index": value % 7, "value": value, "op": "SCMP_CMP_GE"}]);
            let rule = json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
            let profile = json!({"defaultAction": action, "syscalls": [rule]});
            Seccomp::Profile(profile.as_object().unwrap().clone())
        }),
    ]
}

fn accepted_is_plannable(config: &ContainerConfig) {
    let Ok(prepared) = prepare(config, &ctx(&id())) else {
        return;
    };
    let plan = littlebox_plan::launch_plan(&prepared.spec, envelope(&prepared))
        .unwrap_or_else(|error| panic!("{error}: {config:?}"));
    assert!(littlebox_plan::explain::explain(&plan, Layout::detect()).len() > 10);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<LaunchPlan>(&json).unwrap(), plan);

    let exec = ExecConfig {
        command: vec!["true".into()],
        ..ExecConfig::default()
    };
    let exec = exec_process(&exec, config, &ctx(&id())).unwrap();
    littlebox_plan::exec_plan(&exec.process, exec_envelope()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_config_is_refused_or_planned(config in config()) {
        accepted_is_plannable(&config);
    }

    #[test]
    fn a_nearly_good_config_is_refused_or_planned(config in nearly_good()) {
        accepted_is_plannable(&config);
    }

    #[test]
    fn names_never_panic(n in any::<i32>()) {
        signal_name(n);
        errno_name(n);
    }
}
