//! `lbctl`, the command line of littlebox.
fn main() {}
