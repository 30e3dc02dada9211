//! Reading what helpers write: the log is the stream.
//!
//! A helper appends records to a file and rotates it (`littlebox_protocol`); every reader
//! here follows the file by position, at its own speed, so nobody slow holds anyone up.
//!
//! ```text
//! Watcher (one inotify instance) ──wakes──▶ Follower ──Chunk──▶ Filter, render
//! ```

mod files;
mod follower;
mod render;
mod tail;
mod watcher;

pub use files::Record;
pub use follower::{Chunk, Finished, Follower, From, Mode};
pub use render::{Filter, TextRenderer, encode, line, matches, render_ndjson, stream_name};
pub use watcher::Watcher;

#[cfg(test)]
mod tests;
