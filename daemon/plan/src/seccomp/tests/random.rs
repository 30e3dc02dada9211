//! Random profiles and calls against a direct reading of the profile.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::profile::{Action, Circumstances, Condition, Op, Rule};
use super::*;

/// Some that exist on every architecture, some that do not.
const NAMES: [&str; 12] = [
    "read",
    "write",
    "openat",
    "socket",
    "clone",
    "clone3",
    "mseal",
    "ioctl",
    "open",
    "chown32",
    "arch_prctl",
    "no_such_call",
];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Allow),
        3 => (0u16..4096).prop_map(Action::Errno),
        1 => (0u16..4096).prop_map(Action::Trace),
        1 => Just(Action::KillThread),
        1 => Just(Action::KillProcess),
        1 => Just(Action::Trap),
        1 => Just(Action::Log),
    ]
}

/// Values around which comparisons change.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..6,
        1 => Just(u64::from(u32::MAX)),
        1 => Just(u64::from(u32::MAX) + 1),
        1 => (0u64..4).prop_map(|n| n << 32 | 2),
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => any::<u64>(),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        Just(Op::MaskedEq),
    ];
    (0u8..3, op, value(), value()).prop_map(|(index, op, value, value_two)| Condition {
        index,
        op,
        value,
        value_two,
    })
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    let arches = prop_oneof![
        6 => Just(vec![]),
        1 => Just(vec!["amd64".to_owned()]),
        1 => Just(vec!["arm64".to_owned(), "x86".to_owned()]),
    ];
    let kernel = prop_oneof![6 => Just(None), 1 => Just(Some((4, 8))), 1 => Just(Some((7, 0)))];
    let caps =
        prop_oneof![6 => Just(0), 1 => Just(1u64), 1 => Just(SYS_ADMIN), 1 => Just(1 | SYS_ADMIN)];
    (caps, arches, kernel).prop_map(|(capabilities, arches, min_kernel)| Circumstances {
        capabilities,
        arches,
        min_kernel,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = vec(
        proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
        1..4,
    );
    (
        names,
        action(),
        vec(condition(), 0..3),
        circumstances(),
        circumstances(),
    )
        .prop_map(|(names, action, conditions, includes, excludes)| Rule {
            names,
            action,
            conditions,
            includes,
            excludes,
        })
}

fn profile() -> impl Strategy<Value = Profile> {
    let guests = prop_oneof![
        Just(vec![]),
        Just(vec![Arch::X86]),
        Just(vec![Arch::Arm, Arch::X86_64])
    ];
    (action(), guests, vec(rule(), 0..12)).prop_map(|(default, guests, rules)| Profile {
        default,
        guests,
        flags: 0,
        listener: None,
        rules,
    })
}

/// What the profile says, read as its documentation tells.
fn expected(profile: &Profile, target: &Target, call: &Call) -> u32 {
    let arches = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];
    let arch = arches
        .into_iter()
        .find(|arch| arch.audit() == call.arch)
        .unwrap();
    let runs = arch == target.arch
        || profile.guests.contains(&arch) && target.arch.guests().contains(&arch);
    if !runs {
        return KILL_PROCESS;
    }
    let named = |rule: &Rule| {
        rule.names
            .iter()
            .any(|name| arch.number(name) == Some(call.nr))
    };
    let mut rules: Vec<&Rule> = profile.rules.iter().filter(|r| named(r)).collect();
    rules.retain(|rule| {
        let Circumstances {
            capabilities,
            arches,
            min_kernel,
        } = &rule.includes;
        (0..64).all(|n| capabilities >> n & 1 == 0 || target.capabilities >> n & 1 == 1)
            && (arches.is_empty() || arches.contains(&target.arch.short_name().to_owned()))
            && min_kernel.is_none_or(|kernel| kernel <= target.kernel)
            && (0..64).all(|n| {
                rule.excludes.capabilities >> n & 1 == 0 || target.capabilities >> n & 1 == 0
            })
            && !rule
                .excludes
                .arches
                .contains(&target.arch.short_name().to_owned())
            && rule
                .excludes
                .min_kernel
                .is_none_or(|kernel| kernel > target.kernel)
    });
    rules.sort_by_key(|rule| rule.conditions.is_empty());
    let first = rules.iter().find(|rule| fits(&rule.conditions, call));
    if let Some(rule) = first {
        return rule.action.code();
    }
    let newest = profile
        .rules
        .iter()
        .flat_map(|r| &r.names)
        .filter_map(|n| arch.number(n))
        .max();
    let x32 = arch == Arch::X86_64 && call.nr >= 0x4000_0000;
    if x32 || profile.default.denies() && call.nr > newest.unwrap_or(0).max(423) {
        return errno(38);
    }
    profile.default.code()
}

fn fits(conditions: &[Condition], call: &Call) -> bool {
    let holds = |c: &Condition| {
        let a = call.args[usize::from(c.index)];
        match c.op {
            Op::Ne => a != c.value,
            Op::Lt => a < c.value,
            Op::Le => a <= c.value,
            Op::Eq => a == c.value,
            Op::Ge => a >= c.value,
            Op::Gt => a > c.value,
            Op::MaskedEq => a & c.value == c.value_two & c.value,
        }
    };
    let mut indices: Vec<u8> = conditions.iter().map(|c| c.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() < conditions.len() {
        conditions.iter().any(holds)
    } else {
        conditions.iter().all(holds)
    }
}

/// Numbers of what the profiles name, and around them.
fn number() -> impl Strategy<Value = u32> {
    let arch = proptest::sample::select(&[Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm][..]);
    let name = proptest::sample::select(&NAMES[..]);
    prop_oneof![
        6 => (arch, name).prop_map(|(arch, name)| arch.number(name).unwrap_or(7)),
        2 => 0u32..500,
        1 => Just(0x4000_0000),
        1 => Just(0x4000_0001),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let arch =
        proptest::sample::select(&[Arch::X86_64, Arch::X86_64, Arch::X86, Arch::Aarch64][..]);
    let one =
        (arch, number(), vec(value(), 6)).prop_map(|(arch, nr, args)| Call::new(arch, nr, &args));
    vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_does_what_its_profile_says(
        profile in profile(),
        calls in calls(),
        capabilities in prop_oneof![Just(0u64), Just(1), Just(SYS_ADMIN), Just(u64::MAX)],
        arch in proptest::sample::select(&[Arch::X86_64, Arch::Aarch64][..]),
    ) {
        let target = target(arch, capabilities);
        let program = compile::program(&profile, &target);
        for call in &calls {
            prop_assert_eq!(
                run(&program, call), expected(&profile, &target, call), "{:x?} in {:?}", call, profile
            );
        }
    }

    #[test]
    fn the_default_program_does_what_the_default_profile_says(
        calls in calls(),
        capabilities in prop_oneof![Just(DEFAULT_CAPABILITIES), Just(0), Just(u64::MAX)],
    ) {
        let profile = Profile::read(&default_profile()).unwrap();
        let target = target(Arch::X86_64, capabilities);
        let program = compile::program(&profile, &target);
        for call in &calls {
            prop_assert_eq!(run(&program, call), expected(&profile, &target, call), "{:x?}", call);
        }
    }
}
