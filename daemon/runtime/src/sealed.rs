//! This program from a copy that nobody can change.
//!
//! What becomes a container's process is a fork of this one, and until it executes its program
//! `/proc/PID/exe` leads a process of the container to this binary (CVE-2019-5736). So what builds
//! or enters a container runs from a sealed memory file, as littleboxd's helpers do.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// The name that `/proc/PID/exe` shows, and the name of the process.
const NAME: &str = "littlebox-runtime";

/// Goes on in the copy, or is in it already.
///
/// # Errors
/// The copy cannot be made or executed.
pub fn ensure() -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    if fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Ok(());
    }
    let copy = copy(own)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| NAME.into());
    Err(Command::new(path).arg0(name).args(arguments).exec())
}

fn copy(mut own: File) -> io::Result<File> {
    // MFD_EXEC: hosts with vm.memfd_noexec=1 refuse to execute others (memfd_create(2)).
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd =
        memfd_create(NAME, base | MemfdFlags::EXEC).or_else(|_| memfd_create(NAME, base))?;
    let mut copy = File::from(memfd);
    io::copy(&mut own, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}
