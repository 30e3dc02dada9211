//! littlebox's helper: the synchronous side of the engine.

pub mod protocol;

#[cfg(feature = "engine")]
pub mod build;
#[cfg(feature = "engine")]
pub mod cgroup;
/// Of the control groups what an explanation of a plan needs too: which hierarchies there are, and
/// which file takes which limit. Nothing here writes.
#[cfg(not(feature = "engine"))]
pub mod cgroup {
    mod layout;
    pub mod settings;

    pub use layout::{DEFAULT_V2, Hierarchy, Layout};
}
#[cfg(feature = "channel")]
pub mod channel;
#[cfg(feature = "engine")]
mod defence;
#[cfg(feature = "engine")]
pub mod fault;
#[cfg(feature = "engine")]
mod init;
#[cfg(feature = "engine")]
pub mod nsinfo;
#[cfg(feature = "engine")]
pub mod oom;
#[cfg(feature = "engine")]
pub mod supervise;
#[cfg(feature = "engine")]
pub mod sys;
#[cfg(feature = "engine")]
mod users;
#[cfg(feature = "engine")]
pub mod zygote;
