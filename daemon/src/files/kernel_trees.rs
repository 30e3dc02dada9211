//! File systems of the kernel (procfs, sysfs, cgroups): their files are settings of the host, not files
//! of a container.
//!
//! By links and mounts a container chooses where an archive is unpacked, and the worker has rights there
//! that the container lacks. So nothing is created, written or chowned on these.

use std::os::fd::AsFd;

use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::{FileError, failed};

/// `f_type` (statfs(2), `linux/magic.h`).
const KERNELS: [u32; 23] = [
    0x0000_1cd1, // devpts
    0x0000_9fa0, // proc
    0x0027_e0eb, // cgroup
    0x0765_5821, // resctrl
    0x0a64_7361, // functionfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x4341_5d53, // smackfs
    0x5a3c_69f0, // apparmorfs
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0x6265_6572, // sysfs
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x6573_5543, // fusectl
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x6e73_6673, // nsfs
    0x7363_6673, // securityfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinuxfs
];

/// Returns the descriptor, unless it is on one of these.
///
/// # Errors
/// [`FileError::Refused`] with `EPERM`.
pub(super) fn not_the_kernels<F: AsFd>(fd: F, path: &[u8]) -> Result<F, FileError> {
    let found = fstatfs(&fd).map_err(|errno| failed("fstatfs", path, errno))?;
    // The type's width and sign are the machine's; magic numbers have 32 bits.
    let magic = i128::from(found.f_type) & i128::from(u32::MAX);
    let is = |kernels: u32| i128::from(kernels) == magic;
    match KERNELS.into_iter().any(is) {
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
