//! The default profile, single profiles, and what is refused.

use super::machine::run_counting;
use super::*;

#[test]
fn the_default_profile_is_small_on_every_architecture() {
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
        for capabilities in [0, DEFAULT_CAPABILITIES, u64::MAX] {
            let program = compiled(&default_profile(), &target(arch, capabilities));
            let len = program.0.len();
            assert!(len < 300, "{arch:?} {capabilities:x}: {len} instructions");
            let read = call(arch, "read", &[]);
            let (verdict, steps) = run_counting(&program, &read);
            assert_eq!(verdict, ALLOW);
            assert!(steps < 16, "{steps} instructions for a read");
        }
    }
}

#[test]
fn the_default_profile_names_only_calls_that_exist() {
    let profile = Profile::read(&default_profile()).unwrap();
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let plan = compile(&profile, &target(arch, u64::MAX), "default").unwrap();
        assert_eq!(plan.unknown, Vec::<String>::new(), "{arch:?}");
    }
}

#[test]
fn the_default_profile_denies_what_breaks_out() {
    let program = compiled(&default_profile(), &x86_64());
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "settimeofday",
        "clock_settime",
        "open_by_handle_at",
        "kcmp",
        "pidfd_getfd",
        "process_madvise",
        "syslog",
        "iopl",
        "ioperm",
        "quotactl",
        "nfsservctl",
        "lookup_dcookie",
        "vhangup",
        "uselib",
        "ustat",
        "sysfs",
        "_sysctl",
        "mbind",
        "move_pages",
        "migrate_pages",
        "set_mempolicy",
        "modify_ldt",
        "sethostname",
        "setdomainname",
        "fanotify_init",
    ] {
        assert_eq!(verdict(&program, name, &[]), EPERM, "{name}");
    }
    for (name, args) in [
        ("clone", &[0x1000_0000][..]), // CLONE_NEWUSER
        ("clone", &[0x0002_0011]),     // CLONE_NEWNS
        ("clone", &[0x0200_0000]),     // CLONE_NEWCGROUP
        ("socket", &[38, 5, 0]),       // AF_ALG
        ("socket", &[40, 1, 0]),       // AF_VSOCK
        ("socket", &[17, 3, 768]),     // AF_PACKET
        ("socket", &[1 << 32 | 38]),   // AF_ALG to a kernel that reads 32 bits
        ("socket", &[0x0001_0000_0001]),
        ("socketpair", &[30, 1, 0]),     // AF_TIPC
        ("personality", &[0x0040_0000]), // READ_IMPLIES_EXEC
        ("ioctl", &[0, 0x5412]),         // TIOCSTI
        ("ioctl", &[0, 0x5412 | 1 << 40]),
        ("ioctl", &[0, 0x541c]), // TIOCLINUX
    ] {
        assert_eq!(verdict(&program, name, args), EPERM, "{name} {args:x?}");
    }
    assert_eq!(
        verdict(&program, "socket", &[16, 3, 9]),
        errno(22),
        "NETLINK_AUDIT"
    );
    assert_eq!(
        verdict(&program, "socket", &[16 | 1 << 32, 3, 9 | 1 << 32]),
        errno(22)
    );
    assert_eq!(verdict(&program, "clone3", &[]), errno(38));
}

#[test]
fn the_default_profile_allows_what_programs_need() {
    let program = compiled(&default_profile(), &x86_64());
    for (name, args) in [
        ("execve", &[][..]),
        ("openat", &[]),
        ("clone", &[0x003d_0f00]), // a thread
        ("clone", &[0x11]),        // fork
        ("socket", &[1, 1]),
        ("socket", &[2, 1]),
        ("socket", &[10, 2]),
        ("socket", &[16, 3, 0]),
        ("socketpair", &[1, 1]),
        ("personality", &[0xffff_ffff]),
        ("ioctl", &[0, 0x5413]), // TIOCGWINSZ
        ("chroot", &[]),
        ("ptrace", &[]),
        ("rseq", &[]),
        ("futex_waitv", &[]),
        ("landlock_restrict_self", &[]),
    ] {
        assert_eq!(verdict(&program, name, args), ALLOW, "{name} {args:x?}");
    }
}

