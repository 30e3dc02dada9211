//! The helper's binary: `littlebox-helper zygote`, with its control socket as descriptor 0.
//!
//! It is started by littleboxd, and by nobody else. What it inherits on purpose: descriptor 0, and
//! descriptor 2 for what it has to say when it panics.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use littlebox_helper::oom;
use littlebox_helper::supervise;
use littlebox_helper::sys::close_inherited;
use littlebox_helper::zygote::{self, Role};
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["zygote"] => run_zygote(),
        ["--version"] => {
            println!("littlebox-helper {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: littlebox-helper zygote | --version\n\nlittleboxd starts this program; it is of no use by hand"
            );
            ExitCode::from(2)
        }
    }
}

/// The zygote, and every helper forked from it.
fn run_zygote() -> ExitCode {
    let control = match prepare_process() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("littlebox-helper: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    littlebox_helper::build::prepare();
    match zygote::run(control) {
        Ok(Role::Finished) => ExitCode::SUCCESS,
        Ok(Role::Helper(connection)) => {
            // A session of its own: no signal to the daemon's or the zygote's group reaches it.
            let _ = rustix::process::setsid();
            supervise::run(connection)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "littlebox-helper: zygote: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the control socket, closes what else was inherited, and hardens the process: not
/// dumpable (nobody may ptrace it or open its `/proc/PID/exe`, CVE-2016-9962), a session of its
/// own, the last victim of the OOM killer where that is allowed.
fn prepare_process() -> std::io::Result<OwnedFd> {
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    close_inherited(control.as_fd())?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The kernel cuts it to 15 bytes.
    rustix::thread::set_name(c"littlebox-zygote")?;
    // Nobody's directory is kept busy.
    rustix::process::chdir("/")?;
    // EPERM when the daemon made this process a group leader: then it is none of its group.
    let _ = rustix::process::setsid();
    oom::protect();
    Ok(control)
}
