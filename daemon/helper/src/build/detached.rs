//! How a program is started, and what ties it to this process afterwards.

use std::fmt;
use std::os::fd::BorrowedFd;

use littlebox_protocol::{HookPlan, HooksPlan};

/// How a program is started.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// At once, with stdio whose other ends this process keeps: it is the program's supervisor.
    Supervised,
    /// On its own: the program outlives this process, which is nobody's supervisor.
    Detached(&'a Detached<'a>),
}

/// A program that goes its own way: it has this process' stdin, stdout and stderr, or a terminal
/// whose master this process passes on.
#[derive(Clone, Copy)]
pub struct Detached<'a> {
    /// A listening socket (see [`super::gate`]): when all is built, the program waits for somebody
    /// who connects to it. `None`: it starts at once.
    pub gate: Option<BorrowedFd<'a>>,
    /// How many descriptors from 3 on it inherits. They must be open.
    pub preserved: u32,
    /// Whether its terminal leaves newlines as they are, because who reads it is no terminal and takes
    /// them like that.
    pub leaves_newlines: bool,
    /// Whether it gets a session keyring of its own, or keeps the caller's.
    pub own_keyring: bool,
    /// The document that hooks read on their stdin, for a status and a PID (OCI runtime.md, "State").
    pub state: &'a dyn Fn(Status, u32) -> String,
}

impl fmt::Debug for Detached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("gate", &self.gate)
            .field("preserved", &self.preserved)
            .field("leaves_newlines", &self.leaves_newlines)
            .field("own_keyring", &self.own_keyring)
            .finish_non_exhaustive()
    }
}

/// Where a container is in its life, as hooks are told (OCI runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is being built.
    Creating,
    /// All but the program is there.
    Created,
    /// The program runs.
    Running,
    /// It has ended.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
        }
    }
}

/// What ties a program to the helper while it is on its way and afterwards.
#[derive(Debug, Clone, Copy)]
pub enum Tie<'a> {
    /// The container's program: it is killed when its supervisor dies.
    DiesWithHelper,
    /// An exec's program.
    Reaped,
    /// Nothing.
    None {
        /// How it is started.
        detached: &'a Detached<'a>,
        /// Its `startContainer` hooks.
        hooks: &'a [HookPlan],
    },
}

impl<'a> Start<'a> {
    /// The tie of a container's program.
    pub fn tie_of_container(self, hooks: &'a HooksPlan) -> Tie<'a> {
        match self {
            Start::Supervised => Tie::DiesWithHelper,
            Start::Detached(detached) => Tie::None {
                detached,
                hooks: &hooks.start_container,
            },
        }
    }

    /// The tie of an exec's program.
    pub fn tie_of_exec(self) -> Tie<'a> {
        match self {
            Start::Supervised => Tie::Reaped,
            Start::Detached(detached) => Tie::None {
                detached,
                hooks: &[],
            },
        }
    }

    /// Whether the program waits for somebody to ask for its start.
    pub fn is_gated(self) -> bool {
        matches!(self, Start::Detached(Detached { gate: Some(_), .. }))
    }

    /// Whether the program's terminal is to leave newlines as they are.
    pub fn leaves_newlines(self) -> bool {
        matches!(self, Start::Detached(detached) if detached.leaves_newlines)
    }

    /// Whether this process is the program's supervisor.
    pub fn is_supervised(self) -> bool {
        matches!(self, Start::Supervised)
    }
}

impl Tie<'_> {
    /// Whether the program gets a session keyring of its own.
    pub fn has_own_keyring(&self) -> bool {
        match self {
            Tie::DiesWithHelper | Tie::Reaped => true,
            Tie::None { detached, .. } => detached.own_keyring,
        }
    }

    /// The hooks that run in the container just before its program.
    pub fn start_hooks(&self) -> &[HookPlan] {
        match self {
            Tie::DiesWithHelper | Tie::Reaped => &[],
            Tie::None { hooks, .. } => hooks,
        }
    }

    /// How many filters are loaded: each of its `startContainer` hooks has one, and the program.
    pub fn filters(&self) -> usize {
        self.start_hooks().len() + 1
    }

    /// How many descriptors from 3 on are the program's.
    pub fn preserved(&self) -> u32 {
        match self {
            Tie::DiesWithHelper | Tie::Reaped => 0,
            Tie::None { detached, .. } => detached.preserved,
        }
    }
}
