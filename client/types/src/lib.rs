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
mod plan;
mod problem;
mod resources;
mod restart;
mod seccomp;
mod stream;
mod system;
mod top;

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
pub use plan::*;
pub use problem::*;
pub use resources::*;
pub use restart::*;
pub use seccomp::*;
pub use stream::*;
pub use system::*;
pub use top::*;

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
