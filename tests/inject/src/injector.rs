//! The verdict on every system call of a daemon and its processes.
//!
//! seccomp(2)'s user notification, not ptrace(2) (strace's `--inject`): one count over all threads
//! and one shot, job control and `SIGSTOP` stay as they are, and a call that goes on costs
//! microseconds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use syscalls::Sysno;

use crate::point::{Effect, Point};
use crate::role::{Role, Roles};
use crate::sys;

/// Each call that each kind of process has made, one after the other: whether it can fail.
pub type Calls = BTreeMap<(Role, Sysno), Vec<bool>>;

#[derive(Debug, Default)]
struct Shared {
    /// Counts only while an operation is under way.
    watching: bool,
    calls: Calls,
    armed: Option<Point>,
    fired: bool,
    /// A helper that has nothing to do with the operation.
    bystander: Option<u32>,
    /// Goes up when the known processes may be others.
    era: u32,
}

/// The supervisor of all daemons that are started by [`Injector::surroundings`].
#[derive(Debug)]
pub struct Injector {
    shared: Arc<Mutex<Shared>>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

/// What an operation was seen to do.
#[derive(Debug)]
pub struct Watched {
    /// Its system calls.
    pub calls: Calls,
    /// Whether the armed point was come to.
    pub fired: bool,
}

impl Injector {
    /// Listens for daemons.
    pub fn new() -> anyhow::Result<Injector> {
        let dir = tempfile::Builder::new().prefix("lbi-").tempdir()?;
        let socket = dir.path().join("injector.sock");
        let listener = UnixListener::bind(&socket)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for daemon in listener.incoming().flatten() {
                let shared = of_thread.clone();
                std::thread::spawn(move || serve(&daemon, &shared));
            }
        });
        Ok(Injector {
            shared,
            socket,
            _dir: dir,
        })
    }

    /// The command that a daemon is started behind.
    pub fn surroundings(&self) -> Vec<String> {
        let own = std::env::current_exe().expect("/proc is mounted");
        let text = |path: &Path| path.to_str().expect("own paths are text").to_owned();
        let words = ["under", "--injector"].map(str::to_owned);
        let mut command = vec![text(&own)];
        command.extend(words);
        command.extend([text(&self.socket), "--".to_owned()]);
        command
    }

    /// Counts what happens from here on, and lets `point` happen. Calls of `bystander` (the PID of a
    /// helper) are neither counted nor touched.
    pub fn watch(&self, point: Option<Point>, bystander: Option<u32>) {
        let mut shared = lock(&self.shared);
        *shared = Shared {
            watching: true,
            armed: point,
            bystander,
            era: shared.era + 1,
            ..Shared::default()
        };
    }

    /// The end of it.
    pub fn stop(&self) -> Watched {
        let mut shared = lock(&self.shared);
        shared.watching = false;
        shared.armed = None;
        Watched {
            calls: std::mem::take(&mut shared.calls),
            fired: shared.fired,
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one daemon's filter until nobody is under it any more.
fn serve(daemon: &UnixStream, shared: &Mutex<Shared>) {
    let Some((pid, listener)) = take_listener(daemon) else {
        return;
    };
    let mut roles = Roles::new(pid);
    let mut era = 0;
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().contains(PollFlags::HUP) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        // ENOENT: killed while it waited.
        let Ok(call) = sys::next(listener.as_fd()) else {
            continue;
        };
        let verdict = judge(call, &mut roles, &mut era, shared);
        let _killed_meanwhile = sys::answer(listener.as_fd(), call.id, verdict);
    }
}

/// The listener of a process that is about to be stopped by its own filter.
fn take_listener(daemon: &UnixStream) -> Option<(u32, OwnedFd)> {
    let mut line = String::new();
    BufReader::new(daemon).read_line(&mut line).ok()?;
    let (pid, number) = line.trim().split_once(' ')?;
    let (pid, number): (u32, i32) = (pid.parse().ok()?, number.parse().ok()?);
    let pidfd = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
    let link = format!("/proc/{pid}/fd/{number}");
    for _ in 0..10_000 {
        let target = std::fs::read_link(&link).unwrap_or_default();
        if target.to_string_lossy().contains("seccomp notify") {
            return Some((pid, sys::descriptor_of(pidfd.as_fd(), number).ok()?));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    None
}

/// The errno that a call gets instead of being made.
fn judge(
    call: sys::Notification,
    roles: &mut Roles,
    era: &mut u32,
    shared: &Mutex<Shared>,
) -> Option<i32> {
    let mut shared = lock(shared);
    if !shared.watching {
        return None;
    }
    if *era != shared.era {
        *era = shared.era;
        roles.forget();
    }
    let number = usize::try_from(call.number).ok().and_then(Sysno::new)?;
    let (process, role) = roles.of(call.thread);
    if role == Role::Program || shared.bystander == Some(process) {
        return None;
    }
    if is_counter(number, process, call.first) {
        return None;
    }
    let can_fail = !never_fails(number, &call);
    let calls = shared.calls.entry((role, number)).or_default();
    calls.push(can_fail);
    let nth = u32::try_from(calls.len()).unwrap_or(u32::MAX);
    let hit = |point: &Point| (point.role, point.call, point.nth) == (role, number, nth);
    let point = shared.armed.take_if(|point| hit(point))?;
    if !can_fail && point.effect != Effect::Killed {
        return None;
    }
    shared.fired = true;
    match point.effect {
        Effect::Fails(errno) => Some(errno.raw_os_error()),
        Effect::Killed => {
            kill(process);
            // A call that went on could still be made before the signal is looked at.
            Some(libc::EINTR)
        }
    }
}

/// Reading and writing a counter (eventfd(2)) or a timer fails for nobody who does it right, and
/// tokio takes it for granted.
fn is_counter(call: Sysno, process: u32, descriptor: u64) -> bool {
    matches!(call, Sysno::read | Sysno::write)
        && std::fs::read_link(format!("/proc/{process}/fd/{descriptor}"))
            .is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:"))
}

/// Of fcntl(2) only a duplication runs out of descriptors or memory. What gives back a lock of a local
/// file system does not fail, and SQLite takes that for granted.
fn never_fails(number: Sysno, call: &sys::Notification) -> bool {
    let duplicates = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].map(libc::c_int::unsigned_abs);
    number == Sysno::fcntl && !duplicates.map(u64::from).contains(&call.second)
}

fn kill(process: u32) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(pidfd) = pidfd {
        let _ended_by_itself = pidfd_send_signal(pidfd, Signal::KILL);
    }
}
