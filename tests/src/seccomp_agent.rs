//! A seccomp agent as one would run it on a host (OCI config-linux.md, "Seccomp"): it is given the
//! listeners of filters and decides about their calls.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

#[path = "../inject/src/sys.rs"]
#[allow(dead_code, reason = "that of the injector, which uses more of it")]
mod sys;

pub use sys::Notification;

/// How long a thread of the agent looks before it looks whether the agent is to end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What becomes of a call: `None` lets it go on, else it fails with this errno, or succeeds with 0.
pub type Verdict = Option<i32>;

type Decide = dyn Fn(&Notification) -> Verdict + Send + Sync;

/// An agent that runs until it is dropped.
pub struct SeccompAgent {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    decide: Box<Decide>,
    introduced: Mutex<Vec<Value>>,
    over: AtomicBool,
}

impl SeccompAgent {
    /// Listens on a path, for root alone.
    pub fn new(
        path: &Path,
        decide: impl Fn(&Notification) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let socket = UnixListener::bind(path).expect("the agent's path is free");
        let shared = Arc::new(Shared {
            decide: Box::new(decide),
            introduced: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        Self {
            path: path.to_owned(),
            shared,
            thread: Some(thread::spawn(move || theirs.accept(&socket))),
        }
    }

    /// What it was told with each listener.
    pub fn introduced(&self) -> Vec<Value> {
        let introduced = self.shared.introduced.lock();
        introduced
            .expect("the agent's threads do not panic")
            .clone()
    }
}

impl Drop for SeccompAgent {
    /// All listeners are closed when this returns.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.path);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the agent has failed");
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, socket: &UnixListener) {
        let mut serving = Vec::new();
        while self.waits_for(socket) {
            let (connection, _) = socket.accept().expect("somebody connects");
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let shared = Arc::clone(self);
            serving.push(thread::spawn(move || shared.serve(connection)));
        }
        for thread in serving {
            thread.join().expect("the agent serves");
        }
    }

    /// `false`: the agent is to end.
    fn waits_for(&self, fd: impl AsFd) -> bool {
        while !self.over.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            if poll(&mut fds, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
                return true;
            }
        }
        false
    }

    fn serve(&self, connection: UnixStream) {
        // Whoever only looks whether somebody listens says nothing.
        let Some((state, listener)) = self.receive(connection) else {
            return;
        };
        self.introduced
            .lock()
            .expect("no thread panics")
            .push(state);
        while self.waits_for(&listener) {
            // It is readable and there is nothing: nobody is under the filter any more.
            let mut fds = [PollFd::new(&listener, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&LOOK));
            if !fds[0].revents().contains(PollFlags::IN) {
                return;
            }
            let Ok(notification) = sys::next(listener.as_fd()) else {
                continue;
            };
            let verdict = (self.decide)(&notification);
            // Its thread may have been killed meanwhile.
            let _ = sys::answer(listener.as_fd(), notification.id, verdict);
        }
    }

    /// One message with one descriptor, and then the end.
    fn receive(&self, mut connection: UnixStream) -> Option<(Value, OwnedFd)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; 65536];
        if !self.waits_for(&connection) {
            return None;
        }
        let received = recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        text.truncate(received.expect("the agent is told something").bytes);
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if text.is_empty() {
            return None;
        }
        connection.read_to_end(&mut text).expect("the rest comes");
        let state = serde_json::from_slice(&text).expect("a container process state");
        let [listener] = fds.try_into().expect("one descriptor");
        Some((state, listener))
    }
}

/// The path that a call has as its first argument.
pub fn path_of(notification: &Notification) -> PathBuf {
    let memory = fs::File::open(format!("/proc/{}/mem", notification.thread));
    let mut bytes = [0; 4096];
    let read = memory.and_then(|memory| memory.read_at(&mut bytes, notification.first));
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    assert!(read.is_ok(), "the caller waits");
    String::from_utf8_lossy(text).into_owned().into()
}

/// mkdir(2) for a caller, of a directory with `-made` at the end of its name.
pub fn make_another_directory(notification: &Notification) -> Verdict {
    let path = path_of(notification);
    let root = PathBuf::from(format!("/proc/{}/root", notification.thread));
    let inside = path.strip_prefix("/").expect("tests name absolute paths");
    let made = fs::create_dir(root.join(format!("{}-made", inside.display())));
    Some(made.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
}
