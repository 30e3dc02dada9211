//! The helper's binary.
fn main() {}
