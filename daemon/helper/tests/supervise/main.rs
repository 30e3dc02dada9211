//! The supervisor, through its protocol.

mod container;
mod exec;
mod log;
mod support;
