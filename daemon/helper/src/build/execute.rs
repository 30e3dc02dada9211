//! execve(2) with a search in the container's `PATH`.

use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::fault::Fault;
use crate::protocol::ProcessPlan;
use crate::sys;

/// Where is searched when the environment says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the program, or tells why not: `ENOENT` when it is nowhere, `EACCES` when it was found
/// and may not be executed.
pub fn execute(process: &ProcessPlan, home: Option<String>) -> Fault {
    let Some(command) = process.args.first() else {
        return Fault::refused("there is no command");
    };
    let home = home.map(|home| format!("HOME={home}"));
    let env = process.env.iter().chain(&home);
    let (argv, env) = match (c_strings(process.args.iter()), c_strings(env)) {
        (Ok(argv), Ok(env)) => (argv, env),
        _ => return Fault::refused("an argument or a variable contains a zero byte").at(command),
    };
    let errno = if command.contains('/') {
        try_path(command, &argv, &env)
    } else {
        search(command, search_path(process), &argv, &env)
    };
    explain(Fault::of("execve", errno).at(command), command)
}

/// Looks for the program without becoming it: what is plainly not there is told when the container
/// is created, not only when it is started.
///
/// # Errors
/// As [`execute`].
pub fn find(process: &ProcessPlan) -> Result<(), Fault> {
    let Some(command) = process.args.first() else {
        return Err(Fault::refused("there is no command"));
    };
    let mut worst = Errno::NOENT;
    let paths: Vec<String> = if command.contains('/') {
        vec![command.clone()]
    } else {
        let directories = search_path(process).split(':');
        directories
            .filter(|_| !command.is_empty())
            .map(|directory| match directory {
                "" => format!("./{command}"),
                directory => format!("{directory}/{command}"),
            })
            .collect()
    };
    for path in paths {
        match accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) if is_file(&path) => return Ok(()),
            Ok(()) => worst = Errno::ACCESS,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(explain(Fault::of("execve", worst).at(command), command))
}

fn is_file(path: &str) -> bool {
    stat(path).is_ok_and(|meta| FileType::from_raw_mode(meta.st_mode) == FileType::RegularFile)
}

fn search_path(process: &ProcessPlan) -> &str {
    let path = process
        .env
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH)
}

/// As execvp(3): what may not be executed here may be found further on.
fn search(command: &str, path: &str, argv: &[CString], env: &[CString]) -> Errno {
    let mut worst = Errno::NOENT;
    if command.is_empty() {
        return worst;
    }
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match try_path(&format!("{directory}/{command}"), argv, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            errno => return errno,
        }
    }
    worst
}

fn try_path(path: &str, argv: &[CString], env: &[CString]) -> Errno {
    match CString::new(path) {
        Ok(path) => sys::execve(&path, argv, env),
        Err(_) => Errno::INVAL,
    }
}

fn c_strings<'s>(
    strings: impl Iterator<Item = &'s String>,
) -> Result<Vec<CString>, std::ffi::NulError> {
    strings.map(|s| CString::new(s.as_bytes())).collect()
}

fn explain(fault: Fault, command: &str) -> Fault {
    match fault.errno {
        libc::ENOENT if command.contains('/') && exists(command) => {
            fault.because("its interpreter (the ELF loader, or what follows #!) does not exist")
        }
        libc::ENOENT if command.contains('/') => fault.because("no such program in the container"),
        libc::ENOENT => fault.because("no such program in the container's PATH"),
        libc::EACCES => fault.because("it may not be executed: its mode, or a noexec mount"),
        libc::ENOEXEC => fault.because("not a program for this machine, nor a script with #!"),
        libc::E2BIG => fault.because("arguments and environment are too large"),
        _ => fault,
    }
}

fn exists(path: &str) -> bool {
    accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}
