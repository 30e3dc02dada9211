//! Signals by name and by number.

use crate::error::{Error, Result};

/// By number, as on every architecture that this program runs on (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `SIGKILL`.
pub const SIGKILL: i32 = 9;

/// Other names.
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// The first real-time signal that programs may use, and the last.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of `TERM`, `SIGTERM`, `15`, `RTMIN+1`.
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return Some(number)
            .filter(|n| (0..=REAL_TIME.1).contains(n))
            .ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let plain = (1..).zip(NAMES).map(|(number, name)| (name, number));
    let found = plain
        .chain(ALIASES)
        .find(|(known, _)| *known == name)
        .map(|(_, number)| number);
    found.or_else(|| real_time(name)).ok_or_else(unknown)
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1`.
fn real_time(name: &str) -> Option<i32> {
    let (base, rest) = match name.strip_prefix("RTMIN") {
        Some(rest) => (REAL_TIME.0, rest),
        None => (REAL_TIME.1, name.strip_prefix("RTMAX")?),
    };
    let offset: i32 = if rest.is_empty() {
        0
    } else {
        rest.parse().ok()?
    };
    let number = base.checked_add(offset)?;
    (REAL_TIME.0..=REAL_TIME.1)
        .contains(&number)
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("sigkill", 9),
            ("SIGSYS", 31),
            ("RTMIN+1", 35),
            ("SIGRTMAX-2", 62),
            ("SIGCLD", 17),
        ] {
            assert_eq!(parse(text).expect(text), number);
        }
        for bad in ["", "-1", "65", "NOPE", "RTMIN+99", "SIG"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
