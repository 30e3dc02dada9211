//! This program where nobody can change it.
//!
//! What becomes a container's process is a fork of this one, and until it executes its program
//! `/proc/PID/exe` leads a process of the container to this binary (CVE-2019-5736). So what builds
//! or enters a container is executed again through a read-only mount of the binary alone, which is
//! attached nowhere and cannot be made writable; where that cannot be had, from a copy in a sealed
//! memory file, which takes three milliseconds more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use littlebox_helper::sys::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr};
use rustix::fs::{
    CWD, MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs,
    memfd_create,
};
use rustix::mount::{OpenTreeFlags, open_tree};

/// The name that `/proc/PID/exe` shows, and the name of the process.
const NAME: &str = "littlebox-runtime";
/// This process' own program (proc(5)).
const OWN: &str = "/proc/self/exe";

/// Goes on where nobody can write, or is there already.
///
/// # Errors
/// Neither way can be gone.
pub fn ensure() -> io::Result<()> {
    let own = File::open(OWN)?;
    if is_safe(&own) {
        return Ok(());
    }
    let program = read_only_mount().or_else(|_| sealed_copy(own))?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| NAME.into());
    Err(Command::new(path).arg0(name).args(arguments).exec())
}

fn is_safe(own: &File) -> bool {
    let read_only = fstatvfs(own).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only || fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, OWN, flags)?;
    let read_only = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    mount_setattr(mount.as_fd(), false, read_only)?;
    Ok(mount)
}

fn sealed_copy(mut own: File) -> io::Result<OwnedFd> {
    // MFD_EXEC: hosts with vm.memfd_noexec=1 refuse to execute others (memfd_create(2)).
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd =
        memfd_create(NAME, base | MemfdFlags::EXEC).or_else(|_| memfd_create(NAME, base))?;
    let mut copy = File::from(memfd);
    io::copy(&mut own, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
