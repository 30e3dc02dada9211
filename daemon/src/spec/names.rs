//! Names of signals and errors, as people and manual pages write them.

/// Signals by number on Linux' common architectures (signal(7)).
const SIGNALS: [(i32, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// The C library keeps 32 and 33 for its threads; `SIGRTMIN` is the first that programs see.
const RTMIN: i32 = 34;
/// The highest signal.
const RTMAX: i32 = 64;

/// A signal by name (`SIGTERM`, `TERM`, `RTMIN+3`, `RTMAX-1`, in any case) or number, 1 to 64.
pub fn parse_signal(s: &str) -> Option<i32> {
    if s.starts_with(|c: char| c.is_ascii_digit()) {
        return s.parse().ok().filter(|n| (1..=RTMAX).contains(n));
    }
    let upper = s.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    match name {
        "IOT" => return Some(6),
        "CLD" => return Some(17),
        "POLL" => return Some(29),
        "RTMIN" => return Some(RTMIN),
        "RTMAX" => return Some(RTMAX),
        _ => {}
    }
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(real_time_offset) {
        return Some(RTMIN + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-").and_then(real_time_offset) {
        return Some(RTMAX - offset);
    }
    SIGNALS
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(n, _)| *n)
}

fn real_time_offset(digits: &str) -> Option<i32> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|n| plain && (0..=RTMAX - RTMIN).contains(n))
}

/// A signal's name, `SIGTERM` or `SIGRTMIN+3` style; a number without a name as it is.
pub fn signal_name(n: i32) -> String {
    match SIGNALS.iter().find(|(number, _)| *number == n) {
        Some((_, name)) => format!("SIG{name}"),
        None if n == RTMIN => "SIGRTMIN".into(),
        None if n == RTMAX => "SIGRTMAX".into(),
        None if (RTMIN..RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        None => n.to_string(),
    }
}

/// An error number's name, `ENOENT` style (errno(3)); a number without a name as it is.
pub fn errno_name(n: i32) -> String {
    // nix names every errno of the platform and calls the rest UnknownErrno.
    match nix::errno::Errno::from_raw(n) {
        nix::errno::Errno::UnknownErrno => n.to_string(),
        errno => format!("{errno:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_read_back_from_its_name() {
        for n in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(parse_signal(&signal_name(n)), Some(n));
            assert_eq!(parse_signal(&n.to_string()), Some(n));
        }
    }

    #[test]
    fn signals_are_known_by_their_spellings() {
        for (text, n) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("IOT", 6),
        ] {
            assert_eq!(parse_signal(text), Some(n), "{text}");
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
            assert_eq!(parse_signal(text), None, "{text:?}");
        }
    }

    #[test]
    fn errors_are_named() {
        assert_eq!(errno_name(2), "ENOENT");
        assert_eq!(errno_name(95), "EOPNOTSUPP");
        assert_eq!(errno_name(0), "0");
        assert_eq!(errno_name(99_999), "99999");
    }
}
