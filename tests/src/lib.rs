//! End-to-end tests of littlebox: the harness that they stand on.
//!
//! A test starts with [`Bed::new`], which runs a `littleboxd` of its own on fresh directories, and
//! ends with [`Bed::finish`], which stops it and holds the machine against the snapshot that was
//! taken before ([`oracle`]). Every response on the way is checked against the contract.
//!
//! Nothing here is skipped: without root, without busybox, without a kernel feature a test fails
//! and says what is missing.

pub mod attacker;
pub mod bed;
pub mod contract;
pub mod daemon;
pub mod dead_mount;
pub mod http;
pub mod oracle;
pub mod proc;
pub mod pty;
pub mod roots;
pub mod seccomp_agent;
pub mod surroundings;
mod validate;
pub mod ws;

pub use bed::{Bed, BedBuilder};
pub use daemon::{Daemon, Options};
pub use http::{Method, Request, Response};
pub use roots::{busybox_root, debian_root};

/// What every test file uses.
pub mod prelude {
    pub use std::collections::{BTreeMap, BTreeSet};
    pub use std::time::{Duration, Instant};

    pub use littlebox_types::*;
    pub use rustix::process::Signal;
    pub use serde_json::{Value, json};

    pub use crate::bed::{
        Bed, busybox, code, exec_code, id, name, pid1, read_all, sleeper_config, with,
    };
    pub use crate::http::{Method, Request, Response, encode};
    pub use crate::proc;
    pub use crate::roots::{busybox_root, debian_root};
    pub use crate::ws::{Frame, Ws, contains};
}
