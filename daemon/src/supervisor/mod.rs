//! The only code that starts helpers and talks to them.
//!
//! [`Supervisor`] owns the zygote; [`Helper`] is a connection to one helper, fresh from the zygote
//! or found again through its path socket after a restart of the daemon.

mod helper;
pub mod home;
mod seqpacket;
mod zygote;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lbctl::types::{IdMap, IdMaps};
use littlebox_helper::protocol::{
    Call, CgroupPlan, First, FromHelper, IdMapping, LaunchPlan, Launched, NamespaceRef,
    NamespaceRelation, Reply, Request, RootfsPlan, StepFailure, Target,
};

pub use helper::{Helper, HelperError, Incoming, Listener};
use seqpacket::SeqPacket;
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

/// Starts helpers.
#[derive(Debug)]
pub struct Supervisor {
    binary: HelperBinary,
    zygote: tokio::sync::RwLock<Arc<Zygote>>,
}

impl Supervisor {
    /// Starts the zygote.
    pub async fn start(binary: HelperBinary) -> io::Result<Self> {
        let zygote = Zygote::spawn(&binary).await?;
        Ok(Self {
            binary,
            zygote: tokio::sync::RwLock::new(zygote),
        })
    }

    /// The zygote's PID, for the system page.
    pub async fn zygote_pid(&self) -> u32 {
        self.zygote.read().await.pid()
    }

    /// Whether the zygote lives.
    pub async fn healthy(&self) -> bool {
        self.zygote.read().await.alive()
    }

    /// Builds a container. On success the connection comes back with what was launched and the
    /// pidfd of the container's PID 1; the caller gives it a [`Listener`] with [`Helper::listen`].
    pub async fn launch(
        &self,
        plan: LaunchPlan,
        fds: &[OwnedFd],
    ) -> Result<(Helper, Incoming, Launched, OwnedFd), StartError> {
        let first = First::Launch(Box::new(plan));
        let (socket, reply, mut received) = self.ask(&first, fds).await?;
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
        let socket = SeqPacket::connect(run_dir, littlebox_helper::protocol::HELPER_SOCKET)?;
        Ok(Helper::new(socket))
    }

    /// A helper that does one thing and ends.
    async fn work(&self, first: First) -> Result<(Reply, Vec<OwnedFd>), StartError> {
        let (_, reply, fds) = self.ask(&first, &[]).await?;
        Ok((reply, fds))
    }

    /// Starts a helper with its first message and waits for the answer. A zygote that dies under
    /// the request, before there is a helper, costs a second try and nothing else.
    async fn ask(
        &self,
        first: &First,
        fds: &[OwnedFd],
    ) -> Result<(SeqPacket, Reply, Vec<OwnedFd>), StartError> {
        let (mut socket, mut forking) = self.fork(first, fds).await?;
        let mut answer = self.first_reply(&socket, &forking).await;
        if matches!(answer, Err(StartError::Lost(_))) && forking.was_never_forked() {
            tracing::warn!("the zygote ended under a request; asking another");
            (socket, forking) = self.fork(first, fds).await?;
            answer = self.first_reply(&socket, &forking).await;
        }
        let (reply, received) = answer?;
        Ok((socket, reply, received))
    }

    /// Asks the zygote for a helper and writes its first message into the connection at once,
    /// without waiting for the fork: the socket pair holds it until the helper reads.
    async fn fork(
        &self,
        first: &First,
        fds: &[OwnedFd],
    ) -> Result<(SeqPacket, zygote::Forking), StartError> {
        let (ours, theirs) = SeqPacket::pair()?;
        let zygote = self.zygote.read().await.clone();
        let pid = match zygote.fork(theirs.as_fd()).await {
            Ok(pid) => pid,
            Err(e) => {
                tracing::warn!(error = %e, "the zygote does not answer; starting another");
                self.replace(&zygote).await?.fork(theirs.as_fd()).await?
            }
        };
        drop(theirs);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match ours.send(first, &borrowed).await {
            // Nobody is there to read it: the answer, which does not come, tells why.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            sent => sent?,
        }
        Ok((ours, pid))
    }

    async fn replace(&self, dead: &Arc<Zygote>) -> io::Result<Arc<Zygote>> {
        let mut current = self.zygote.write().await;
        if Arc::ptr_eq(&current, dead) {
            *current = Zygote::spawn(&self.binary).await?;
        }
        Ok(current.clone())
    }

    async fn first_reply(
        &self,
        socket: &SeqPacket,
        forking: &zygote::Forking,
    ) -> Result<(Reply, Vec<OwnedFd>), StartError> {
        match socket.recv::<FromHelper>().await {
            Ok(Some((FromHelper::Reply { seq: 0, reply }, fds))) => Ok((reply, fds)),
            Ok(Some(_)) => Err(StartError::Lost(Some("it answered out of turn".into()))),
            Ok(None) => Err(StartError::Lost(forking.fate().await)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                Err(StartError::Lost(forking.fate().await))
            }
            Err(e) => Err(StartError::Io(e)),
        }
    }
}

/// How long a container that cannot be watched may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

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
    if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
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
