//! From decisions to a program.
//!
//! ```text
//! load arch ── native? ── load nr ── tree over ranges of numbers ──┬── return
//!          └── guest?  ── load nr ── tree ...                      └── arguments ── return
//!          └── any other: kill
//! ```
//!
//! Neighbouring numbers with one outcome are one range, and a balanced tree of comparisons finds
//! the range: a few instructions per call, where one comparison per rule would be hundreds. The
//! kernel also runs the program once per call number when it is loaded, to remember which calls
//! are always allowed (Linux 5.11), so a shallow tree loads faster.

use std::collections::BTreeSet;

use littlebox_protocol::BpfProgram;

use super::Target;
use super::arch::Arch;
use super::assembler::{Assembler, Label, Test};
use super::profile::{Action, Condition, Op, Profile};
use super::rules::{Clause, Decision, Decisions, NOT_THERE, decide};

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Numbers with this bit are x32's, on the entry and with the audit architecture of x86_64. They
/// answer ENOSYS as on a kernel without x32; else a rule that denies a call of x86_64 would be
/// evaded by the same call with the bit set.
const X32_BIT: u32 = 0x4000_0000;

/// A call by a foreign entry ends the process. Its numbers mean other calls, so an errno would be
/// answered to a question that was not understood; and a program of that architecture cannot work
/// anyway when all it hears is errors.
const FOREIGN: Action = Action::KillProcess;

/// The program of a profile.
pub(super) fn program(profile: &Profile, target: &Target) -> BpfProgram {
    let mut out = Assembler::default();
    let guests = target.arch.guests().iter();
    let wanted = guests.filter(|guest| profile.guests.contains(guest));
    let mut start = out.ret(FOREIGN.code());
    for arch in wanted.chain([&target.arch]) {
        let calls = decide(profile, target, *arch);
        let tree = calls_of(&mut out, &calls, *arch);
        let load = out.load(NR, tree);
        start = out.test(Test::Eq, arch.audit(), load, start);
    }
    out.load(ARCH, start);
    BpfProgram(out.finish())
}

/// The first number of a range, and where its calls go; sorted, the first begins at 0.
type Ranges = Vec<(u32, Label)>;

fn calls_of(out: &mut Assembler, decisions: &Decisions, arch: Arch) -> Label {
    let otherwise = out.ret(decisions.otherwise.code());
    let mut ranges = Ranges::new();
    let mut next = Some(0);
    for (number, decision) in &decisions.calls {
        if next != Some(*number) {
            extend(&mut ranges, next.unwrap_or(0), otherwise);
        }
        extend(&mut ranges, *number, self::decision(out, decision));
        next = number.checked_add(1);
    }
    if let Some(next) = next {
        extend(&mut ranges, next, otherwise);
    }
    let not_there = out.ret(NOT_THERE.code());
    if let Some(last) = decisions.last_known {
        extend(&mut ranges, last + 1, not_there);
    }
    if arch == Arch::X86_64 {
        extend(&mut ranges, X32_BIT, not_there);
    }
    tree(out, &ranges)
}

/// Adds a range, unless it goes on with the one before.
fn extend(ranges: &mut Ranges, first: u32, label: Label) {
    while ranges.last().is_some_and(|(start, _)| *start >= first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, before)| *before != label) {
        ranges.push((first, label));
    }
}

/// Finds the range of what was loaded.
fn tree(out: &mut Assembler, ranges: &[(u32, Label)]) -> Label {
    match ranges {
        [] => unreachable!("there is a range from 0 on"),
        [(_, only)] => *only,
        // A single number between two ranges of one outcome.
        [(_, around), (number, inside), (after, same)]
            if around == same && *after == number + 1 =>
        {
            out.test(Test::Eq, *number, *inside, *around)
        }
        ranges => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let first = high[0].0;
            let high = tree(out, high);
            let low = tree(out, low);
            out.test(Test::Ge, first, high, low)
        }
    }
}

fn decision(out: &mut Assembler, decision: &Decision) -> Label {
    if let Some(ranges) = one_argument(decision) {
        return argument_ranges(out, &ranges);
    }
    let mut no = out.ret(decision.otherwise.code());
    for clause in decision.clauses.iter().rev() {
        no = self::clause(out, clause, no);
    }
    no
}

fn clause(out: &mut Assembler, clause: &Clause, no: Label) -> Label {
    let mut yes = out.ret(clause.action.code());
    for condition in clause.conditions.iter().rev() {
        yes = self::condition(out, condition, yes, no);
    }
    yes
}

