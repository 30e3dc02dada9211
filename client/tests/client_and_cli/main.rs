//! The client library and the command line, against a daemon that is only pretended.

mod cli;
mod client;
mod fake;
