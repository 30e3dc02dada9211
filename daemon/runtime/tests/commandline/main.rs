//! The OCI command line, driven as engines drive it.

mod bad_input;
mod capabilities;
mod cgroups;
mod commands;
mod documents;
mod hooks;
mod lifecycle;
mod mounts;
mod process;
mod seccomp;
mod support;
mod terminal;
