//! The device filter's rules: what they mean, and how the v1 devices controller is told.
//!
//! Rules are applied in order and the last one that matches decides, separately for reading,
//! writing and making; what no rule matches is denied. That is what the OCI runtime specification's
//! "entries are applied in the listed order" comes to, and what the v2 filter does exactly. The v1
//! controller keeps a default and a set of exceptions instead, which cannot express every list.

use littlebox_protocol::{DeviceAccess, DeviceKind, DeviceRule};

/// Whether the rules allow everything, so that no filter is needed.
pub fn allow_everything(rules: &[DeviceRule]) -> bool {
    let last_for_all = rules.iter().rposition(is_for_all);
    last_for_all.is_some_and(|last| rules[last..].iter().all(|rule| rule.allow))
}

/// Whether a rule decides about every device, whatever came before it.
pub fn is_for_all(rule: &DeviceRule) -> bool {
    rule.kind == DeviceKind::All
        && rule.major.is_none()
        && rule.minor.is_none()
        && rule.access == DeviceAccess::ALL
}

/// The rules from the last one on that decides about everything: those before it are void.
pub fn effective(rules: &[DeviceRule]) -> &[DeviceRule] {
    &rules[rules.iter().rposition(is_for_all).unwrap_or(0)..]
}

/// The rules that count, as `allow c 1:3 rwm`.
pub fn in_words(rules: &[DeviceRule]) -> Vec<String> {
    let word = |allow| if allow { "allow" } else { "deny" };
    let rules = effective(rules).iter();
    rules
        .map(|rule| format!("{} {rule}", word(rule.allow)))
        .collect()
}

/// What is written into which file of a v1 devices cgroup, in order.
///
/// # Errors
///
/// A rule that takes away a part of what another one gave, which v1 ignores without a word.
pub fn v1_writes(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>, String> {
    let mut table = Table::default();
    for rule in rules {
        if is_for_all(rule) {
            table.reset(rule.allow);
            continue;
        }
        // v1 takes `a` only for everything at once.
        for kind in [DeviceKind::Block, DeviceKind::Char] {
            if rule.kind == kind || rule.kind == DeviceKind::All {
                table.apply(DeviceRule { kind, ..*rule })?;
            }
        }
    }
    Ok(table.writes())
}

/// The state of a v1 devices cgroup.
#[derive(Default)]
struct Table {
    allow: bool,
    exceptions: Vec<DeviceRule>,
}

impl Table {
    fn reset(&mut self, allow: bool) {
        self.allow = allow;
        self.exceptions.clear();
    }

    fn apply(&mut self, rule: DeviceRule) -> Result<(), String> {
        if rule.allow == self.allow {
            return self.take_back(rule);
        }
        let same =
            |e: &&mut DeviceRule| (e.kind, e.major, e.minor) == (rule.kind, rule.major, rule.minor);
        match self.exceptions.iter_mut().find(same) {
            Some(exception) => exception.access = join(exception.access, rule.access),
            None => self.exceptions.push(rule),
        }
        Ok(())
    }

    fn take_back(&mut self, rule: DeviceRule) -> Result<(), String> {
        for exception in self.exceptions.iter_mut().filter(|e| e.kind == rule.kind) {
            let left = without(exception.access, rule.access);
            if left == exception.access || !overlap(exception, &rule) {
                continue;
            }
            let covered =
                covers(rule.major, exception.major) && covers(rule.minor, exception.minor);
            if !covered {
                return Err(format!(
                    "the devices controller of cgroup v1 cannot take '{rule}' out of '{exception}'"
                ));
            }
            exception.access = left;
        }
        self.exceptions
            .retain(|e| e.access != DeviceAccess::default());
        Ok(())
    }

    fn writes(self) -> Vec<(&'static str, String)> {
        let (default, exception) = if self.allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let exceptions = self.exceptions.iter().map(|e| (exception, e.to_string()));
        std::iter::once((default, "a".to_owned()))
            .chain(exceptions)
            .collect()
    }
}

fn covers(outer: Option<u32>, inner: Option<u32>) -> bool {
    outer.is_none() || outer == inner
}

fn overlap(a: &DeviceRule, b: &DeviceRule) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    meet(a.major, b.major) && meet(a.minor, b.minor)
}

