//! The supervisor, through its protocol.

mod connection;
mod container;
mod exec;
mod freezer;
mod log;
mod settling;
mod starting;
mod support;
mod time_limit;
