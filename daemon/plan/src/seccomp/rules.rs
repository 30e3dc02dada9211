//! From a profile to what happens to each call of one architecture.
//!
//! How rules of one call go together, where the specification is silent:
//!
//! - A rule with conditions comes before one without, whatever their order: a special case is
//!   written to be one. Among equals the first that fits counts.
//! - Several conditions about one argument are alternatives, and make the others of their rule
//!   alternatives too. So it is in runc and crun, on whose users' profiles it was tried.

use std::collections::BTreeMap;

use super::arch::{self, Arch};
use super::profile::{Action, Circumstances, Condition, Profile, Rule};
use super::{ENOSYS, Target};

/// The last number that every profile is taken to know. Architectures have numbered their calls
/// alike since 424 of Linux 5.1: what lies above came later, and programs fall back without it.
const ALWAYS_KNOWN: u32 = 423;

/// What happens to calls of one architecture.
#[derive(Debug)]
pub(super) struct Decisions {
    /// By number; what is not here is `otherwise`.
    pub(super) calls: BTreeMap<u32, Decision>,
    /// Calls that no rule names.
    pub(super) otherwise: Action,
    /// Numbers above this one answer ENOSYS: the profile is older than they are, and a program
    /// that hears "not there" instead of "forbidden" goes another way. `None` when the profile
    /// does not deny by default.
    pub(super) last_known: Option<u32>,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// The first whose conditions all hold counts.
    pub(super) clauses: Vec<Clause>,
    /// When none does.
    pub(super) otherwise: Action,
}

/// Conditions that must all hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// The decisions of a profile for the calls of `arch`.
pub(super) fn decide(profile: &Profile, target: &Target, arch: Arch) -> Decisions {
    let mut calls: BTreeMap<u32, (Vec<Clause>, Option<Action>)> = BTreeMap::new();
    let mut last_known = ALWAYS_KNOWN;
    for rule in &profile.rules {
        let applies = applies(rule, target);
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            if number < arch::PRIVATE {
                last_known = last_known.max(number);
            }
            if !applies {
                continue;
            }
            let (clauses, otherwise) = calls.entry(number).or_default();
            if rule.conditions.is_empty() {
                otherwise.get_or_insert(rule.action);
            } else {
                clauses.extend(self::clauses(rule));
            }
        }
    }
    let decision = |(clauses, otherwise): (Vec<Clause>, Option<Action>)| {
        simplified(clauses, otherwise.unwrap_or(profile.default))
    };
    Decisions {
        calls: calls
            .into_iter()
            .map(|(number, parts)| (number, decision(parts)))
            .collect(),
        otherwise: profile.default,
        last_known: profile.default.denies().then_some(last_known),
    }
}

/// Whether execve(2) may be made, with some arguments at least.
pub(super) fn may_execute(profile: &Profile, target: &Target) -> bool {
    let decisions = decide(profile, target, target.arch);
    let execve = target.arch.number("execve");
    let decision = execve.and_then(|number| decisions.calls.get(&number));
    let possible = |action: Action| matches!(action, Action::Allow | Action::Log | Action::Notify);
    decision.map_or(possible(decisions.otherwise), |decision| {
        let mut clauses = decision.clauses.iter();
        possible(decision.otherwise) || clauses.any(|clause| possible(clause.action))
    })
}

/// Names in rules that leave a call to the agent, of calls that the machine has.
pub(super) fn notified_names(profile: &Profile, target: &Target) -> Vec<String> {
    let of_rule = |rule: &&Rule| rule.action == Action::Notify && applies(rule, target);
    let names = profile.rules.iter().filter(of_rule).flat_map(|r| &r.names);
    let is_there = |name: &&String| {
        let guests = target.arch.guests().iter();
        let wanted = guests.filter(|guest| profile.guests.contains(guest));
        let mut arches = wanted.chain([&target.arch]);
        arches.any(|arch| arch.number(name).is_some())
    };
    let mut notified: Vec<String> = names.filter(is_there).cloned().collect();
    notified.sort();
    notified.dedup();
    notified
}

/// Names in rules that apply and that no architecture here knows.
pub(super) fn unknown_names(profile: &Profile, target: &Target) -> Vec<String> {
    let applied = profile.rules.iter().filter(|rule| applies(rule, target));
    let mut unknown: Vec<String> = applied
        .flat_map(|rule| &rule.names)
        .filter(|name| !arch::is_known(name))
        .cloned()
        .collect();
    unknown.sort();
    unknown.dedup();
    unknown
}

/// Whether a rule counts for this target: Docker's reading of `includes` and `excludes`.
pub(super) fn applies(rule: &Rule, target: &Target) -> bool {
    let Circumstances {
        capabilities,
        arches,
        min_kernel,
    } = &rule.includes;
    let native = |arches: &[String]| arches.iter().any(|a| a == target.arch.short_name());
    let included = target.capabilities & capabilities == *capabilities
        && (arches.is_empty() || native(arches))
        && min_kernel.is_none_or(|min| target.kernel >= min);
    let excluded = target.capabilities & rule.excludes.capabilities != 0
        || native(&rule.excludes.arches)
        || rule
            .excludes
            .min_kernel
            .is_some_and(|min| target.kernel >= min);
    included && !excluded
}

fn clauses(rule: &Rule) -> Vec<Clause> {
    let clause = |conditions: &[Condition]| Clause {
        conditions: conditions.to_vec(),
        action: rule.action,
    };
    let mut seen = [false; 6];
    let doubled = rule
        .conditions
        .iter()
        .any(|c| std::mem::replace(&mut seen[usize::from(c.index)], true));
    if doubled {
        return rule.conditions.chunks(1).map(clause).collect();
    }
    vec![clause(&rule.conditions)]
}

/// Without clauses at the end that make no difference.
fn simplified(mut clauses: Vec<Clause>, otherwise: Action) -> Decision {
    while clauses
        .last()
        .is_some_and(|clause| clause.action == otherwise)
    {
        clauses.pop();
    }
    Decision { clauses, otherwise }
}

/// ENOSYS.
pub(super) const NOT_THERE: Action = Action::Errno(ENOSYS);
