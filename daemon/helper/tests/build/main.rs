//! Containers are built as planned: real ones, by root, one at a time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cgroup;
mod exec;
mod init;
mod namespaces;
mod process;
mod start;
mod support;
mod tree;

use std::fs;
use std::os::fd::OwnedFd;

use littlebox_helper::build::{self, Stdio};
use littlebox_protocol::*;
use support::{Bed, DEFAULT_CAPABILITIES, Leftovers, bind, finish_exec, mount, read_fd};