/// One comparison of 64 bits: the upper word decides unless it is equal.
fn condition(out: &mut Assembler, condition: &Condition, yes: Label, no: Label) -> Label {
    let (low, high) = offsets(condition.index);
    let Words { low: l, high: h } = words(condition.value);
    match condition.op {
        Op::Eq | Op::Ne => {
            let (yes, no) = match condition.op {
                Op::Eq => (yes, no),
                _ => (no, yes),
            };
            let lower = out.test(Test::Eq, l, yes, no);
            let lower = out.load(low, lower);
            let upper = out.test(Test::Eq, h, lower, no);
            out.load(high, upper)
        }
        Op::Gt | Op::Le => {
            let swap = condition.op == Op::Le;
            above(
                out,
                condition,
                Test::Gt,
                if swap { (no, yes) } else { (yes, no) },
            )
        }
        Op::Ge | Op::Lt => {
            let swap = condition.op == Op::Lt;
            above(
                out,
                condition,
                Test::Ge,
                if swap { (no, yes) } else { (yes, no) },
            )
        }
        Op::MaskedEq => masked(out, condition, yes, no),
    }
}

/// Greater, or with `Test::Ge` greater or equal.
fn above(
    out: &mut Assembler,
    condition: &Condition,
    test: Test,
    (yes, no): (Label, Label),
) -> Label {
    let (low, high) = offsets(condition.index);
    let Words { low: l, high: h } = words(condition.value);
    let lower = out.test(test, l, yes, no);
    let lower = out.load(low, lower);
    let equal = out.test(Test::Eq, h, lower, no);
    let upper = out.test(Test::Gt, h, yes, equal);
    out.load(high, upper)
}

/// `argument & value == value_two`. Bits of `value_two` outside of the mask do not count, as in
/// libseccomp.
fn masked(out: &mut Assembler, condition: &Condition, yes: Label, no: Label) -> Label {
    let (low, high) = offsets(condition.index);
    let mask = words(condition.value);
    let wanted = words(condition.value & condition.value_two);
    let mut next = yes;
    for (offset, mask, wanted) in [(low, mask.low, wanted.low), (high, mask.high, wanted.high)] {
        if mask == 0 {
            continue;
        }
        next = out.test(Test::Eq, wanted, next, no);
        if mask != u32::MAX {
            next = out.and(mask, next);
        }
        next = out.load(offset, next);
    }
    next
}

struct Words {
    low: u32,
    high: u32,
}

fn words(value: u64) -> Words {
    let [low @ .., e, f, g, h] = value.to_le_bytes();
    Words {
        low: u32::from_le_bytes(low),
        high: u32::from_le_bytes([e, f, g, h]),
    }
}

/// Offsets of an argument's lower and upper word: every architecture here is little endian.
fn offsets(index: u8) -> (u32, u32) {
    let low = ARGS + 8 * u32::from(index);
    (low, low + 4)
}

/// A decision by one argument alone, as ranges of it.
struct OneArgument {
    index: u8,
    /// By the lower word, where the upper one is 0; sorted, the first begins at 0.
    low: Vec<(u32, Action)>,
    /// Where it is not.
    above: Action,
}

/// The tree of the numbers once more. Only where every bound fits into the lower word, which those
/// of real profiles do.
fn one_argument(decision: &Decision) -> Option<OneArgument> {
    let index = decision.clauses.first()?.conditions.first()?.index;
    let mut bounds = BTreeSet::from([0]);
    for clause in &decision.clauses {
        let [condition] = clause.conditions.as_slice() else {
            return None;
        };
        if condition.index != index || condition.op == Op::MaskedEq {
            return None;
        }
        bounds.extend(
            [Some(condition.value), condition.value.checked_add(1)]
                .into_iter()
                .flatten(),
        );
    }
    let mut ranges: Vec<(u64, Action)> = Vec::new();
    for start in bounds {
        let action = outcome(decision, start);
        if ranges.last().is_none_or(|(_, before)| *before != action) {
            ranges.push((start, action));
        }
    }
    let above = ranges.last()?.1;
    let mut low = Vec::with_capacity(ranges.len());
    for (start, action) in ranges {
        match u32::try_from(start) {
            Ok(start) => low.push((start, action)),
            // The last range may begin with the upper word, none within it.
            Err(_) if start == u64::from(u32::MAX) + 1 => {}
            Err(_) => return None,
        }
    }
    Some(OneArgument { index, low, above })
}

fn outcome(decision: &Decision, argument: u64) -> Action {
    let fits = |c: &Condition| match c.op {
        Op::Ne => argument != c.value,
        Op::Lt => argument < c.value,
        Op::Le => argument <= c.value,
        Op::Eq => argument == c.value,
        Op::Ge => argument >= c.value,
        Op::Gt => argument > c.value,
        Op::MaskedEq => argument & c.value == c.value & c.value_two,
    };
    let first = decision
        .clauses
        .iter()
        .find(|clause| clause.conditions.iter().all(fits));
    first.map_or(decision.otherwise, |clause| clause.action)
}

fn argument_ranges(out: &mut Assembler, ranges: &OneArgument) -> Label {
    let (low, high) = offsets(ranges.index);
    let labels: Ranges = ranges
        .low
        .iter()
        .map(|(start, action)| (*start, out.ret(action.code())))
        .collect();
    let above = out.ret(ranges.above.code());
    let lower = tree(out, &labels);
    let lower = out.load(low, lower);
    let upper = out.test(Test::Eq, 0, lower, above);
    out.load(high, upper)
}
