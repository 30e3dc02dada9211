//! From a configuration to what a helper is asked to start: the bundle that it names, its spec (`prepare`),
//! the launch plan (`plan`), and what has to be made or opened on the host first.

mod absent;
mod bind_sources;
mod bundle;
mod joins;
mod oci_state;
mod plan;
mod prepare;

pub(super) use prepare::{prepare, prepare_again};
