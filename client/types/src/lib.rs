//! The wire types of the `/v1` API: one definition for the daemon, `lbctl` and the tests.
//!
//! Requests reject unknown fields; responses may grow new ones. Times are RFC 3339 strings in UTC
//! with nanoseconds; sizes are bytes unless a name says otherwise.

mod config;
mod container;
mod event;
mod exec;
mod exit;
mod files;
mod ids;
mod isolation;
mod lifecycle;
mod namespace;
mod namespace_source;
mod octal;
mod plan;
mod problem;
mod propagation;
mod resources;
mod restart;
mod seccomp;
mod signal;
mod stream;
mod system;
mod text;
mod top;
mod user;

pub use config::*;
pub use container::*;
pub use event::*;
pub use exec::*;
pub use exit::*;
pub use files::*;
pub use ids::*;
pub use isolation::*;
pub use lifecycle::*;
pub use namespace::*;
pub use namespace_source::*;
pub use octal::*;
pub use plan::*;
pub use problem::*;
pub use propagation::*;
pub use resources::*;
pub use restart::*;
pub use seccomp::*;
pub use signal::*;
pub use stream::*;
pub use system::*;
pub use text::{ValueError, shown};
pub use top::*;
pub use user::*;

use serde::{Deserialize, Serialize};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in a stable order (oldest first).
    pub items: Vec<T>,
    /// Pass it as `?cursor=` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
