//! The pseudo terminal, made inside from the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstatfs};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::devices::is_device;
use super::paths::{self, Links};
use super::tree::{Tree, attach, clone_mount};
use crate::fault::{Fault, OrFault};
use littlebox_protocol::TerminalSize;

/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Master (non-blocking, for the helper) and slave (for the program).
#[derive(Debug)]
pub struct Pty {
    /// For the helper.
    pub master: OwnedFd,
    /// For the program.
    pub slave: OwnedFd,
}

impl Pty {
    /// Newlines go to the master as the program writes them (termios(3), ONLCR).
    pub fn leave_newlines(&self) -> Result<(), Fault> {
        let mut settings = tcgetattr(&self.slave).fault("ioctl(TCGETS)")?;
        settings.output_modes -= OutputModes::ONLCR;
        tcsetattr(&self.slave, OptionalActions::Now, &settings).fault("ioctl(TCSETS)")
    }
}

/// Makes a pty while the container is built. `tree` knows its fresh devpts.
pub fn open_in_tree(tree: &Tree, size: TerminalSize) -> Result<Pty, Fault> {
    let ptmx = tree.open(Path::new("/dev/pts/ptmx"), ptmx_flags());
    from_ptmx(ptmx.fault_at("openat2", "/dev/pts/ptmx"), size)
}

/// Makes a pty in a container that runs, which this process has joined.
pub fn open_joined(size: TerminalSize) -> Result<Pty, Fault> {
    let root = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .fault_at("open", "/")?;
    let path = Path::new("dev/pts/ptmx");
    let ptmx = paths::open_in(root.as_fd(), path, ptmx_flags(), Links::Refused);
    from_ptmx(ptmx.fault_at("openat2", "/dev/pts/ptmx"), size)
}

/// Binds the slave on `/dev/console` by its descriptor (CVE-2025-52565).
pub fn bind_console(tree: &Tree, slave: &OwnedFd) -> Result<(), Fault> {
    let path = Path::new("/dev/console");
    if tree.fresh("/dev", "tmpfs").is_none() {
        return Ok(());
    }
    attach(clone_mount(slave, false)?, tree.ensure_file(path)?, path)
}

fn ptmx_flags() -> OFlags {
    OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK
}

fn from_ptmx(ptmx: Result<OwnedFd, Fault>, size: TerminalSize) -> Result<Pty, Fault> {
    let master = ptmx.map_err(|fault| fault.because("a terminal needs a devpts on /dev/pts"))?;
    // The path was the image's to choose: what was opened must be a ptmx of a devpts.
    let on_devpts = fstatfs(&master).fault("fstatfs")?.f_type == DEVPTS_MAGIC;
    if !on_devpts || !is_device(master.as_fd(), FileType::CharacterDevice, 5, 2)? {
        return Err(Fault::refused("not a ptmx of a devpts").at("/dev/pts/ptmx"));
    }
    unlockpt(&master).fault("ioctl(TIOCSPTLCK)")?;
    // The slave by the master, not by a name that could lead elsewhere.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).fault("ioctl(TIOCGPTPEER)")?;
    let winsize = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, winsize).fault("ioctl(TIOCSWINSZ)")?;
    Ok(Pty { master, slave })
}