#[test]
fn what_is_newer_than_the_profile_is_not_there() {
    let program = compiled(&default_profile(), &x86_64());
    let known = Arch::X86_64.number("open_tree_attr").unwrap();
    assert_eq!(run(&program, &Call::new(Arch::X86_64, known, &[])), EPERM);
    for nr in [
        known + 1,
        600,
        1000,
        0x3fff_ffff,
        0x4000_0000,
        0x4000_0208,
        u32::MAX,
    ] {
        assert_eq!(
            run(&program, &Call::new(Arch::X86_64, nr, &[])),
            errno(38),
            "{nr:#x}"
        );
    }
    // A small profile is no old one: what was there before it is denied as it says.
    let small = json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
    let program = compiled(&small, &x86_64());
    assert_eq!(verdict(&program, "openat", &[]), 0);
    assert_eq!(verdict(&program, "openat2", &[]), errno(38));
}

#[test]
fn capabilities_open_what_they_are_for() {
    let closed = compiled(&default_profile(), &x86_64());
    let open = compiled(&default_profile(), &target(Arch::X86_64, SYS_ADMIN));
    for name in ["mount", "unshare", "setns", "bpf", "clone3"] {
        assert_ne!(verdict(&closed, name, &[]), ALLOW, "{name}");
        assert_eq!(verdict(&open, name, &[]), ALLOW, "{name}");
    }
    assert_eq!(verdict(&open, "clone", &[0x1000_0000]), ALLOW);
    assert_eq!(
        verdict(&open, "chroot", &[]),
        EPERM,
        "without CAP_SYS_CHROOT"
    );
    // Nothing opens these.
    let all = compiled(&default_profile(), &target(Arch::X86_64, u64::MAX));
    for name in ["io_uring_setup", "userfaultfd", "keyctl", "kexec_load"] {
        assert_eq!(verdict(&all, name, &[]), EPERM, "{name}");
    }
}

#[test]
fn foreign_entries_are_closed_unless_the_profile_names_them() {
    let native = compiled(&default_profile(), &x86_64());
    let getpid = call(Arch::X86, "getpid", &[]);
    assert_eq!(run(&native, &getpid), KILL_PROCESS);
    let mut profile = default_profile();
    profile["archMap"] = json!([{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]);
    assert_eq!(
        run(&compiled(&profile, &x86_64()), &getpid),
        KILL_PROCESS,
        "archMap is no wish"
    );
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let both = compiled(&profile, &x86_64());
    assert_eq!(run(&both, &getpid), ALLOW);
    assert_eq!(run(&both, &call(Arch::X86, "socketcall", &[])), EPERM);
    assert_eq!(run(&both, &call(Arch::X86, "socket", &[38])), EPERM);
    assert_eq!(run(&both, &call(Arch::X86, "mmap2", &[])), ALLOW);
    assert_eq!(run(&both, &call(Arch::X86_64, "getpid", &[])), ALLOW);
    assert_eq!(
        run(&both, &Call::new(Arch::X86_64, 0x4000_0027, &[])),
        errno(38),
        "x32"
    );
    assert_eq!(
        run(&both, &call(Arch::Aarch64, "getpid", &[])),
        KILL_PROCESS
    );
}

#[test]
fn a_profile_that_denies_little_cannot_be_evaded_by_another_entry() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    let program = compiled(&profile, &x86_64());
    assert_eq!(verdict(&program, "mkdir", &[]), EPERM);
    assert_eq!(verdict(&program, "mkdirat", &[]), ALLOW);
    assert_eq!(run(&program, &Call::new(Arch::X86_64, 9999, &[])), ALLOW);
    assert_eq!(
        run(&program, &Call::new(Arch::X86_64, 0x4000_0000 | 83, &[])),
        errno(38)
    );
    assert_eq!(run(&program, &call(Arch::X86, "mkdir", &[])), KILL_PROCESS);
}

