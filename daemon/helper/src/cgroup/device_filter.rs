//! The device filter of cgroup v2: rules as a BPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx` for every open and mknod of a device node
//! and allows what it returns 1 for. The rules are tried from the last to the first; each settles
//! the kinds of access that it is about, until none is left or one is denied.

use super::device_rules;
use crate::sys::Instruction;
use littlebox_protocol::{DeviceAccess, DeviceKind, DeviceRule};

/// `BPF_LDX | BPF_MEM | BPF_W`: a 32-bit load.
const LOAD: u8 = 0x61;
/// `BPF_ALU | BPF_AND | BPF_K`.
const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`.
const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const SET: u8 = 0xb7;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const COPY: u8 = 0xbf;
/// `BPF_JMP | BPF_JNE | BPF_K`.
const JUMP_UNEQUAL: u8 = 0x55;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_EQUAL: u8 = 0x15;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;

/// The verdict, and scratch.
const RESULT: u8 = 0;
/// The context that the kernel passes.
const CONTEXT: u8 = 1;
/// `BPF_DEVCG_DEV_*`.
const KIND: u8 = 2;
/// `BPF_DEVCG_ACC_*` that are not settled yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for these rules.
pub fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        // access_type: access << 16 | kind
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    let rules = device_rules::effective(rules);
    for rule in rules.iter().rev() {
        code.extend(rule_code(rule));
    }
    // After a rule for everything nothing may follow: the kernel's verifier refuses what is never
    // reached (EINVAL).
    if !rules.first().is_some_and(device_rules::is_for_all) {
        code.extend(verdict(false));
    }
    code
}

fn rule_code(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Char => Some(2),
    };
    let mut conditions = Vec::new();
    for (register, wanted) in [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        let Some(wanted) = wanted else { continue };
        // The kernel's numbers have 20 bits at most: a larger one never matches.
        let Ok(wanted) = i32::try_from(wanted) else {
            return Vec::new();
        };
        conditions.push((register, wanted));
    }
    let decision = decision(rule);
    let mut code = Vec::new();
    for (i, (register, wanted)) in conditions.iter().enumerate() {
        let skipped = conditions.len() - i - 1 + decision.len();
        code.push(jump(JUMP_UNEQUAL, *register, *wanted, skipped));
    }
    code.extend(decision);
    code
}

/// What happens when the rule matches.
fn decision(rule: &DeviceRule) -> Vec<Instruction> {
    let access = bits(rule.access);
    let verdict = verdict(rule.allow);
    if rule.access == DeviceAccess::ALL {
        return verdict.to_vec();
    }
    let mut code = if rule.allow {
        vec![
            instruction(AND, ACCESS, 0, 0, !access & 0x7),
            jump(JUMP_UNEQUAL, ACCESS, 0, verdict.len()),
        ]
    } else {
        vec![
            instruction(COPY, RESULT, ACCESS, 0, 0),
            instruction(AND, RESULT, 0, 0, access),
            jump(JUMP_EQUAL, RESULT, 0, verdict.len()),
        ]
    };
    code.extend(verdict);
    code
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        instruction(SET, RESULT, 0, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// `BPF_DEVCG_ACC_MKNOD`, `_READ`, `_WRITE`.
fn bits(access: DeviceAccess) -> i32 {
    i32::from(access.mknod) | i32::from(access.read) << 1 | i32::from(access.write) << 2
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

fn jump(code: u8, register: u8, value: i32, skipped: usize) -> Instruction {
    // At most three conditions and five instructions.
    let offset = i16::try_from(skipped).unwrap_or(i16::MAX);
    instruction(code, register, 0, offset, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::device_rules::tests::rules;
    use super::*;

    /// Interprets the few instructions that are used; panics on a jump out of the program.
    fn run(code: &[Instruction], access_type: u32, major: u32, minor: u32) -> u64 {
        let context = [access_type, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let Instruction {
                code: operation,
                registers: pair,
                offset,
                immediate,
            } = code[at];
            let (to, from) = (usize::from(pair & 0xf), usize::from(pair >> 4));
            let constant = u64::from(immediate.cast_unsigned());
            at += 1;
            match operation {
                LOAD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = context[usize::try_from(offset).unwrap() / 4].into();
                }
                AND => registers[to] = registers[to] & 0xffff_ffff & constant,
                SHIFT_RIGHT => registers[to] = (registers[to] & 0xffff_ffff) >> constant,
                SET => registers[to] = constant,
                COPY => registers[to] = registers[from],
                JUMP_UNEQUAL if registers[to] != constant => {
                    at += usize::try_from(offset).unwrap();
                }
                JUMP_EQUAL if registers[to] == constant => {
                    at += usize::try_from(offset).unwrap();
                }
                JUMP_UNEQUAL | JUMP_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    /// The meaning of the rules, said in another way: each kind of access by its last match.
    fn allowed(rules: &[DeviceRule], kind: u32, major: u32, minor: u32, access: i32) -> bool {
        [1, 2, 4]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| {
                let last = rules.iter().rev().find(|rule| {
                    let kind_matches = match rule.kind {
                        DeviceKind::All => true,
                        DeviceKind::Block => kind == 1,
                        DeviceKind::Char => kind == 2,
                    };
                    kind_matches
                        && rule.major.is_none_or(|m| m == major)
                        && rule.minor.is_none_or(|m| m == minor)
                        && bits(rule.access) & bit != 0
                });
                last.is_some_and(|rule| rule.allow)
            })
    }

    fn verdict_of(texts: &[&str], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        run(&program(&rules(texts)), access << 16 | kind, major, minor) == 1
    }

    #[test]
    fn what_no_rule_matches_is_denied() {
        assert!(!verdict_of(&[], 2, 1, 3, 2));
        assert!(!verdict_of(&["allow c 1:3 rwm"], 2, 1, 5, 2));
        assert!(
            !verdict_of(&["allow c 1:3 rwm"], 1, 1, 3, 2),
            "a block device"
        );
        assert!(verdict_of(&["allow c 1:3 rwm"], 2, 1, 3, 6));
    }

    #[test]
    fn the_last_match_decides_for_each_kind_of_access() {
        let some = ["allow c *:* rwm", "deny c 1:* w", "allow c 1:3 w"];
        assert!(verdict_of(&some, 2, 1, 3, 6));
        assert!(verdict_of(&some, 2, 1, 5, 2));
        assert!(
            !verdict_of(&some, 2, 1, 5, 6),
            "reading and writing at once"
        );
        assert!(verdict_of(&some, 2, 4, 4, 7));
    }

    /// Where control may go from an instruction.
    fn successors(code: &[Instruction], at: usize) -> Vec<usize> {
        let jumped = at + 1 + usize::try_from(code[at].offset).unwrap_or(0);
        match code[at].code {
            EXIT => vec![],
            JUMP_EQUAL | JUMP_UNEQUAL => vec![at + 1, jumped],
            _ => vec![at + 1],
        }
    }

    /// The kernel's verifier refuses a program with an instruction that is never reached.
    fn all_reached(code: &[Instruction]) -> bool {
        let mut reached = vec![false; code.len()];
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            if !std::mem::replace(&mut reached[at], true) {
                todo.extend(successors(code, at));
            }
        }
        reached.into_iter().all(|r| r)
    }

    #[test]
    fn nothing_follows_a_rule_for_everything() {
        for texts in [
            &["deny a *:* rwm", "allow c 1:3 rwm"][..],
            &["allow c 1:3 rwm", "allow a *:* rwm"],
            &[],
        ] {
            assert!(all_reached(&program(&rules(texts))), "{texts:?}");
        }
    }

    #[test]
    fn a_number_that_no_device_has_matches_nothing() {
        assert!(!verdict_of(
            &["allow c 4294967295:* rwm"],
            2,
            u32::MAX,
            0,
            2
        ));
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop::option::of(0u32..3);
        let kind = prop_oneof![
            Just(DeviceKind::All),
            Just(DeviceKind::Block),
            Just(DeviceKind::Char)
        ];
        (any::<bool>(), kind, number(), number(), 1i32..8).prop_map(
            |(allow, kind, major, minor, access)| DeviceRule {
                allow,
                kind,
                major,
                minor,
                access: DeviceAccess {
                    mknod: access & 1 != 0,
                    read: access & 2 != 0,
                    write: access & 4 != 0,
                },
            },
        )
    }

    proptest! {
        #[test]
        fn the_program_does_what_the_rules_say(
            rules in prop::collection::vec(any_rule(), 0..12),
            kind in 1u32..3, major in 0u32..3, minor in 0u32..3, access in 1i32..8,
        ) {
            let code = program(&rules);
            prop_assert!(all_reached(&code));
            let access_type = access.cast_unsigned() << 16 | kind;
            let verdict = run(&code, access_type, major, minor) == 1;
            prop_assert_eq!(verdict, allowed(&rules, kind, major, minor, access));
        }
    }
}
