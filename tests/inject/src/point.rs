//! A point: one system call of one process, and what happens to it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use rustix::io::Errno;
use syscalls::Sysno;

use crate::role::Role;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call is not made, and this is its result.
    Fails(Errno),
    /// The process is killed before it makes the call.
    Killed,
}

/// One system call of one kind of process, counted over all its threads from the beginning of an
/// operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Whose call.
    pub role: Role,
    /// Which call.
    pub call: Sysno,
    /// The how manieth, from 1.
    pub nth: u32,
    /// What happens.
    pub effect: Effect,
}

/// Errors that can be told by name, and what else may go wrong with a call than that it is wrong:
/// a resource that is used up, a device that fails, a peer that is gone.
const ERRORS: &[(&str, Errno)] = &[
    ("EACCES", Errno::ACCESS),
    ("EAGAIN", Errno::AGAIN),
    ("EBUSY", Errno::BUSY),
    ("EINTR", Errno::INTR),
    ("EINVAL", Errno::INVAL),
    ("EIO", Errno::IO),
    ("EMFILE", Errno::MFILE),
    ("ENOBUFS", Errno::NOBUFS),
    ("ENOMEM", Errno::NOMEM),
    ("ENOSPC", Errno::NOSPC),
    ("EPERM", Errno::PERM),
    ("EPIPE", Errno::PIPE),
];

/// The errors that are tried with a call: those that its manual page has for reasons outside of the
/// caller.
pub fn errors_of(call: Sysno) -> &'static [Errno] {
    match call {
        Sysno::open | Sysno::openat | Sysno::openat2 => {
            &[Errno::MFILE, Errno::NOMEM, Errno::IO, Errno::NOSPC]
        }
        Sysno::mkdir | Sysno::mkdirat | Sysno::mknodat | Sysno::symlinkat | Sysno::linkat => {
            &[Errno::NOSPC, Errno::IO]
        }
        Sysno::rename | Sysno::renameat | Sysno::renameat2 => &[Errno::NOSPC, Errno::IO],
        Sysno::unlink | Sysno::unlinkat | Sysno::rmdir => &[Errno::IO, Errno::BUSY],
        Sysno::write | Sysno::writev | Sysno::pwrite64 | Sysno::ftruncate | Sysno::fallocate => {
            &[Errno::NOSPC, Errno::IO, Errno::INTR]
        }
        Sysno::fsync | Sysno::fdatasync | Sysno::sync_file_range | Sysno::syncfs => {
            &[Errno::NOSPC, Errno::IO, Errno::INTR]
        }
        Sysno::read | Sysno::pread64 | Sysno::readv | Sysno::getdents64 => {
            &[Errno::IO, Errno::INTR]
        }
        Sysno::sendmsg | Sysno::sendto => &[Errno::NOBUFS, Errno::PIPE, Errno::INTR],
        Sysno::recvmsg | Sysno::recvfrom => &[Errno::NOMEM, Errno::INTR],
        Sysno::connect => &[Errno::AGAIN, Errno::NOMEM, Errno::INTR],
        Sysno::accept | Sysno::accept4 => &[Errno::MFILE, Errno::NOMEM, Errno::INTR],
        Sysno::clone | Sysno::clone3 | Sysno::fork | Sysno::vfork => &[Errno::AGAIN, Errno::NOMEM],
        Sysno::execve | Sysno::execveat => &[Errno::NOMEM, Errno::IO],
        Sysno::wait4 | Sysno::waitid => &[Errno::INTR],
        Sysno::socket
        | Sysno::socketpair
        | Sysno::pipe2
        | Sysno::epoll_create1
        | Sysno::eventfd2
        | Sysno::timerfd_create
        | Sysno::inotify_init1
        | Sysno::memfd_create
        | Sysno::pidfd_open
        | Sysno::dup
        | Sysno::dup2
        | Sysno::dup3
        | Sysno::fcntl => &[Errno::MFILE, Errno::NOMEM],
        Sysno::mount
        | Sysno::umount2
        | Sysno::move_mount
        | Sysno::open_tree
        | Sysno::fsopen
        | Sysno::fsconfig
        | Sysno::fsmount
        | Sysno::mount_setattr
        | Sysno::pivot_root
        | Sysno::setns
        | Sysno::unshare => &[Errno::NOMEM, Errno::PERM, Errno::BUSY],
        Sysno::ioctl | Sysno::prctl => &[Errno::NOMEM, Errno::IO],
        _ => &[Errno::NOMEM, Errno::IO],
    }
}

/// Every point of one call that an operation was seen to make: for each time, whether it can fail.
pub fn points_of(role: Role, call: Sysno, can_fail: &[bool]) -> Vec<Point> {
    let point = |nth, effect| Point {
        role,
        call,
        nth,
        effect,
    };
    (1..)
        .zip(can_fail)
        .flat_map(|(nth, can_fail)| {
            let errors = if *can_fail { errors_of(call) } else { &[] };
            let failures = errors.iter().map(|errno| Effect::Fails(*errno));
            failures
                .chain([Effect::Killed])
                .map(move |effect| point(nth, effect))
        })
        .collect()
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Killed => f.write_str("killed"),
            Effect::Fails(errno) => {
                let name = ERRORS.iter().find(|(_, known)| known == errno);
                f.write_str(name.map_or("?", |(name, _)| name))
            }
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, call) = (self.role.name(), self.call.name());
        write!(f, "{role}/{call}/{}/{}", self.nth, self.effect)
    }
}

/// The form that [`Point`] is printed in: `ROLE/CALL/NTH/EFFECT`.
impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Point> {
        let [role, call, nth, effect] = text.split('/').collect::<Vec<_>>()[..] else {
            bail!("a point is ROLE/CALL/NTH/EFFECT, as in helper/openat/3/EMFILE: {text}");
        };
        let errno = || {
            let known = ERRORS.iter().find(|(name, _)| *name == effect);
            known.map(|(_, errno)| Effect::Fails(*errno))
        };
        Ok(Point {
            role: Role::of_name(role).with_context(|| format!("unknown role {role}"))?,
            call: call
                .parse()
                .ok()
                .with_context(|| format!("unknown system call {call}"))?,
            nth: nth
                .parse()
                .with_context(|| format!("not a number: {nth}"))?,
            effect: match effect {
                "killed" => Effect::Killed,
                _ => errno().with_context(|| format!("unknown effect {effect}"))?,
            },
        })
    }
}
