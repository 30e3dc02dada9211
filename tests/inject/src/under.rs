//! `under`: becomes a program whose system calls, and those of all that it starts, wait for the
//! injector's verdict.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{filter, sys};

/// Tells the injector at `socket` which process and which descriptor is the listener's, loads the
/// filter and executes `command`. Every call after the load waits, so the injector takes the
/// descriptor itself.
pub fn run(socket: &Path, command: &[String]) -> anyhow::Result<std::convert::Infallible> {
    let (program, arguments) = command.split_first().context("no program")?;
    let filter = filter::program();
    let mut injector = UnixStream::connect(socket).context("no injector listens")?;
    // The kernel gives out the lowest number that is free: this one, once it is closed.
    let number = File::open("/dev/null")?.as_raw_fd();
    writeln!(injector, "{} {number}", std::process::id())?;
    let listener = sys::load_with_listener(&filter).context("seccomp")?;
    // From here on nothing is done without the injector. Closed by execve.
    let _ = listener.into_raw_fd();
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone())
}
