//! littlebox's daemon: the asynchronous side of the engine.
//!
//! ```text
//! api ──calls──▶ engine ──asks──▶ lifecycle (pure)
//!                  │ ├──writes──▶ store (SQLite)
//!                  │ └──starts──▶ supervisor ──SEQPACKET──▶ zygote, helpers
//!                  └──makes plans by──▶ spec, littlebox-plan (pure)
//! ```

pub mod api;
pub mod asyncfd;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod faults;
pub mod files;
pub mod idpool;
pub mod lifecycle;
pub mod logs;
pub mod namespaces;
pub mod paths;
pub mod peers;
pub mod procfs;
pub mod reconcile;
pub mod server;
pub mod shutdown;
pub mod spec;
pub mod store;
pub mod supervisor;
pub mod time;
pub mod vital;
pub mod worker;
