//! What the daemon and a helper say to each other, and nothing else that they share.
//!
//! Both ends are `SOCK_SEQPACKET` sockets: one message, one datagram, with descriptors beside it
//! (`SCM_RIGHTS`, unix(7)). Messages are JSON, because a daemon that was upgraded must still
//! understand the helpers that its predecessor started: a field may be added with
//! `#[serde(default)]`, none may change its meaning. [`PROTOCOL_VERSION`] is the last resort.
//!
//! A message of more than [`INLINE_LIMIT`] bytes travels in a memfd: the datagram is then
//! [`Framed::Memfd`] and the memfd is the *last* descriptor beside it.
//!
//! ```text
//! daemon ──ZygoteRequest──▶ zygote ──fork──▶ helper ◀──First, then Request── daemon
//!        ◀──ZygoteEvent────                         ───────Reply | Event────▶
//! ```

pub mod bounds;
pub mod cgroup;
pub mod channel;
mod defence;
pub mod file_systems;
mod labels;
mod log;
mod message;
mod mounts;
mod namespaces;
mod plan;
mod process;
mod resources;
mod scheduling;
mod seccomp;
mod step;

pub use defence::*;
pub use labels::*;
pub use log::*;
pub use message::*;
pub use mounts::*;
pub use namespaces::*;
pub use plan::*;
pub use process::*;
pub use resources::*;
pub use scheduling::*;
pub use seccomp::*;
pub use step::*;

/// The version of this protocol. A helper tells it in [`Status`]; a daemon that meets another one
/// still stops and reaps that helper's container but refuses new execs in it.
pub const PROTOCOL_VERSION: u32 = 1;

/// The most bytes of JSON that travel inside the datagram itself. Well below the default
/// `net.core.wmem_max` of 212,992 bytes.
pub const INLINE_LIMIT: usize = 64 * 1024;

/// The most bytes that one message may have at all (a launch plan with `ARG_MAX` of environment).
pub const MESSAGE_LIMIT: usize = 8 * 1024 * 1024;

/// The most descriptors beside one message (the kernel's `SCM_MAX_FD` is 253).
pub const MAX_FDS: usize = 32;

/// The file name of the helper's path socket inside its own directory.
pub const HELPER_SOCKET: &str = "helper.sock";

/// The same before the helper listens on it: a socket of the other name that refuses a connection
/// (`ECONNREFUSED`) has no helper any more.
pub const HELPER_SOCKET_UNREADY: &str = "helper.sock.new";

/// The file name of the exit record inside the helper's own directory.
pub const EXIT_RECORD: &str = "exit.json";
