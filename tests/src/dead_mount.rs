//! A file system that never answers, as one whose server has died.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// A FUSE mount that nobody serves: who looks into it waits until it is dropped (fuse(4)).
#[derive(Debug)]
pub struct DeadMount {
    /// Where.
    pub path: PathBuf,
    server: Option<File>,
    reader: Option<(Arc<Taking>, JoinHandle<()>)>,
}

/// What a server knows that takes requests.
#[derive(Debug, Default)]
struct Taking {
    ends: AtomicBool,
    taken: AtomicUsize,
}

impl DeadMount {
    /// Mounts it on a directory, made when it is missing. Who looks into it can be killed.
    #[track_caller]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        std::fs::create_dir_all(&path).unwrap();
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
            reader: None,
        }
    }

    /// As [`DeadMount::new`], but who looks into it cannot be killed either: its request was taken by
    /// a server that does not answer.
    #[track_caller]
    pub fn unkillable(path: impl AsRef<Path>) -> Self {
        Self::served(path, |_| None)
    }

    /// As [`DeadMount::unkillable`], with a file of every name that can be opened; who reads one waits.
    #[track_caller]
    pub fn with_files(path: impl AsRef<Path>) -> Self {
        Self::served(path, answer_of_files)
    }

    #[track_caller]
    fn served(path: impl AsRef<Path>, answer: fn(&[u8]) -> Option<Vec<u8>>) -> Self {
        let mut dead = Self::new(path);
        let server = dead.server.take().unwrap();
        let taking = Arc::new(Taking::default());
        let told = taking.clone();
        let thread = std::thread::spawn(move || take_requests(server, &told, answer));
        dead.reader = Some((taking, thread));
        dead
    }

    /// How many requests were taken: so many wait that cannot be killed.
    pub fn taken(&self) -> usize {
        let taking = self.reader.as_ref().map(|(taking, _)| taking);
        taking.map_or(0, |taking| taking.taken.load(Ordering::Relaxed))
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // Whoever waits is answered with ENOTCONN.
        self.server = None;
        if let Some((taking, thread)) = self.reader.take() {
            taking.ends.store(true, Ordering::Relaxed);
            let _ended = thread.join();
        }
        let _unmounted = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// The answer to a request about a directory of files (fuse(4), `linux/fuse.h`); `None`: there is none.
fn answer_of_files(request: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let node = u64::from(number(16));
    // fuse_attr of a directory, which is the root, or of a file of 4096 bytes.
    let attr = |node: u64| {
        let mode = if node == 1 { 0o040_755 } else { 0o100_644_u32 };
        let mut attr = [0; 88];
        attr[..8].copy_from_slice(&node.to_ne_bytes());
        attr[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
        attr[60..64].copy_from_slice(&mode.to_ne_bytes());
        attr[64..68].copy_from_slice(&1_u32.to_ne_bytes());
        attr
    };
    let (error, body) = match number(4) {
        // FUSE_LOOKUP: fuse_entry_out, of node 2.
        1 => {
            let mut entry = vec![0; 40];
            entry[..8].copy_from_slice(&2_u64.to_ne_bytes());
            (0, [entry, attr(2).to_vec()].concat())
        }
        // FUSE_GETATTR: fuse_attr_out.
        3 => (0, [vec![0; 16], attr(node).to_vec()].concat()),
        // FUSE_OPEN: fuse_open_out.
        14 => (0, vec![0; 16]),
        // FUSE_FORGET, FUSE_INTERRUPT, FUSE_BATCH_FORGET, which have none, and FUSE_READ.
        2 | 15 | 36 | 42 => return None,
        _ => (-libc::ENOSYS, Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
    Some([&length[..], &error.to_ne_bytes(), &request[8..16], &body].concat())
}

/// Answers the first request, FUSE_INIT, so that there are others, and takes those that have no `answer`.
fn take_requests(mut server: File, taking: &Taking, answer: fn(&[u8]) -> Option<Vec<u8>>) {
    let mut request = vec![0; 1 << 20];
    let mut begun = false;
    while !taking.ends.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(&server, PollFlags::IN)];
        let pause = Timespec::try_from(Duration::from_millis(20)).unwrap();
        if !matches!(poll(&mut fds, Some(&pause)), Ok(1..)) {
            continue;
        }
        let Ok(len) = server.read(&mut request) else {
            continue;
        };
        if !begun && len >= 16 {
            // fuse_out_header: length, error, the request's number; fuse_init_out: 7.31 and zeros.
            let mut init = [0; 16 + 64];
            init[..4].copy_from_slice(&80_u32.to_ne_bytes());
            init[8..16].copy_from_slice(&request[8..16]);
            init[16..20].copy_from_slice(&7_u32.to_ne_bytes());
            init[20..24].copy_from_slice(&31_u32.to_ne_bytes());
            // FUSE_PARALLEL_DIROPS: who looks does not wait for the one before him.
            init[28..32].copy_from_slice(&(1_u32 << 18).to_ne_bytes());
            // max_write
            init[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
            server.write_all(&init).unwrap();
            begun = true;
        } else if let Some(answer) = answer(&request[..len]) {
            // Nobody waits for it any more: ENOENT.
            let _ = server.write_all(&answer);
        } else {
            taking.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A directory of the host that hands on what is mounted below it to those who have bound it.
#[derive(Debug)]
pub struct SharedDirectory {
    /// Where.
    pub path: PathBuf,
}

impl SharedDirectory {
    /// Makes it.
    #[track_caller]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        std::fs::create_dir(&path).unwrap();
        mount_bind(&path, &path).unwrap();
        mount_change(&path, MountPropagationFlags::SHARED).unwrap();
        Self { path }
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        let _unmounted = unmount(&self.path, UnmountFlags::DETACH);
    }
}
