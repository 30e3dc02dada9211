//! littlebox's daemon.

pub mod spec;
pub mod files;
pub mod logs;
pub mod namespaces;
pub mod procfs;
