//! The program's stdin, stdout and stderr, and the helper's ends of them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{
    FileType, Gid, Mode, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl, fstatfs, open,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Stdio;
use super::devices::{host_node, is_device};
use super::paths::{Links, open_in};
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::Defence;

/// The program's ends.
#[derive(Debug)]
pub struct ChildStdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    whose: Whose,
}

/// Which descriptors may be given to the program's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// All three: they were made for this program alone.
    Own,
    /// But for stdin, which is `/dev/null`.
    OwnOutput,
    /// They are the caller's: pipes and sockets alone, which somebody made for this program.
    Caller,
}

/// Both ends, before the fork.
#[derive(Debug)]
pub enum Prepared {
    /// Pipes.
    Pipes(Stdio, ChildStdio),
    /// A pty, which the child makes inside the container.
    Terminal,
}

impl Prepared {
    /// Makes the pipes of a program without a terminal.
    pub fn make(terminal: bool, stdin: bool) -> Result<Prepared, Fault> {
        if terminal {
            return Ok(Prepared::Terminal);
        }
        let (stdout, childs_stdout) = output()?;
        let (stderr, childs_stderr) = output()?;
        let (stdin, childs_stdin) = if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).fault("pipe2")?;
            fcntl_setfl(&write, OFlags::NONBLOCK).fault("fcntl")?;
            (Some(write), read)
        } else {
            (None, null_input()?)
        };
        let whose = if stdin.is_some() {
            Whose::Own
        } else {
            Whose::OwnOutput
        };
        let child = ChildStdio {
            stdin: above_stdio(childs_stdin)?,
            stdout: above_stdio(childs_stdout)?,
            stderr: above_stdio(childs_stderr)?,
            whose,
        };
        Ok(Prepared::Pipes(
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            },
            child,
        ))
    }
}

/// The helper reads and must not block; the program's end is another open file description.
fn output() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).fault("pipe2")?;
    fcntl_setfl(&read, OFlags::NONBLOCK).fault("fcntl")?;
    Ok((read, write))
}

/// Whether nothing but descriptors leads to it: the owner of a FIFO with a name is the caller's.
fn is_pipe_or_socket(fd: &OwnedFd) -> Result<bool, Fault> {
    /// `PIPEFS_MAGIC` and `SOCKFS_MAGIC` of statfs(2).
    const NAMELESS: [i64; 2] = [0x5049_5045, 0x534f_434b];
    let magic = fstatfs(fd).fault("fstatfs")?.f_type;
    Ok(NAMELESS.contains(&magic))
}

/// The host's `/dev/null` for reading, for a container that has none. Through a read-only mount:
/// with its descriptor root in a container could else change the host's node (`chmod 0 /dev/stdin`).
fn null_input() -> Result<OwnedFd, Fault> {
    let made;
    let node = match NULL.get() {
        Some(node) if stands(Defence::ReadOnlyDevices) => node,
        _ => {
            made = null_node()?;
            &made
        }
    };
    open_null(node, OFlags::RDONLY)
}

fn open_null(node: &OwnedFd, access: OFlags) -> Result<OwnedFd, Fault> {
    let name = format!("/proc/self/fd/{}", node.as_raw_fd());
    open(&name, access | OFlags::CLOEXEC, Mode::empty()).fault_at("open", "/dev/null")
}

/// The mount that [`null_input`] opens, made once by the zygote. Closing one costs an RCU grace
/// period, which would be a tenth of an exec.
static NULL: OnceLock<OwnedFd> = OnceLock::new();

/// Makes what the programs of all helpers share.
pub fn prepare() {
    // Where it fails, the start that needs it says why.
    if let Ok(node) = null_node() {
        let _ = NULL.set(node);
    }
}

fn null_node() -> Result<OwnedFd, Fault> {
    host_node(Path::new("/dev/null"), FileType::CharacterDevice, (1, 3))
}

