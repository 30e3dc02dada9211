//! `littlebox-runtime`: an OCI runtime for other engines.
//!
//! Each command is a short life of one process with one thread. `create` builds the container with
//! the helper library, as littleboxd does, and goes: the container's process is then a child of
//! whoever adopts orphans (conmon, containerd's shim), has its caller's stdio, and waits at a socket
//! in `ROOT/ID/` for `start`. Nothing of this program stays beside it.
//!
//! Inherited on purpose: descriptors 0, 1 and 2, and with `--preserve-fds` those that follow.

mod bundle;
mod cgroup;
mod cli;
mod commands;
mod console;
mod error;
mod foreground;
mod id;
mod launch;
mod log;
mod output;
mod pidfile;
mod process;
mod relay;
mod sealed;
mod signal;
mod size;
mod state;
mod stats;
mod store;
mod systemd;

use std::process::ExitCode;

use clap::Parser;
use littlebox_helper::sys;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cli::{Cli, Command};
use crate::error::{Doing, Result};

/// What runc returns for its own failures.
const FAILED: u8 = 1;
/// And for those of an exec, so that a program that returns 1 is not one.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let global = &cli.global;
    log::set_up(global.log.clone(), global.log_format, global.debug);
    match harden(&cli).and_then(|()| commands::run(&cli)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error.to_string());
            ExitCode::from(match cli.command {
                Command::Exec(_) => EXEC_FAILED,
                _ => FAILED,
            })
        }
    }
}

/// Help and version are no failure, everything else is.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody to tell where the output is closed.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

/// A copy that nobody can change, no descriptor that leaks into a container, no way for a process
/// of a container to look into this one (CVE-2016-9962).
fn harden(cli: &Cli) -> Result<()> {
    commands::seal(&cli.command)?;
    if !commands::enters_containers(&cli.command) {
        return Ok(());
    }
    sys::close_on_exec_from(3).doing(|| "close_range".to_owned())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .doing(|| "prctl(PR_SET_DUMPABLE)".to_owned())
}
