//! The only code that starts helpers and talks to them.
//!
//! [`Supervisor`] owns the zygote; [`Helper`] is a connection to one helper, fresh from the zygote
//! or found again through its path socket after a restart of the daemon.

mod helper;
pub mod home;
mod lanes;
mod seqpacket;
mod zygote;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use littlebox_protocol::{
    Call, CgroupPlan, First, FromHelper, IdMapping, LaunchPlan, Launched, NamespaceRef,
    NamespaceRelation, Reply, Request, RootfsPlan, StepFailure, Target, bounds,
};
use littlebox_types::{IdMap, IdMaps};

pub use helper::{Due, Helper, HelperError, Incoming, Listener};
pub use lanes::EXECS as EXECS_UNDER_WAY;
pub use seqpacket::SeqPacket;
pub use zygote::{HelperBinary, Zygote};

/// Why a helper could not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A step failed; the helper has undone everything.
    #[error("step {} failed", .0.step.name())]
    Step(StepFailure),
    /// The zygote or the helper could not be reached.
    #[error("cannot talk to the helper")]
    Io(#[from] io::Error),
    /// The helper did not answer for so long, and was killed.
    #[error("the helper did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// Nobody wants the program to start any more; the helper was killed.
    #[error("the start was cancelled")]
    Cancelled,
    /// The helper was gone before it answered.
    #[error("the helper ended before it answered{}", how(.0))]
    Lost(Option<String>),
}

fn how(detail: &Option<String>) -> String {
    detail
        .as_ref()
        .map(|d| format!(" ({d})"))
        .unwrap_or_default()
}

/// How long a zygote has to get ready where somebody only asks whether there is one.
const ZYGOTE_PATIENCE: Duration = Duration::from_secs(5);

/// Starts helpers.
#[derive(Debug)]
pub struct Supervisor {
    binary: HelperBinary,
    start_limit: Duration,
    zygote: tokio::sync::RwLock<Arc<Zygote>>,
    /// The next helper: forked while nobody waits for it, so that a start does not.
    standby: Mutex<Option<Fresh>>,
}

/// A helper that was asked for and has been told nothing yet. It ends when this is dropped.
#[derive(Debug)]
struct Fresh {
    socket: SeqPacket,
    forking: zygote::Forking,
    zygote: Arc<Zygote>,
}

impl Supervisor {
    /// The cgroup directory of the helpers, where they have one of their own.
    pub fn home(&self) -> Option<&Path> {
        self.binary.home()
    }

    /// Starts the zygote. Starts of programs may take as long as `start_limit`.
    pub async fn start(binary: HelperBinary, start_limit: Duration) -> io::Result<Self> {
        let zygote = Zygote::spawn(&binary).await?;
        let supervisor = Self {
            binary,
            start_limit,
            zygote: tokio::sync::RwLock::new(zygote),
            standby: Mutex::new(None),
        };
        supervisor.stand_by().await;
        if let Some(forking) = supervisor.standby_forking() {
            forking.forked().await;
        }
        Ok(supervisor)
    }

    /// How long the start of a program may take.
    pub fn start_limit(&self) -> Duration {
        self.start_limit
    }

    /// [`Supervisor::start_limit`] as plans say it.
    pub fn start_timeout_ms(&self) -> u64 {
        u64::try_from(self.start_limit.as_millis()).unwrap_or(u64::MAX)
    }

    /// The zygote's PID, for the system page.
    pub async fn zygote_pid(&self) -> u32 {
        self.zygote.read().await.pid()
    }

    /// Whether the zygote lives.
    pub async fn healthy(&self) -> bool {
        self.zygote.read().await.alive()
    }

    /// Starts another zygote when the last one has ended.
    ///
    /// # Errors
    /// Those of its start; `TimedOut` when it does not get ready.
    pub async fn ensure_zygote(&self) -> io::Result<()> {
        let zygote = self.zygote.read().await.clone();
        if zygote.alive() {
            return Ok(());
        }
        let another = tokio::time::timeout(ZYGOTE_PATIENCE, self.replace(&zygote));
        another.await?.map(drop)
    }

