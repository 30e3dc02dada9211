//! The zygote: a small single-threaded process, made once, whose only work is to fork helpers.
//!
//! It runs from a sealed memfd with a copy of the helper's binary, so nothing that a container
//! reaches through `/proc/PID/exe` can be written to (CVE-2019-5736), and an upgrade of the file
//! on disk does not change helpers in mid-flight.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use littlebox_protocol::{PROTOCOL_VERSION, ProcessExit, TEST_FAULTS, ZygoteEvent, ZygoteRequest};
use rustix::fs::{MemfdFlags, SealFlags};
use tokio::sync::{Notify, watch};

use super::seqpacket::SeqPacket;
use crate::faults::{self, Defence};
use crate::spec::signal_name;

/// How long a killed zygote may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long a zygote may take to fork. It does nothing else.
const FORK_PATIENCE: Duration = Duration::from_secs(5);

/// The helper's program, sealed.
#[derive(Debug)]
pub struct HelperBinary {
    program: OwnedFd,
    home: Option<PathBuf>,
}

impl HelperBinary {
    /// Copies the file at `path` into a memfd and seals it.
    pub fn load(path: &Path) -> io::Result<Self> {
        if !Defence::SealedHelper.stands() {
            let program = std::fs::File::open(path)?.into();
            return Ok(Self {
                program,
                home: None,
            });
        }
        let bytes = std::fs::read(path)?;
        // MFD_EXEC: hosts with vm.memfd_noexec=1 refuse to execute others (memfd_create(2)).
        let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("littlebox-helper", base | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create("littlebox-helper", base))?;
        let mut file = std::fs::File::from(memfd);
        file.write_all(&bytes)?;
        let program = OwnedFd::from(file);
        // In a call of its own, because kernels before 6.3 do not know it. Without it, root in a
        // container that opened the program by its magic link could make it one that nobody can
        // execute any more.
        let _ = rustix::fs::fcntl_add_seals(&program, SealFlags::EXEC);
        rustix::fs::fcntl_add_seals(
            &program,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(Self {
            program,
            home: None,
        })
    }

    /// Has zygotes, and so helpers, live in this cgroup directory.
    #[must_use]
    pub fn at_home_in(mut self, home: Option<PathBuf>) -> Self {
        self.home = home;
        self
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

/// What the reader task and the callers share.
#[derive(Debug, Default)]
struct Shared {
    /// One entry per fork that was asked for and not yet answered, oldest first.
    waiting: Mutex<VecDeque<watch::Sender<Fork>>>,
    /// Helpers by PID, until they are reaped.
    running: Mutex<HashMap<u32, watch::Sender<Fork>>>,
    dead: AtomicBool,
    /// Another has taken its place.
    retired: Notify,
}

/// How far a fork has come.
#[derive(Debug, Clone)]
enum Fork {
    Asked,
    Failed(i32),
    /// With its pidfd, unless this process had no room for it.
    Running(Option<Arc<OwnedFd>>),
    Ended(ProcessExit),
    /// The zygote was gone before it answered: there is no helper.
    NeverForked,
    ZygoteGone,
}

/// A fork in flight: tells later how the helper ended.
#[derive(Debug, Clone)]
pub struct Forking {
    state: watch::Receiver<Fork>,
}

impl Forking {
    /// Waits until there is a helper, or none will be. `false`: the zygote does not answer.
    pub async fn forked(&self) -> bool {
        let mut state = self.state.clone();
        let answered = state.wait_for(|fork| !matches!(fork, Fork::Asked));
        tokio::time::timeout(FORK_PATIENCE, answered).await.is_ok()
    }

    /// Ends the helper, whatever it does. No other process can be hit.
    pub fn kill(&self) {
        if let Fork::Running(Some(pidfd)) = &*self.state.borrow() {
            // ESRCH: it has ended.
            let _ended = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }

    /// How the helper ended, in words. Waits shortly: the zygote's word may come after the
    /// connection's end.
    pub async fn fate(&self) -> Option<String> {
        let mut state = self.state.clone();
        let ended = state.wait_for(|f| !matches!(f, Fork::Asked | Fork::Running(_)));
        let fork = tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .ok()?
            .ok()?
            .clone();
        match fork {
            Fork::Asked | Fork::Running(_) => None,
            Fork::Failed(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                Some(format!("it could not be forked: {error}"))
            }
            Fork::Ended(ProcessExit::Code(code)) => Some(format!("it exited with code {code}")),
            Fork::Ended(ProcessExit::Signal(n)) => {
                Some(format!("it was ended by {}", signal_name(n)))
            }
            Fork::NeverForked | Fork::ZygoteGone => Some("the zygote is gone".to_owned()),
        }
    }

    /// Whether it is known that no helper came about, because the zygote ended before: then
    /// another zygote can be asked.
    pub fn was_never_forked(&self) -> bool {
        matches!(*self.state.borrow(), Fork::NeverForked)
    }
}

/// A running zygote.
#[derive(Debug)]
pub struct Zygote {
    socket: Arc<SeqPacket>,
    shared: Arc<Shared>,
    /// Keeps request and queue in the same order.
    order: tokio::sync::Mutex<()>,
    pid: u32,
}

impl Zygote {
    /// Executes the helper's binary as a zygote and waits until it is ready.
    pub async fn spawn(binary: &HelperBinary) -> io::Result<Arc<Self>> {
        let (socket, theirs) = SeqPacket::pair()?;
        let child = Command::new(format!("/proc/self/fd/{}", binary.program.as_raw_fd()))
            .arg0("littlebox-helper")
            .arg("zygote")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .env_clear()
            .envs(faults::enabled().then_some((TEST_FAULTS, "1")))
            .current_dir("/")
            .spawn()?;
        let pid = child.id();
        let ready = tokio::time::timeout(Duration::from_secs(10), socket.recv::<ZygoteEvent>())
            .await
            .map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the zygote did not get ready")
            })??;
        match ready {
            Some((ZygoteEvent::Ready { version, .. }, _)) if version == PROTOCOL_VERSION => {}
            Some((ZygoteEvent::Ready { version, .. }, _)) => {
                return Err(io::Error::other(format!(
                    "littlebox-helper speaks protocol {version}, this daemon {PROTOCOL_VERSION}; \
                     install both from the same release"
                )));
            }
            _ => {
                return Err(io::Error::other(
                    "littlebox-helper did not start as a zygote",
                ));
            }
        }
        if let Some(home) = &binary.home {
            super::home::enter(home, pid)?;
        }
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared::default());
        crate::vital::spawn("zygote", read(socket.clone(), shared.clone(), child));
        Ok(Arc::new(Self {
            socket,
            shared,
            order: tokio::sync::Mutex::new(()),
            pid,
        }))
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether its connection stands.
    pub fn alive(&self) -> bool {
        !self.shared.dead.load(Ordering::Relaxed)
    }

    /// Ends it; helpers that it has forked go on.
    pub fn retire(&self) {
        self.shared.dead.store(true, Ordering::Relaxed);
        self.shared.retired.notify_one();
    }

    /// Asks for a helper whose first connection is `connection`. Does not wait for the fork.
    pub async fn fork(&self, connection: BorrowedFd<'_>) -> io::Result<Forking> {
        if !self.alive() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (tell, state) = watch::channel(Fork::Asked);
        let asked = tokio::time::timeout(FORK_PATIENCE, self.queue(tell, connection));
        match asked.await {
            Ok(asked) => asked.map(|()| Forking { state }),
            // Its queue is full of what it does not read.
            Err(_elapsed) => {
                self.retire();
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    async fn queue(&self, tell: watch::Sender<Fork>, connection: BorrowedFd<'_>) -> io::Result<()> {
        let _order = self.order.lock().await;
        lock(&self.shared.waiting).push_back(tell);
        let asked = self.socket.send(&ZygoteRequest::Fork, &[connection]).await;
        if asked.is_err() {
            lock(&self.shared.waiting).pop_back();
        }
        asked
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks; a poisoned one is still consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(socket: Arc<SeqPacket>, shared: Arc<Shared>, child: Child) {
    loop {
        let received = tokio::select! {
            received = socket.recv::<ZygoteEvent>() => received,
            () = shared.retired.notified() => break,
        };
        match received {
            Ok(Some((event, fds))) => shared.handle(event, fds),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the zygote's connection broke");
                break;
            }
        }
    }
    shared.dead.store(true, Ordering::Relaxed);
    for tell in lock(&shared.waiting).drain(..) {
        tell.send_replace(Fork::NeverForked);
    }
    for (_, tell) in lock(&shared.running).drain() {
        tell.send_replace(Fork::ZygoteGone);
    }
    let status = end(child).await;
    tracing::warn!(
        ?status,
        "the zygote ended; another is started when it is needed"
    );
}

/// Ends a zygote that may still run, when only its connection broke: nobody will ask it for anything
/// again. Bounded, because the kill may fail.
async fn end(mut child: Child) -> io::Result<Option<ExitStatus>> {
    if let Err(error) = child.kill() {
        tracing::error!(%error, pid = child.id(), "cannot kill a zygote");
    }
    let deadline = tokio::time::Instant::now() + END_PATIENCE;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || tokio::time::Instant::now() > deadline {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Shared {
    fn handle(&self, event: ZygoteEvent, mut fds: Vec<OwnedFd>) {
        match event {
            ZygoteEvent::Ready { .. } => {}
            ZygoteEvent::Forked { pid } => {
                if let Some(tell) = lock(&self.waiting).pop_front() {
                    tell.send_replace(Fork::Running(fds.pop().map(Arc::new)));
                    lock(&self.running).insert(pid, tell);
                }
            }
            ZygoteEvent::ForkFailed { errno } => {
                if let Some(tell) = lock(&self.waiting).pop_front() {
                    tell.send_replace(Fork::Failed(errno));
                }
            }
            ZygoteEvent::Reaped { pid, status } => {
                if let Some(tell) = lock(&self.running).remove(&pid) {
                    tell.send_replace(Fork::Ended(status));
                }
            }
        }
    }
}