/// The container's own `/dev/null` in the place of the host's, seen from inside, if that is what
/// stands there: the container may have put anything in its place, even between two looks.
fn own_null(hosts: &OwnedFd) -> Option<OwnedFd> {
    let is_null = |fd: &OwnedFd| {
        is_device(fd.as_fd(), FileType::CharacterDevice, 1, 3).is_ok_and(|is_null| is_null)
    };
    if !is_null(hosts) {
        return None;
    }
    let open_own = |flags| {
        let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let null = open_in(root.as_fd(), Path::new("dev/null"), flags, Links::Refused).ok()?;
        is_null(&null).then_some(null)
    };
    // Nothing else is ever opened, because opening alone can have an effect.
    open_own(OFlags::PATH)?;
    let null = open_own(OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    fcntl_setfl(&null, OFlags::empty()).ok()?;
    Some(null)
}

/// What lies at 0 to 2 would be overwritten while the three are put into place.
fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Fault> {
    if fd.as_raw_fd() > 2 {
        Ok(fd)
    } else {
        fcntl_dupfd_cloexec(fd, 3).fault("fcntl")
    }
}

impl ChildStdio {
    /// All three are the terminal.
    pub fn of_terminal(slave: OwnedFd) -> Result<ChildStdio, Fault> {
        let copy = || fcntl_dupfd_cloexec(&slave, 3).fault("fcntl");
        Ok(ChildStdio {
            stdin: copy()?,
            stdout: copy()?,
            stderr: copy()?,
            whose: Whose::Own,
        })
    }

    /// This process' own. The host's null device comes through a read-only mount, as in
    /// [`null_input`]: a container that has none of its own could else change the caller's.
    pub fn inherited() -> Result<ChildStdio, Fault> {
        let copy = |fd: BorrowedFd<'_>| {
            let is_null = is_device(fd, FileType::CharacterDevice, 1, 3)?;
            if !is_null || !stands(Defence::ReadOnlyDevices) {
                return fcntl_dupfd_cloexec(fd, 3).fault("fcntl");
            }
            let access = fcntl_getfl(fd).fault("fcntl")? & OFlags::RWMODE;
            open_null(&null_node()?, access).and_then(above_stdio)
        };
        Ok(ChildStdio {
            stdin: copy(std::io::stdin().as_fd())?,
            stdout: copy(std::io::stdout().as_fd())?,
            stderr: copy(std::io::stderr().as_fd())?,
            whose: Whose::Caller,
        })
    }

    /// All three.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [&self.stdin, &self.stdout, &self.stderr].map(AsFd::as_fd)
    }

    /// Gives the descriptors to a user, so that `/dev/stdout` can be opened by it. Not allowed in
    /// a user namespace that does not know their owner: then it is as it is.
    pub fn give_to(&self, uid: u32, gid: Option<u32>) -> Result<(), Fault> {
        let stdin = (self.whose != Whose::OwnOutput).then_some(&self.stdin);
        for fd in stdin.into_iter().chain([&self.stdout, &self.stderr]) {
            if self.whose == Whose::Caller && !is_pipe_or_socket(fd)? {
                continue;
            }
            match fchown(fd, Some(Uid::from_raw(uid)), gid.map(Gid::from_raw)) {
                Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::OVERFLOW) => {}
                Err(errno) => return Err(Fault::of("fchown", errno)),
            }
        }
        Ok(())
    }

    /// Puts them at 0, 1 and 2: the descriptors that the program inherits on purpose, and the
    /// only ones.
    pub fn install(&self) -> Result<(), Fault> {
        let (stdin, stdout, stderr) = (
            own_null(&self.stdin),
            own_null(&self.stdout),
            own_null(&self.stderr),
        );
        rustix::stdio::dup2_stdin(stdin.as_ref().unwrap_or(&self.stdin)).fault("dup2")?;
        rustix::stdio::dup2_stdout(stdout.as_ref().unwrap_or(&self.stdout)).fault("dup2")?;
        rustix::stdio::dup2_stderr(stderr.as_ref().unwrap_or(&self.stderr)).fault("dup2")
    }
}
