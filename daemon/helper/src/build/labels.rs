//! Labels of Linux security modules for the program's execve: AppArmor and SELinux.
//!
//! They are written to `/proc/PID/attr`, in a fresh procfs that is attached nowhere: there is no
//! mount of the container or link of the image in it that could lead the write elsewhere and have
//! it succeed without effect (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::mounts;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::{LabelPlan, MountAttrs};

/// Has this process get its labels at its next execve.
///
/// To be called where a procfs can be made: before a user namespace is entered, or in a new one
/// while the host's `/proc` is still seen.
pub fn set(labels: &LabelPlan) -> Result<(), Fault> {
    if labels.is_empty() {
        return Ok(());
    }
    let proc = mounts::make("proc", &[], MountAttrs::default())?;
    let own = PathBuf::from(rustix::process::getpid().as_raw_nonzero().to_string()).join("attr");
    if let Some(profile) = &labels.apparmor {
        apparmor(proc.as_fd(), &own, profile)?;
    }
    if let Some(label) = &labels.selinux {
        selinux(proc.as_fd(), &own, label)?;
    }
    Ok(())
}

/// AppArmor's own file, or before kernel 5.8 the one that it shares with other modules.
fn apparmor(proc: BorrowedFd<'_>, own: &Path, profile: &str) -> Result<(), Fault> {
    let file = match open(proc, &own.join("apparmor/exec")) {
        Err(Errno::NOENT) => open(proc, &own.join("exec")),
        other => other,
    };
    let file = file
        .fault_at("openat2", "attr/apparmor/exec")
        .map_err(|fault| fault.because("this kernel has no AppArmor"))?;
    write(&file, &format!("exec {profile}"), profile).map_err(|fault| {
        let why = match fault.errno {
            libc::ENOENT => "no such profile is loaded; see apparmor_parser(8)",
            libc::EINVAL => "AppArmor is not active on this machine",
            libc::EACCES | libc::EPERM => "AppArmor does not let littlebox change to this profile",
            _ => return fault,
        };
        fault.because(why)
    })
}

fn selinux(proc: BorrowedFd<'_>, own: &Path, label: &str) -> Result<(), Fault> {
    let file = open(proc, &own.join("exec"))
        .fault_at("openat2", "attr/exec")
        .map_err(|fault| fault.because("this kernel has no SELinux"))?;
    write(&file, label, label).map_err(|fault| {
        let why = match fault.errno {
            libc::EINVAL => {
                "SELinux is not active on this machine, or its policy has no such label"
            }
            libc::EACCES | libc::EPERM => "SELinux does not let littlebox set this label",
            _ => return fault,
        };
        fault.because(why)
    })
}

fn open(proc: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    openat2(proc, path, flags, Mode::empty(), resolve)
}

/// The kernel takes a label in one write only.
fn write(file: &OwnedFd, text: &str, label: &str) -> Result<(), Fault> {
    let written = rustix::io::write(file, text.as_bytes()).fault_at("write", label)?;
    if written == text.len() {
        return Ok(());
    }
    Err(Fault::refused("the label was not taken as a whole").at(label))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    /// A directory with the files of `/proc/7/attr`, and a descriptor of it.
    fn fake(files: &[&str]) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join("7/attr").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let fd = fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    fn own() -> PathBuf {
        "7/attr".into()
    }

    fn read(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join("7/attr").join(file)).unwrap()
    }

    #[test]
    fn a_profile_goes_to_apparmors_own_file() {
        let (dir, fd) = fake(&["exec", "apparmor/exec"]);
        apparmor(fd.as_fd(), &own(), "docker-default").unwrap();
        assert_eq!(read(&dir, "apparmor/exec"), "exec docker-default");
        assert_eq!(read(&dir, "exec"), "");
    }

    #[test]
    fn an_older_kernel_has_one_file_for_all() {
        let (dir, fd) = fake(&["exec"]);
        apparmor(fd.as_fd(), &own(), "p").unwrap();
        assert_eq!(read(&dir, "exec"), "exec p");
    }

    #[test]
    fn a_label_is_written_as_it_is() {
        let (dir, fd) = fake(&["exec"]);
        let label = "system_u:system_r:container_t:s0:c1,c2";
        selinux(fd.as_fd(), &own(), label).unwrap();
        assert_eq!(read(&dir, "exec"), label);
    }

    #[test]
    fn a_link_is_not_followed() {
        let (dir, fd) = fake(&["current"]);
        let canary = dir.path().join("canary");
        fs::write(&canary, "").unwrap();
        std::os::unix::fs::symlink("../../canary", dir.path().join("7/attr/exec")).unwrap();
        let fault = selinux(fd.as_fd(), &own(), "l").unwrap_err();
        assert_eq!(fault.errno, libc::ELOOP);
        assert_eq!(fs::read_to_string(canary).unwrap(), "");
    }

    #[test]
    fn a_kernel_without_the_file_is_told() {
        let (_dir, fd) = fake(&["current"]);
        let fault = apparmor(fd.as_fd(), &own(), "p").unwrap_err();
        assert_eq!(fault.errno, libc::ENOENT);
        assert!(fault.detail.unwrap().contains("no AppArmor"));
    }
}
