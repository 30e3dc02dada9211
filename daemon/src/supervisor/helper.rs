//! A connection to one running helper: numbered requests, and events as they happen.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use littlebox_helper::protocol::{Call, Event, FromHelper, Reply, Request, StepFailure};
use tokio::sync::oneshot;

use super::seqpacket::SeqPacket;

/// Why a call had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The helper tried and failed.
    #[error("step {} failed", .0.step.name())]
    Step(Box<StepFailure>),
    /// The helper is gone.
    #[error("the helper is gone")]
    Gone,
    /// The message could not be sent.
    #[error("cannot talk to the helper")]
    Io(#[from] io::Error),
    /// A reply of another kind than the request's.
    #[error("the helper answered with something else than asked for")]
    Protocol,
}

type Answer = (Reply, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
    socket: SeqPacket,
    next: AtomicU64,
    gone: AtomicBool,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

/// The calling side of a connection.
#[derive(Debug, Clone)]
pub struct Helper {
    shared: Arc<Shared>,
}

/// The listening side of a connection; one task drives it with [`Incoming::run`].
#[derive(Debug)]
pub struct Incoming {
    shared: Arc<Shared>,
}

/// Who is told what happens in a container.
pub trait Listener: Send + Sync + 'static {
    /// Something happened. Events come in the helper's order.
    fn event(&self, event: Event);
    /// The connection has ended: after `Exited` this is as it should be.
    fn lost(&self);
}

impl Helper {
    pub(super) fn new(socket: SeqPacket) -> (Self, Incoming) {
        let shared = Arc::new(Shared {
            socket,
            next: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            pending: Mutex::new(HashMap::new()),
        });
        (
            Self {
                shared: shared.clone(),
            },
            Incoming { shared },
        )
    }

    /// The PID of a helper that was reconnected to.
    pub fn pid(&self) -> Option<u32> {
        self.shared.socket.peer()
    }

    /// Whether the connection has ended.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, call: Call) -> Result<Answer, HelperError> {
        let seq = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        self.shared.pending().insert(seq, tell);
        if self.shared.gone.load(Ordering::Acquire) {
            self.shared.pending().remove(&seq);
            return Err(HelperError::Gone);
        }
        if let Err(e) = self.shared.socket.send(&Request { seq, call }, &[]).await {
            self.shared.pending().remove(&seq);
            return match e.raw_os_error() {
                Some(libc_epipe) if libc_epipe == rustix::io::Errno::PIPE.raw_os_error() => {
                    Err(HelperError::Gone)
                }
                _ => Err(e.into()),
            };
        }
        match answer.await {
            Ok((Reply::Failed(failure), _)) => Err(HelperError::Step(Box::new(failure))),
            Ok(answer) => Ok(answer),
            Err(_closed) => Err(HelperError::Gone),
        }
    }

    /// [`Helper::call`] for requests that are answered by [`Reply::Done`].
    pub async fn done(&self, call: Call) -> Result<Vec<OwnedFd>, HelperError> {
        match self.call(call).await? {
            (Reply::Done, fds) => Ok(fds),
            _ => Err(HelperError::Protocol),
        }
    }

    /// [`Helper::done`] for requests that hand over one descriptor. One that does not come had no
    /// room in this process.
    pub async fn descriptor(&self, call: Call) -> Result<OwnedFd, HelperError> {
        self.done(call)
            .await?
            .into_iter()
            .next()
            .ok_or_else(|| HelperError::Io(rustix::io::Errno::MFILE.into()))
    }
}

impl Incoming {
    /// Drives the connection until it ends.
    pub async fn run(self, listener: impl Listener) {
        loop {
            match self.shared.socket.recv::<FromHelper>().await {
                Ok(Some((FromHelper::Reply { seq, reply }, fds))) => {
                    if let Some(tell) = self.shared.pending().remove(&seq) {
                        // The caller may have gone; the descriptors close here then.
                        let _ = tell.send((reply, fds));
                    }
                }
                Ok(Some((FromHelper::Event(event), _))) => listener.event(event),
                Ok(None) => break,
                Err(error) => {
                    if error.kind() != io::ErrorKind::ConnectionReset {
                        tracing::warn!(%error, "a helper's connection broke");
                    }
                    break;
                }
            }
        }
        self.shared.gone.store(true, Ordering::Release);
        self.shared.pending().clear();
        listener.lost();
    }
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
