//! Signals by number.

use littlebox_protocol::{Call, Target};

pub mod libc_signal {
    pub const KILL: i32 = 9;
    pub const TERM: i32 = 15;
}

/// A signal to the container.
pub fn signal(signal: i32, all: bool) -> Call {
    Call::Signal {
        target: Target::Container,
        signal,
        all,
    }
}

/// A signal to one program.
pub fn signal_to(target: Target, signal: i32) -> Call {
    Call::Signal {
        target,
        signal,
        all: false,
    }
}