fn join(a: DeviceAccess, b: DeviceAccess) -> DeviceAccess {
    DeviceAccess {
        read: a.read || b.read,
        write: a.write || b.write,
        mknod: a.mknod || b.mknod,
    }
}

fn without(a: DeviceAccess, b: DeviceAccess) -> DeviceAccess {
    DeviceAccess {
        read: a.read && !b.read,
        write: a.write && !b.write,
        mknod: a.mknod && !b.mknod,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `allow c 1:* rw`.
    pub(in crate::cgroup) fn rule(text: &str) -> DeviceRule {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |text: &str| (text != "*").then(|| text.parse().unwrap());
        let (major, minor) = words[2].split_once(':').unwrap();
        DeviceRule {
            allow: words[0] == "allow",
            kind: match words[1] {
                "a" => DeviceKind::All,
                "b" => DeviceKind::Block,
                _ => DeviceKind::Char,
            },
            major: number(major),
            minor: number(minor),
            access: DeviceAccess::parse(words[3]).unwrap(),
        }
    }

    pub(in crate::cgroup) fn rules(texts: &[&str]) -> Vec<DeviceRule> {
        texts.iter().map(|text| rule(text)).collect()
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        let writes = v1_writes(&rules(texts)).unwrap();
        let line = |(file, value): (&str, String)| format!("{} {value}", &file[8..]);
        writes.into_iter().map(line).collect()
    }

    #[test]
    fn v1_has_a_default_and_exceptions() {
        assert_eq!(lines(&[]), ["deny a"]);
        let allowed = lines(&["deny a *:* rwm", "allow c 1:3 rwm", "allow b 8:0 r"]);
        assert_eq!(allowed, ["deny a", "allow c 1:3 rwm", "allow b 8:0 r"]);
        let denied = lines(&["allow a *:* rwm", "deny b *:* w"]);
        assert_eq!(denied, ["allow a", "deny b *:* w"]);
    }

    #[test]
    fn a_rule_for_everything_voids_those_before_it() {
        assert_eq!(lines(&["allow c 1:3 r", "deny a *:* rwm"]), ["deny a"]);
        assert_eq!(
            effective(&rules(&["allow c 1:3 r", "deny a *:* rwm"])).len(),
            1
        );
    }

    #[test]
    fn rules_of_one_device_are_added_and_taken_back() {
        let both = lines(&["allow c 1:3 r", "allow c 1:3 w"]);
        assert_eq!(both, ["deny a", "allow c 1:3 rw"]);
        let less = lines(&["allow c 1:3 rw", "deny c 1:* w"]);
        assert_eq!(less, ["deny a", "allow c 1:3 r"]);
        let none = lines(&["allow c 1:3 rw", "deny c 1:* rwm"]);
        assert_eq!(none, ["deny a"]);
        let apart = lines(&["allow c 1:3 rw", "deny c 2:* rwm"]);
        assert_eq!(apart, ["deny a", "allow c 1:3 rw"]);
    }

    #[test]
    fn all_of_one_number_is_both_kinds() {
        let lines = lines(&["allow a 1:* r"]);
        assert_eq!(lines, ["deny a", "allow b 1:* r", "allow c 1:* r"]);
    }

    #[test]
    fn what_v1_would_ignore_is_an_error() {
        let error = v1_writes(&rules(&["allow c *:* rwm", "deny c 1:3 rwm"])).unwrap_err();
        assert!(error.contains("c 1:3 rwm"), "{error}");
    }

    #[test]
    fn allowing_everything_needs_no_filter() {
        assert!(allow_everything(&rules(&[
            "allow a *:* rwm",
            "allow c 1:3 r"
        ])));
        assert!(!allow_everything(&rules(&[
            "allow a *:* rwm",
            "deny c 1:3 r"
        ])));
        assert!(!allow_everything(&rules(&["allow c 1:3 r"])));
        assert!(!allow_everything(&[]));
    }
}
