//! Names of signals and errors, as people and manual pages write them.

use littlebox_types::Signal;

/// A signal's name, `SIGTERM` or `SIGRTMIN+3` style; a number without a name as it is.
pub fn signal_name(n: i32) -> String {
    Signal::new(n).map_or_else(|| n.to_string(), |signal| signal.to_string())
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
    fn signals_are_named() {
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(0), "0");
    }

    #[test]
    fn errors_are_named() {
        assert_eq!(errno_name(2), "ENOENT");
        assert_eq!(errno_name(95), "EOPNOTSUPP");
        assert_eq!(errno_name(0), "0");
        assert_eq!(errno_name(99_999), "99999");
    }
}
