//! What the host says: whether it has what a configuration asks for, what lies at a path that a client
//! named, which cgroups there are, and what the kernel shows of processes.
//!
//! The daemon opens no path of a client but by `looking`: it may lie where nobody answers.

pub(crate) mod cgroups;
pub(super) mod checks;
mod devices;
pub(super) mod kernel;
pub(super) mod limits;
pub(super) mod looking;
pub(super) mod mounts;