#[test]
fn every_operator_at_its_edges() {
    let edges = [
        0,
        1,
        4,
        5,
        6,
        u64::from(u32::MAX),
        1 << 32,
        (1 << 32) + 5,
        5 << 32,
        6 << 32,
        u64::MAX,
    ];
    type Fits = fn(u64, u64) -> bool;
    let fits: [(&str, Fits); 6] = [
        ("NE", |a, v| a != v),
        ("LT", |a, v| a < v),
        ("LE", |a, v| a <= v),
        ("EQ", |a, v| a == v),
        ("GE", |a, v| a >= v),
        ("GT", |a, v| a > v),
    ];
    for (op, fits) in fits {
        for value in edges {
            // A second argument's condition keeps the compiler from making ranges of the first.
            for more in [
                json!([]),
                json!([{"index": 3, "value": 0, "op": "SCMP_CMP_EQ"}]),
            ] {
                let mut args =
                    vec![json!({"index": 1, "value": value, "op": format!("SCMP_CMP_{op}")})];
                args.extend(more.as_array().unwrap().clone());
                let profile = json!({"defaultAction": "SCMP_ACT_TRAP", "syscalls": [
                    {"name": "dup", "action": "SCMP_ACT_ALLOW", "args": args}]});
                let program = compiled(&profile, &x86_64());
                for argument in edges {
                    let allowed = verdict(&program, "dup", &[7, argument]) == ALLOW;
                    assert_eq!(
                        allowed,
                        fits(argument, value),
                        "{argument:#x} {op} {value:#x}"
                    );
                }
            }
        }
    }
    for (mask, wanted, argument, fits) in [
        (0xf0, 0x30, 0x3f, true),
        (0xf0, 0x30, 0x4f, false),
        (0xf0, 0x3f, 0x30, true), // bits outside of the mask do not count
        (0, 0, 5, true),
        (0xff << 32, 1 << 32, 1 << 32 | 77, true),
        (0xff << 32, 1 << 32, 2 << 32 | 77, false),
        (u64::MAX, u64::MAX, u64::MAX, true),
        (u64::MAX, u64::MAX, u64::MAX - 1, false),
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_TRAP", "syscalls": [
            {"name": "dup", "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": mask, "valueTwo": wanted, "op": "SCMP_CMP_MASKED_EQ"}]}]});
        let allowed = verdict(&compiled(&profile, &x86_64()), "dup", &[argument]) == ALLOW;
        assert_eq!(allowed, fits, "{argument:#x} & {mask:#x} == {wanted:#x}");
    }
}

#[test]
fn every_action_becomes_the_kernels_value() {
    for (action, errno_ret, value) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(4095), 0x0005_0fff),
        ("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_ALLOW", None, 0x7fff_0000),
    ] {
        let mut profile = json!({"defaultAction": action});
        if let Some(n) = errno_ret {
            profile["defaultErrnoRet"] = json!(n);
        }
        assert_eq!(
            verdict(&compiled(&profile, &x86_64()), "read", &[]),
            value,
            "{action}"
        );
    }
    let named =
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS"});
    assert_eq!(
        verdict(&compiled(&named, &x86_64()), "read", &[]),
        errno(38)
    );
}

#[test]
fn flags_are_the_kernels() {
    let flags = ["TSYNC", "LOG", "SPEC_ALLOW"].map(|f| format!("SECCOMP_FILTER_FLAG_{f}"));
    let profile =
        Profile::read(&json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).unwrap();
    assert_eq!(compile(&profile, &x86_64(), "x").unwrap().flags, 7);
}

#[test]
fn names_that_no_kernel_has_are_told() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["execve", "read", "chown32", "yet_to_come", "also_not"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["elsewhere"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}]});
    let plan = compile(&Profile::read(&profile).unwrap(), &x86_64(), "x").unwrap();
    assert_eq!(plan.unknown, ["also_not", "yet_to_come"]);
    assert_eq!(verdict(&plan.program, "read", &[]), ALLOW);
}

