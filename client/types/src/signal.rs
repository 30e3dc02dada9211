//! Signals, as people and signal(7) write them.

use std::fmt;
use std::str::FromStr;

use super::text::{ValueError, serde_as_text};

/// A signal, 1 to 64. Read from a name (`SIGTERM`, `TERM`, `RTMIN+3`, `RTMAX-1`, in any case) or a number;
/// written as `SIGTERM` or `SIGRTMIN+3`, or as a number where it has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

serde_as_text!(Signal);

/// Signals 1 to 31 on Linux' common architectures (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The C library keeps 32 and 33 for its threads; `SIGRTMIN` is the first that programs see.
const RTMIN: i32 = 34;
/// The highest signal.
const RTMAX: i32 = 64;

impl Signal {
    /// The terminal has gone.
    pub const HUP: Self = Self(1);
    /// Ctrl-C.
    pub const INT: Self = Self(2);
    /// Ctrl-\.
    pub const QUIT: Self = Self(3);
    /// Ends a process, whatever it does.
    pub const KILL: Self = Self(9);
    /// For the program's own use.
    pub const USR1: Self = Self(10);
    /// For the program's own use.
    pub const USR2: Self = Self(12);
    /// Nobody reads what was written.
    pub const PIPE: Self = Self(13);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);

    /// By number; `None` unless it is 1 to 64.
    pub fn new(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// The number, 1 to 64.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The exit code that a shell shows for a program that it ended.
    pub const fn shell_code(self) -> i32 {
        128 + self.0
    }

    fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match name {
            "IOT" => Some(6),
            "CLD" => Some(17),
            "POLL" => Some(29),
            "RTMIN" => Some(RTMIN),
            "RTMAX" => Some(RTMAX),
            _ => None,
        };
        let above = || Some(RTMIN + real_time_offset(name.strip_prefix("RTMIN+")?)?);
        let below = || Some(RTMAX - real_time_offset(name.strip_prefix("RTMAX-")?)?);
        let plain = || (1..).zip(NAMES).find(|(_, known)| *known == name);
        let number = number.or_else(above).or_else(below);
        number.or_else(|| plain().map(|(n, _)| n)).map(Self)
    }
}

fn real_time_offset(digits: &str) -> Option<i32> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let offset = digits.parse().ok()?;
    (plain && (0..=RTMAX - RTMIN).contains(&offset)).then_some(offset)
}

impl FromStr for Signal {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let signal = if text.starts_with(|c: char| c.is_ascii_digit()) {
            text.parse().ok().and_then(Self::new)
        } else {
            Self::from_name(text)
        };
        signal.ok_or_else(|| {
            let hint = "use a name like SIGTERM or RTMIN+3, or a number from 1 to 64";
            ValueError::new(text, "is not a signal", hint)
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, (1..).zip(NAMES).find(|(n, _)| *n == self.0)) {
            (_, Some((_, name))) => write!(f, "SIG{name}"),
            (RTMIN, _) => f.write_str("SIGRTMIN"),
            (RTMAX, _) => f.write_str("SIGRTMAX"),
            (n @ RTMIN..RTMAX, _) => write!(f, "SIGRTMIN+{}", n - RTMIN),
            (n, _) => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::survives;

    #[test]
    fn every_signal_is_read_back_from_its_name_and_its_number() {
        for n in 1..=RTMAX {
            let signal = Signal::new(n).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(n.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn signals_are_known_by_their_spellings() {
        for (text, n, shown) in [
            ("TERM", 15, "SIGTERM"),
            ("sigterm", 15, "SIGTERM"),
            ("15", 15, "SIGTERM"),
            ("RTMIN+3", 37, "SIGRTMIN+3"),
            ("SIGRTMAX-1", 63, "SIGRTMIN+29"),
            ("IOT", 6, "SIGABRT"),
            ("33", 33, "33"),
        ] {
            let signal: Signal = text.parse().unwrap();
            assert_eq!((signal.number(), &*signal.to_string()), (n, shown));
        }
        for text in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN+-1",
            "RTMIN+",
            "9 ",
            "é",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_constants_are_what_their_names_say() {
        let named = [
            (Signal::HUP, "SIGHUP"),
            (Signal::INT, "SIGINT"),
            (Signal::QUIT, "SIGQUIT"),
            (Signal::KILL, "SIGKILL"),
            (Signal::USR1, "SIGUSR1"),
            (Signal::USR2, "SIGUSR2"),
            (Signal::PIPE, "SIGPIPE"),
            (Signal::TERM, "SIGTERM"),
        ];
        for (signal, name) in named {
            assert_eq!(signal.to_string(), name);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives(text in "(?i)(SIG)?(RTM|T|K)?[A-Z0-9+-]{0,6}|\\PC*") {
            survives::<Signal>(&text);
        }
    }
}
