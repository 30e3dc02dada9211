//! Whose system call it is.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use littlebox_tests::proc;

/// The engine's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `littleboxd`, all its threads.
    Daemon,
    /// The process that forks helpers.
    Zygote,
    /// A container's helper.
    Helper,
    /// A process of a helper's on its way into a container.
    Child,
    /// A process of the daemon's that enters file systems in its stead.
    Worker,
    /// Everything else: programs of containers.
    Program,
}

impl Role {
    /// As reports and `--point` name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Daemon => "daemon",
            Role::Zygote => "zygote",
            Role::Helper => "helper",
            Role::Child => "child",
            Role::Worker => "worker",
            Role::Program => "program",
        }
    }

    /// The role of that name.
    pub fn of_name(name: &str) -> Option<Role> {
        let all = [
            Role::Daemon,
            Role::Zygote,
            Role::Helper,
            Role::Child,
            Role::Worker,
        ];
        all.into_iter().find(|role| role.name() == name)
    }
}

/// The roles of the processes under one daemon.
#[derive(Debug)]
pub struct Roles {
    daemon: u32,
    of_process: HashMap<u32, Role>,
    process_of_thread: HashMap<u32, u32>,
}

impl Roles {
    /// Of a daemon with this PID.
    pub fn new(daemon: u32) -> Roles {
        Roles {
            daemon,
            of_process: HashMap::from([(daemon, Role::Daemon)]),
            process_of_thread: HashMap::from([(daemon, daemon)]),
        }
    }

    /// Forgets what may be somebody else by now.
    pub fn forget(&mut self) {
        *self = Roles::new(self.daemon);
    }

    /// The process of a thread, and its role.
    pub fn of(&mut self, thread: u32) -> (u32, Role) {
        let process = *self
            .process_of_thread
            .entry(thread)
            .or_insert_with(|| process_of(thread));
        let role = self.role(process);
        (process, role)
    }

    fn role(&mut self, process: u32) -> Role {
        match self.of_process.get(&process) {
            // It may have become its program since.
            Some(Role::Child) if !is_helper_program(process) => {
                self.of_process.insert(process, Role::Program);
                Role::Program
            }
            Some(role) => *role,
            // A child of the daemon's, which is about to execute what it is for.
            None if self.has_daemons_program(process) && !is_worker(process) => Role::Program,
            None => {
                let role = self.role_by_program(process);
                self.of_process.insert(process, role);
                role
            }
        }
    }

    fn has_daemons_program(&self, process: u32) -> bool {
        let program = program_of(process);
        program.is_some() && program == program_of(self.daemon)
    }

    fn role_by_program(&mut self, process: u32) -> Role {
        if self.has_daemons_program(process) {
            return Role::Worker;
        }
        if !is_helper_program(process) {
            return Role::Program;
        }
        let parent = proc::parent(process).unwrap_or(0);
        if parent == self.daemon {
            return Role::Zygote;
        }
        match self.of_process.get(&parent) {
            Some(Role::Helper | Role::Child) => Role::Child,
            // A zygote that was killed leaves its helpers to another parent.
            Some(Role::Daemon | Role::Zygote | Role::Worker | Role::Program) | None => {
                if self.is_helper(parent) {
                    Role::Child
                } else {
                    Role::Helper
                }
            }
        }
    }

    /// A helper that has made no call yet since [`Roles::forget`].
    fn is_helper(&mut self, process: u32) -> bool {
        process > 1
            && is_helper_program(process)
            && matches!(self.role(process), Role::Helper | Role::Child)
    }
}

fn process_of(thread: u32) -> u32 {
    let group = proc::status(thread)
        .get("Tgid")
        .and_then(|id| id.parse().ok());
    group.unwrap_or(thread)
}

fn is_helper_program(process: u32) -> bool {
    program_of(process).is_some_and(|exe| exe.to_string_lossy().contains("littlebox-helper"))
}

/// Whether it was executed as `littleboxd worker`.
fn is_worker(process: u32) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .skip(1)
        .eq([&b"worker"[..], b""])
}

fn program_of(process: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/exe")).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// busybox stands for the daemon's program.
    fn shell(dir: &Path, arguments: &[&str]) -> Child {
        let mut command = Command::new("busybox");
        command.arg0("sh").args(arguments).current_dir(dir);
        let process = command.stdin(Stdio::piped()).spawn();
        process.expect("busybox is installed")
    }

    #[test]
    fn a_worker_is_told_from_a_process_that_is_about_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("worker"), "read line").unwrap();
        let mut daemon = shell(dir.path(), &["-c", "read line"]);
        let mut forked = shell(dir.path(), &["-c", "read line"]);
        let mut worker = shell(dir.path(), &["worker"]);
        for process in [&daemon, &forked, &worker] {
            // The child of a fork looks like its parent until it has executed its program, and in the
            // middle of that it has no arguments.
            let line = format!("/proc/{}/cmdline", process.id());
            while program_of(process.id()) == program_of(std::process::id())
                || fs::read(&line).unwrap().is_empty()
            {
                std::thread::yield_now();
            }
        }
        let mut roles = Roles::new(daemon.id());
        assert_eq!(roles.of(daemon.id()).1, Role::Daemon);
        assert_eq!(roles.of(forked.id()).1, Role::Program);
        assert_eq!(roles.of(worker.id()).1, Role::Worker);
        assert_eq!(roles.of(std::process::id()).1, Role::Program);
        for process in [&mut daemon, &mut forked, &mut worker] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}