#[test]
fn many_rules_about_one_argument_become_few_comparisons() {
    let families: Vec<Value> = (0..46)
        .filter(|family| ![12, 20, 38, 40].contains(family))
        .map(|family| {
            json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": families});
    let program = compiled(&profile, &x86_64());
    assert!(program.0.len() < 30, "{} instructions", program.0.len());
    for family in 0..50 {
        let allowed = family < 46 && ![12, 20, 38, 40].contains(&family);
        assert_eq!(
            verdict(&program, "socket", &[family]) == ALLOW,
            allowed,
            "{family}"
        );
    }
}

#[test]
fn a_program_that_is_too_large_is_refused() {
    let rules: Vec<Value> = (0..1500u64)
        .map(|n| json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": n, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": n, "op": "SCMP_CMP_EQ"}]}))
        .collect();
    let profile =
        Profile::read(&json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": rules})).unwrap();
    let error = compile(&profile, &x86_64(), "x").unwrap_err();
    assert_eq!(error.pointer, "/syscalls");
    assert!(error.message.contains("4096"), "{error}");
}

#[test]
fn a_profile_under_which_nothing_starts_is_refused() {
    let rule =
        |action: &str, args: Value| json!({"names": ["execve"], "action": action, "args": args});
    let some = json!([{"index": 5, "value": 1, "op": "SCMP_CMP_EQ"}]);
    for (default, rules, refused) in [
        ("SCMP_ACT_ERRNO", json!([]), true),
        (
            "SCMP_ACT_KILL",
            json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]),
            true,
        ),
        (
            "SCMP_ACT_ALLOW",
            json!([rule("SCMP_ACT_ERRNO", json!([]))]),
            true,
        ),
        (
            "SCMP_ACT_ALLOW",
            json!([rule("SCMP_ACT_ERRNO", some.clone())]),
            false,
        ),
        (
            "SCMP_ACT_ERRNO",
            json!([rule("SCMP_ACT_ALLOW", some)]),
            false,
        ),
        (
            "SCMP_ACT_ERRNO",
            json!([rule("SCMP_ACT_LOG", json!([]))]),
            false,
        ),
        ("SCMP_ACT_LOG", json!([]), false),
    ] {
        let profile = json!({"defaultAction": default, "syscalls": rules});
        let compiled = compile(&Profile::read(&profile).unwrap(), &x86_64(), "x");
        assert_eq!(compiled.is_err(), refused, "{profile}");
    }
}

