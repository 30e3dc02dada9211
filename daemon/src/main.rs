//! The littlebox daemon.
fn main() {}
