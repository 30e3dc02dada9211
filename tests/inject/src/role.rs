//! Whose system call it is.

use std::collections::HashMap;
use std::fs;

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
            Role::Program => "program",
        }
    }

    /// The role of that name.
    pub fn of_name(name: &str) -> Option<Role> {
        let all = [Role::Daemon, Role::Zygote, Role::Helper, Role::Child];
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
            None => {
                let role = self.role_by_parent(process);
                self.of_process.insert(process, role);
                role
            }
        }
    }

    fn role_by_parent(&mut self, process: u32) -> Role {
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
            Some(Role::Daemon | Role::Zygote | Role::Program) | None => {
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
    fs::read_link(format!("/proc/{process}/exe"))
        .is_ok_and(|exe| exe.to_string_lossy().contains("littlebox-helper"))
}