#[test]
fn long_ways_are_bridged() {
    // Several hundred instructions between a test and where it goes.
    let rules: Vec<Value> = (0..300u64)
        .map(|n| json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": n, "args": [
            {"index": 0, "value": n, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": n, "op": "SCMP_CMP_EQ"}]}))
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules});
    let program = compiled(&profile, &x86_64());
    for n in 0..300 {
        assert_eq!(
            verdict(&program, "socket", &[n, n]),
            errno(u32::try_from(n).unwrap())
        );
        assert_eq!(verdict(&program, "socket", &[n, n + 1]), 0);
    }
    assert_eq!(verdict(&program, "read", &[]), 0);
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let rule = |patch: Value| {
        let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        rule.as_object_mut()
            .unwrap()
            .extend(patch.as_object().unwrap().clone());
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"name": "dup", "action": "SCMP_ACT_LOG"}, rule]})
    };
    let arg = |patch: Value| {
        let mut arg = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
        arg.as_object_mut()
            .unwrap()
            .extend(patch.as_object().unwrap().clone());
        rule(json!({"args": [arg]}))
    };
    for (profile, pointer) in [
        (json!([]), ""),
        (json!("x"), ""),
        (json!({}), "/defaultAction"),
        (json!({"defaultAction": "ALLOW"}), "/defaultAction"),
        (json!({"defaultAction": 1}), "/defaultAction"),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "/defaultErrnoRet",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}),
            "/defaultErrnoRet",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EX"}),
            "/defaultErrno",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "/defaultErrnoRet",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoret": 1}),
            "/defaultErrnoret",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "a/b": 1}),
            "/a~1b",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X86"]}),
            "/architectures/0",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": "X86"}),
            "/architectures",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}),
            "/archMap/0/architecture",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86", "subArchitectures": ["Z"]}]}),
            "/archMap/0/subArchitectures/0",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", "X"]}),
            "/flags/1",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "run/x"}),
            "/listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "/listenerMetadata",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}),
            "/syscalls",
        ),
        (rule(json!({"action": null})), "/syscalls/1/action"),
        (rule(json!({"errnoRet": 1})), "/syscalls/1/errnoRet"),
        (rule(json!({"names": []})), "/syscalls/1/names"),
        (rule(json!({"names": [""]})), "/syscalls/1/names/0"),
        (rule(json!({"names": [1]})), "/syscalls/1/names/0"),
        (rule(json!({"name": "write"})), "/syscalls/1/name"),
        (rule(json!({"arg": []})), "/syscalls/1/arg"),
        (
            rule(json!({"includes": {"caps": ["CAP_X"]}})),
            "/syscalls/1/includes/caps/0",
        ),
        (
            rule(json!({"includes": {"cap": []}})),
            "/syscalls/1/includes/cap",
        ),
        (
            rule(json!({"excludes": {"minKernel": "new"}})),
            "/syscalls/1/excludes/minKernel",
        ),
        (
            rule(json!({"excludes": {"arches": "amd64"}})),
            "/syscalls/1/excludes/arches",
        ),
        (arg(json!({"index": 6})), "/syscalls/1/args/0/index"),
        (arg(json!({"index": null})), "/syscalls/1/args/0/index"),
        (arg(json!({"value": -1})), "/syscalls/1/args/0/value"),
        (arg(json!({"value": 1.5})), "/syscalls/1/args/0/value"),
        (arg(json!({"valueTwo": "1"})), "/syscalls/1/args/0/valueTwo"),
        (arg(json!({"op": "EQ"})), "/syscalls/1/args/0/op"),
    ] {
        let error = Profile::read(&profile).expect_err(&profile.to_string());
        assert_eq!(error.pointer, pointer, "{profile}: {error}");
        assert!(
            !error.message.ends_with('.') && error.message.len() < 200,
            "{error}"
        );
    }
}

#[test]
fn nulls_and_empty_parts_are_as_good_as_absent() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "archMap": null, "architectures": null, "flags": null,
        "listenerPath": "", "syscalls": [{"names": ["read"], "name": null, "action": "SCMP_ACT_ALLOW", "args": null,
        "comment": "", "includes": {}, "excludes": {"caps": null, "minKernel": ""}, "errno": "", "errnoRet": null}]});
    assert_eq!(verdict(&compiled(&profile, &x86_64()), "read", &[]), ALLOW);
}

#[test]
fn kernel_versions() {
    assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
    assert_eq!(kernel_version("4.8"), Some((4, 8)));
    assert_eq!(kernel_version("5"), None);
    assert_eq!(kernel_version("x.y"), None);
}

#[test]
fn a_compiler_tells_capabilities_and_profiles_apart() {
    let compiler = Compiler::new((6, 1));
    let closed = compiler.default_filter(DEFAULT_CAPABILITIES).unwrap();
    assert_ne!(compiler.default_filter(SYS_ADMIN).unwrap(), closed);
    assert_eq!(
        compiler.default_filter(DEFAULT_CAPABILITIES).unwrap(),
        closed
    );
    let custom = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    assert_eq!(compiler.filter(&custom, 0).unwrap().program.0.len(), 7);
    let other = json!({"defaultAction": "SCMP_ACT_LOG"});
    assert_ne!(
        compiler.filter(&custom, 0).unwrap(),
        compiler.filter(&other, 0).unwrap()
    );
}
