//! A connection to one running helper: numbered requests, and events as they happen.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use littlebox_protocol::{Call, Event, FromHelper, Reply, Request, StepFailure, bounds};
use tokio::sync::{SemaphorePermit, oneshot};

use super::is_hang_up;
use super::lanes::Lanes;
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
    #[error("the helper's answer does not fit the question")]
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
    lanes: Lanes,
    patience: Duration,
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

/// A request whose turn has come.
#[derive(Debug)]
pub struct Due<'a> {
    helper: &'a Helper,
    call: Call,
    _turn: Option<SemaphorePermit<'a>>,
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
        Self::with_patience(socket, bounds::ANSWER)
    }

    fn with_patience(socket: SeqPacket, patience: Duration) -> (Self, Incoming) {
        let shared = Arc::new(Shared {
            socket,
            next: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            pending: Mutex::new(HashMap::new()),
            lanes: Lanes::default(),
            patience,
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

    /// Waits for a request's turn. A helper answers one after the other, so the time that others take
    /// is not counted against any.
    pub async fn due(&self, call: Call) -> Due<'_> {
        let turn = self.shared.lanes.turn(&call).await;
        Due {
            helper: self,
            call,
            _turn: turn,
        }
    }

    /// Sends a request when its turn has come, and waits for its answer: [`Due::call`].
    pub async fn call(&self, call: Call) -> Result<Answer, HelperError> {
        self.due(call).await.call().await
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
            Err(e) if is_hang_up(&e) => Err(self.lost()),
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
        self.due(call).await.done().await
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

impl Due<'_> {
    /// Sends the request, and waits for its answer for a bounded time.
    ///
    /// # Errors
    /// [`HelperError::Silent`] on timeout: the connection is closed, and its listener is notified of the
    /// loss. The request may have been carried out all the same.
    pub async fn call(self) -> Result<Answer, HelperError> {
        self.slow_call(Duration::ZERO).await
    }

    /// [`Due::call`] of what may take so much longer than other calls.
    pub async fn slow_call(self, longer: Duration) -> Result<Answer, HelperError> {
        let patience = self.helper.shared.patience + longer;
        self.helper.call_within(self.call, patience).await
    }

    /// [`Due::call`] for requests that are answered by [`Reply::Done`].
    pub async fn done(self) -> Result<Vec<OwnedFd>, HelperError> {
        match self.call().await? {
            (Reply::Done, fds) => Ok(fds),
            _ => Err(HelperError::Protocol),
        }
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

#[cfg(test)]
mod tests {
    use littlebox_protocol::{Target, TerminalSize};

    use super::*;

    struct Deaf;

    impl Listener for Deaf {
        fn event(&self, _: Event) {}
        fn lost(&self) {}
    }

    const PATIENCE: Duration = Duration::from_secs(2);

    /// A connection, and the helper's end of it.
    fn connection() -> (Helper, SeqPacket) {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        let (helper, incoming) = Helper::with_patience(ours, PATIENCE);
        tokio::spawn(incoming.run(Deaf));
        (helper, SeqPacket::from_connected(theirs).unwrap())
    }

    /// Answers one question after the other, each after a pause; the calls in their order.
    async fn serve(socket: SeqPacket, pause: Duration) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Ok(Some((request, _))) = socket.recv::<Request>().await {
            tokio::time::sleep(pause).await;
            calls.push(request.call);
            let reply = Reply::Done;
            let seq = request.seq;
            let answer = FromHelper::Reply { seq, reply };
            socket.send(&answer, &[]).await.unwrap();
        }
        calls
    }

    fn kill(all: bool) -> Call {
        Call::Signal {
            target: Target::Container,
            signal: 9,
            all,
        }
    }

    #[tokio::test]
    async fn the_time_that_others_take_is_not_counted_against_a_question() {
        let (helper, socket) = connection();
        let serving = tokio::spawn(serve(socket, PATIENCE / 4));
        // Together they take longer than one may.
        let asked: Vec<_> = (0..12)
            .map(|_| {
                let helper = helper.clone();
                tokio::spawn(async move { helper.done(kill(true)).await })
            })
            .collect();
        for answer in asked {
            answer.await.unwrap().unwrap();
        }
        assert!(!helper.is_gone());
        drop(helper);
        serving.abort();
    }

    #[tokio::test]
    async fn what_ends_a_container_waits_for_one_of_the_questions_that_others_have_asked() {
        let (helper, socket) = connection();
        let serving = tokio::spawn(serve(socket, Duration::from_millis(50)));
        let asked: Vec<_> = (0..10)
            .map(|_| {
                let helper = helper.clone();
                tokio::spawn(async move { helper.done(Call::Freeze { frozen: true }).await })
            })
            .collect();
        tokio::task::yield_now().await;
        helper.done(kill(false)).await.unwrap();
        for answer in asked {
            answer.await.unwrap().unwrap();
        }
        helper.shared.socket.hang_up();
        let calls = serving.await.unwrap();
        let at = calls
            .iter()
            .position(|call| matches!(call, Call::Signal { .. }));
        assert!(at.is_some_and(|at| at <= 1), "{calls:?}");
    }

    #[tokio::test]
    async fn what_a_helper_keeps_for_an_exec_stands_before_no_end() {
        let (helper, socket) = connection();
        // The helper says nothing: to all of these the exec has not started yet.
        let kept: Vec<_> = (0..8)
            .map(|n| {
                let helper = helper.clone();
                let target = Target::Exec("starting".into());
                let size = TerminalSize { rows: n, cols: n };
                tokio::spawn(async move { helper.done(Call::Resize { target, size }).await })
            })
            .collect();
        for _ in &kept {
            let (request, _) = socket.recv::<Request>().await.unwrap().unwrap();
            assert!(matches!(request.call, Call::Resize { .. }));
        }
        let serving = tokio::spawn(serve(socket, Duration::ZERO));
        helper.done(kill(false)).await.unwrap();
        helper.done(kill(true)).await.unwrap();
        helper.shared.socket.hang_up();
        assert_eq!(serving.await.unwrap().len(), 2);
        for answer in kept {
            assert!(answer.await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_helper_that_has_ended_with_a_question_unread_is_gone_and_no_fault() {
        let (helper, socket) = connection();
        let (first, second) = (helper.clone(), helper.clone());
        let unread = tokio::spawn(async move { first.done(kill(false)).await });
        tokio::task::yield_now().await;
        // Closed with something unread: the next send is reset (unix(7)).
        drop(socket);
        let sent = second
            .send(&Request {
                seq: 9,
                call: kill(false),
            })
            .await;
        assert!(matches!(sent, Err(HelperError::Gone)), "{sent:?}");
        assert!(matches!(unread.await.unwrap(), Err(HelperError::Gone)));
    }
}
