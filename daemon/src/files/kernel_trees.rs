//! File systems of the kernel (procfs, sysfs, cgroups): their files are settings of the host, not files
//! of a container.
//!
//! By links and mounts a container chooses where an archive is unpacked, and the worker has rights there
//! that the container lacks. So nothing is created, written or chowned on these.

use std::os::fd::AsFd;

use littlebox_protocol::file_systems::is_kernel_interface;
use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::{FileError, failed};

/// Returns the descriptor, unless it is on one of these.
///
/// # Errors
/// [`FileError::Refused`] with `EPERM`.
pub(super) fn not_the_kernels<F: AsFd>(fd: F, path: &[u8]) -> Result<F, FileError> {
    let found = fstatfs(&fd).map_err(|errno| failed("fstatfs", path, errno))?;
    match is_kernel_interface(found.f_type) {
        true => Err(failed("write to", path, Errno::PERM)),
        false => Ok(fd),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_the_kernels_is_told_by_any_descriptor() {
        for path in ["/proc", "/proc/sys", "/proc/version", "/sys", "/sys/kernel"] {
            let refused = not_the_kernels(File::open(path).unwrap(), path.as_bytes());
            let error = refused.unwrap_err();
            assert!(
                matches!(error, FileError::Refused { .. }),
                "{path}: {error:?}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        not_the_kernels(File::open(dir.path()).unwrap(), b"/").unwrap();
    }
}
