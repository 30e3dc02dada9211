//! execve(2) with a search in the container's `PATH`.

use std::ffi::{CStr, CString};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::fault::Fault;
use crate::sys::{self, Arguments};
use littlebox_protocol::{ProcessPlan, StepFailure};

/// Where is searched when the environment says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A home directory that is none: what looks for configuration below it would look in `/`.
const EMPTY_HOME: &str = "HOME=";

/// Whether the environment says nothing of a home directory, so that the user's own is to be set.
pub fn needs_home(process: &ProcessPlan) -> bool {
    let named = |entry: &String| entry.starts_with("HOME=") && entry != EMPTY_HOME;
    !process.env.iter().any(named)
}

/// A program that can be executed without asking the kernel for anything else, not even memory:
/// the seccomp filter may forbid it.
#[derive(Debug)]
pub struct Execution<'p> {
    command: &'p str,
    /// Where it may be, in the order in which it is tried.
    paths: Vec<CString>,
    argv: Arguments,
    env: Arguments,
    /// Which of the paths is a program, as far as can be seen.
    found: Option<usize>,
}

impl<'p> Execution<'p> {
    /// Gets everything ready.
    pub fn prepare(process: &'p ProcessPlan, home: Option<String>) -> Result<Self, Fault> {
        let Some(command) = process.args.first() else {
            return Err(Fault::refused("there is no command"));
        };
        let home = home.map(|home| format!("HOME={home}"));
        let env = process.env.iter().filter(|entry| *entry != EMPTY_HOME);
        let env = env.chain(&home);
        let zero = |_| Fault::refused("an argument or a variable contains a zero byte").at(command);
        Ok(Self {
            command,
            paths: candidates(command, search_path(process)).map_err(zero)?,
            argv: Arguments::new(c_strings(process.args.iter()).map_err(zero)?),
            env: Arguments::new(c_strings(env).map_err(zero)?),
            found: None,
        })
    }

    /// Looks for the program, so that what execve(2) says can be told apart.
    ///
    /// # Errors
    /// As [`Execution::execute`]: it is plainly not there.
    pub fn look(&mut self) -> Result<(), Fault> {
        self.found =
            Some(first_program(&self.paths).map_err(|errno| missing(errno, self.command))?);
        Ok(())
    }

    /// Becomes the program, or tells why not: `ENOENT` when it is nowhere, `EACCES` when it was
    /// found and may not be executed.
    pub fn execute(&self) -> Fault {
        let errno = self.try_paths();
        let program = self.found.and_then(|i| self.paths.get(i));
        match program {
            // It is there, so what is not is what it takes to run it.
            Some(program) if errno == Errno::NOENT => Fault::of("execve", errno)
                .at(program.to_string_lossy())
                .because(StepFailure::NO_INTERPRETER),
            _ => missing(errno, self.command),
        }
    }

    /// As execvp(3): what may not be executed here may be found further on.
    fn try_paths(&self) -> Errno {
        let mut worst = Errno::NOENT;
        for path in &self.paths {
            match sys::execve(path, &self.argv, &self.env) {
                Errno::NOENT | Errno::NOTDIR if self.paths.len() > 1 => {}
                Errno::ACCESS => worst = Errno::ACCESS,
                errno => return errno,
            }
        }
        worst
    }
}

/// Looks for the program without becoming it: what is plainly not there is told when the container
/// is created, not only when it is started.
///
/// # Errors
/// As [`Execution::execute`].
pub fn find(process: &ProcessPlan) -> Result<(), Fault> {
    let Some(command) = process.args.first() else {
        return Err(Fault::refused("there is no command"));
    };
    let paths = candidates(command, search_path(process))
        .map_err(|_| Fault::refused("the command contains a zero byte").at(command))?;
    first_program(&paths)
        .map(drop)
        .map_err(|errno| missing(errno, command))
}

/// The first of the paths that is a file which may be executed.
fn first_program(paths: &[CString]) -> Result<usize, Errno> {
    let mut worst = Errno::NOENT;
    for (i, path) in paths.iter().enumerate() {
        match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) if is_file(path) => return Ok(i),
            Ok(()) => worst = Errno::ACCESS,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst)
}

fn is_file(path: &CStr) -> bool {
    stat(path).is_ok_and(|meta| FileType::from_raw_mode(meta.st_mode) == FileType::RegularFile)
}

fn search_path(process: &ProcessPlan) -> &str {
    let path = process
        .env
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH)
}

fn candidates(command: &str, path: &str) -> Result<Vec<CString>, std::ffi::NulError> {
    if command.contains('/') {
        return Ok(vec![CString::new(command)?]);
    }
    if command.is_empty() {
        return Ok(Vec::new());
    }
    path.split(':')
        .map(|directory| {
            let directory = if directory.is_empty() { "." } else { directory };
            CString::new(format!("{directory}/{command}"))
        })
        .collect()
}

fn c_strings<'s>(
    strings: impl Iterator<Item = &'s String>,
) -> Result<Vec<CString>, std::ffi::NulError> {
    strings.map(|s| CString::new(s.as_bytes())).collect()
}

fn missing(errno: Errno, command: &str) -> Fault {
    let fault = Fault::of("execve", errno).at(command);
    match fault.errno {
        libc::ENOENT if command.contains('/') => fault.because("no such program in the container"),
        libc::ENOENT => fault.because("no such program in the container's PATH"),
        libc::EACCES => fault.because("it may not be executed: its mode, or a noexec mount"),
        libc::ENOEXEC => fault.because("not a program for this machine, nor a script with #!"),
        libc::E2BIG => fault.because("arguments and environment are too large"),
        _ => fault,
    }
}
