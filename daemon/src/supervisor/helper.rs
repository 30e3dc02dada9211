//! A connection to one running helper: numbered requests, and events as they happen.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use littlebox_helper::protocol::{Call, Event, FromHelper, Reply, Request, StepFailure, bounds};
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
    /// The helper is there and did not answer in time; the connection was given up.
    #[error("the helper does not answer")]
    Silent,
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
    /// It was given up because the helper did not answer.
    silent: AtomicBool,
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
            silent: AtomicBool::new(false),
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

    /// Sends a request and waits for its answer, for a bounded time.
    ///
    /// # Errors
    /// [`HelperError::Silent`] when the time is up: the connection is hung up then, which its
    /// listener is told as a loss. What was asked for may have been done.
    pub async fn call(&self, call: Call) -> Result<Answer, HelperError> {
        self.call_within(call, bounds::ANSWER).await
    }

    /// [`Helper::call`] of what may take so much longer than other calls.
    pub async fn slow_call(&self, call: Call, longer: Duration) -> Result<Answer, HelperError> {
        self.call_within(call, bounds::ANSWER + longer).await
    }

    async fn call_within(&self, call: Call, patience: Duration) -> Result<Answer, HelperError> {
        let seq = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        self.shared.pending().insert(seq, tell);
        // The request leaves the list with its future, however that ends.
        let _pending = Pending {
            shared: &self.shared,
            seq,
        };
        if self.is_gone() {
            return Err(self.lost());
        }
        let answered = async {
            self.send(&Request { seq, call }).await?;
            answer.await.map_err(|_closed| self.lost())
        };
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok((Reply::Failed(failure), _))) => Err(HelperError::Step(Box::new(failure))),
            Ok(answer) => answer,
            Err(_elapsed) => {
                self.give_up();
                Err(HelperError::Silent)
            }
        }
    }

    async fn send(&self, request: &Request) -> Result<(), HelperError> {
        match self.shared.socket.send(request, &[]).await {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(self.lost()),
            sent => Ok(sent?),
        }
    }

    /// Hangs up on a helper that does not answer: whoever else waits for it waits in vain.
    fn give_up(&self) {
        self.shared.silent.store(true, Ordering::Release);
        self.shared.socket.hang_up();
    }

    fn lost(&self) -> HelperError {
        if self.shared.silent.load(Ordering::Acquire) {
            HelperError::Silent
        } else {
            HelperError::Gone
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

/// A request that is answered, or waited for no more, when this is dropped.
struct Pending<'a> {
    shared: &'a Shared,
    seq: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.pending().remove(&self.seq);
    }
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