    /// Builds a container. On success the connection comes back with what was launched and the
    /// pidfd of the container's PID 1; the caller gives it a [`Listener`] with [`Helper::listen`].
    /// `cancelled` ends the start when it comes first.
    pub async fn launch(
        &self,
        plan: LaunchPlan,
        fds: &[OwnedFd],
        cancelled: impl Future<Output = ()>,
    ) -> Result<(Helper, Incoming, Launched, OwnedFd), StartError> {
        let first = First::Launch(Box::new(plan));
        let patience = self.start_limit.saturating_add(bounds::UNDO);
        let (socket, reply, mut received) = self.ask(&first, fds, patience, cancelled).await?;
        match reply {
            Reply::Launched(launched) => {
                if received.is_empty() {
                    // It came, but this process had no room for it.
                    end_unwatched(&socket).await;
                    return Err(StartError::Io(rustix::io::Errno::MFILE.into()));
                }
                let pidfd = received.swap_remove(0);
                let (helper, incoming) = Helper::new(socket);
                Ok((helper, incoming, *launched, pidfd))
            }
            Reply::Failed(failure) => Err(StartError::Step(failure)),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the root filesystem of a container that does not run, seen through the maps of its
    /// user namespace where it has one; the descriptor is its root.
    pub async fn open_rootfs(
        &self,
        plan: RootfsPlan,
        maps: Option<IdMaps>,
    ) -> Result<OwnedFd, StartError> {
        let (uid_map, gid_map) = maps.map_or_else(Default::default, |maps| {
            (helper_map(&maps.uid), helper_map(&maps.gid))
        });
        let first = First::OpenRootfs {
            plan,
            uid_map,
            gid_map,
        };
        let (reply, mut fds) = self.work(first).await?;
        match reply {
            Reply::Done if !fds.is_empty() => Ok(fds.swap_remove(0)),
            Reply::Failed(failure) => Err(StartError::Step(failure)),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends everything in a cgroup and removes it.
    pub async fn remove_cgroup(&self, plan: CgroupPlan) -> Result<(), StartError> {
        let (reply, _) = self.work(First::RemoveCgroup(Box::new(plan))).await?;
        match reply {
            Reply::Done => Ok(()),
            Reply::Failed(failure) => Err(StartError::Step(failure)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the kernel about namespaces: owner, parent, id.
    pub async fn namespace_relations(
        &self,
        namespaces: Vec<NamespaceRef>,
    ) -> Result<Vec<NamespaceRelation>, StartError> {
        let (reply, _) = self.work(First::NamespaceRelations(namespaces)).await?;
        match reply {
            Reply::NamespaceRelations(relations) => Ok(relations),
            Reply::Failed(failure) => Err(StartError::Step(failure)),
            other => Err(unexpected(&other)),
        }
    }

    /// Finds a running helper again by its directory.
    pub fn reconnect(run_dir: &Path) -> io::Result<(Helper, Incoming)> {
        let socket = SeqPacket::connect(run_dir, littlebox_protocol::HELPER_SOCKET)?;
        Ok(Helper::new(socket))
    }

    /// A helper that does one thing and ends.
    async fn work(&self, first: First) -> Result<(Reply, Vec<OwnedFd>), StartError> {
        let (_, reply, fds) = self
            .ask(&first, &[], bounds::WORK, std::future::pending())
            .await?;
        Ok((reply, fds))
    }

    /// Starts a helper with its first message and waits for the answer, for a bounded time. A zygote that dies under
    /// the request, before there is a helper, costs a second try and nothing else.
    async fn ask(
        &self,
        first: &First,
        fds: &[OwnedFd],
        patience: Duration,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(SeqPacket, Reply, Vec<OwnedFd>), StartError> {
        let mut cancelled = std::pin::pin!(cancelled);
        let mut helper = self.tell_fresh(first, fds).await?;
        self.stand_by().await;
        let mut answer = helper.first_reply(patience, cancelled.as_mut()).await;
        if matches!(answer, Err(StartError::Lost(_))) && helper.forking.was_never_forked() {
            tracing::warn!("the zygote ended under a request; asking another");
            helper = self.tell_fresh(first, fds).await?;
            answer = helper.first_reply(patience, cancelled).await;
        }
        // The zygote may have died under the request for the one that stands by.
        self.stand_by().await;
        let (reply, received) = answer?;
        Ok((helper.socket, reply, received))
    }

    /// Writes the first message to the helper that stands by, or to one that is forked for it.
    async fn tell_fresh(&self, first: &First, fds: &[OwnedFd]) -> Result<Fresh, StartError> {
        let standby = self.standby().take();
        if let Some(helper) = standby
            && helper.tell(first, fds).await?
        {
            return Ok(helper);
        }
        let helper = self.fork().await?;
        // Where nobody is there to read it, the answer, which does not come, tells why.
        let _read = helper.tell(first, fds).await?;
        Ok(helper)
    }

    /// Asks the zygote for a helper, without waiting for the fork: its connection holds what is
    /// written until the helper reads.
    async fn fork(&self) -> io::Result<Fresh> {
        let (socket, theirs) = SeqPacket::pair()?;
        let mut zygote = self.zygote.read().await.clone();
        let forking = match zygote.fork(theirs.as_fd()).await {
            Ok(forking) => forking,
            // Whatever else fails (no memory, no descriptors) is no fault of the zygote's.
            Err(e) if !is_hang_up(&e) => return Err(e),
            Err(e) => {
                tracing::warn!(error = %e, "the zygote is gone; starting another");
                zygote = self.replace(&zygote).await?;
                zygote.fork(theirs.as_fd()).await?
            }
        };
        Ok(Fresh {
            socket,
            forking,
            zygote,
        })
    }

    /// Has the next helper forked.
    async fn stand_by(&self) {
        let stands = |standby: &Fresh| !standby.forking.was_never_forked();
        if self.standby().as_ref().is_some_and(stands) {
            return;
        }
        match self.fork().await {
            Ok(helper) => *self.standby() = Some(helper),
            // The next start forks its own, or tells why it cannot.
            Err(error) => tracing::debug!(%error, "no helper stands by"),
        }
    }

    fn standby_forking(&self) -> Option<zygote::Forking> {
        self.standby().as_ref().map(|helper| helper.forking.clone())
    }

    fn standby(&self) -> std::sync::MutexGuard<'_, Option<Fresh>> {
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn replace(&self, dead: &Arc<Zygote>) -> io::Result<Arc<Zygote>> {
        let mut current = self.zygote.write().await;
        if Arc::ptr_eq(&current, dead) {
            *current = Zygote::spawn(&self.binary).await?;
            dead.retire();
            // One that the old zygote has forked.
            *self.standby() = None;
        }
        Ok(current.clone())
    }
}

impl Fresh {
    /// Writes the first message. `false`: there is no helper any more.
    async fn tell(&self, first: &First, fds: &[OwnedFd]) -> io::Result<bool> {
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match self.socket.send(first, &borrowed).await {
            Err(e) if is_hang_up(&e) => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    /// Waits for the answer to the first message. A helper that gives none is killed: it has told
    /// nobody that its container runs.
    async fn first_reply(
        &self,
        patience: Duration,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(Reply, Vec<OwnedFd>), StartError> {
        if !self.forking.forked().await {
            tracing::error!(pid = self.zygote.pid(), "the zygote does not answer");
            self.zygote.retire();
        }
        let answer = tokio::select! {
            answer = self.socket.recv::<FromHelper>() => answer,
            () = tokio::time::sleep(patience) => {
                self.forking.kill();
                return Err(StartError::Silent(patience));
            }
            () = cancelled => {
                self.forking.kill();
                return Err(StartError::Cancelled);
            }
        };
        match answer {
            Ok(Some((FromHelper::Reply { seq: 0, reply }, fds))) => Ok((reply, fds)),
            Ok(Some(_)) => Err(StartError::Lost(Some("it answered out of turn".into()))),
            Ok(None) => Err(StartError::Lost(self.forking.fate().await)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                Err(StartError::Lost(self.forking.fate().await))
            }
            Err(e) => Err(StartError::Io(e)),
        }
    }
}

/// Whether an error says that the peer is gone.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Has a helper end a container that was launched and cannot be watched; without a single
/// descriptor, as there are none. The helper is gone when its connection ends.
async fn end_unwatched(socket: &SeqPacket) {
    let call = Call::Signal {
        target: Target::Container,
        signal: rustix::process::Signal::KILL.as_raw(),
        all: true,
    };
    if socket.send(&Request { seq: 1, call }, &[]).await.is_err() {
        return;
    }
    let ended = async { while let Ok(Some(_)) = socket.recv::<FromHelper>().await {} };
    if tokio::time::timeout(bounds::END, ended).await.is_err() {
        tracing::error!("a container that could not be watched does not end");
    }
}

fn unexpected(reply: &Reply) -> StartError {
    StartError::Lost(Some(format!("it answered with {reply:?}")))
}

/// A map of the API as the helper takes it.
pub fn helper_map(map: &[IdMap]) -> Vec<IdMapping> {
    map.iter()
        .map(|line| IdMapping {
            container_id: line.container_id,
            host_id: line.host_id,
            size: line.size,
        })
        .collect()
}
