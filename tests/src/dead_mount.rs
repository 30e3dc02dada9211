//! A file system that never answers, as one whose server has died.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A FUSE mount that nobody serves: who looks into it waits until it is dropped (fuse(4)), and can be
/// killed meanwhile.
#[derive(Debug)]
pub struct DeadMount {
    /// Where.
    pub path: PathBuf,
    server: Option<File>,
}

impl DeadMount {
    /// Mounts it on a new directory.
    #[track_caller]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        std::fs::create_dir(&path).unwrap();
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let server = server.expect("this kernel has FUSE");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            server.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("dead", &path, "fuse", flags, options.as_c_str()).unwrap();
        Self {
            path,
            server: Some(server),
        }
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // Whoever waits is answered with ENOTCONN.
        self.server = None;
        let _unmounted = unmount(&self.path, UnmountFlags::DETACH);
    }
}
