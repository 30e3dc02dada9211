//! The HTTP client that `lbctl` is built on. What it sends and gets are [`littlebox_types`].

pub mod client;
