//! Sockets that have not knocked, held in a bounded set outside the Swarm.
//!
//! A socket comes in from the inner transport, waits for its knock, and leaves as a [`Knocked`] or not at all. One that
//! was refused stays until its deadline and is read from, so that a wrong knock, a short one and silence end alike. No
//! byte is written here.

use crate::identity::Key;
use crate::knock::{Caller, Reader};
use crate::metrics::KnockOutcome;
use crate::timer::Deadline;
use crate::upgrade::{Shared, read_knock};
use crate::waiting::{Slot, Waiting};
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt as _, poll_fn};
use futures::io::{AsyncRead, AsyncReadExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_core::transport::ListenerId;
use libp2p_core::{ConnectedPoint, Multiaddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use web_time::Instant;

/// Knocks opened in one turn, at most: each costs a signature check, and a flood of them must not keep the Swarm from
/// its other work.
const OPENINGS_PER_TURN: usize = 8;

/// A socket whose caller may come in.
pub(crate) struct Knocked<S> {
    pub(crate) io: S,
    pub(crate) caller: Caller,
    pub(crate) listener: ListenerId,
    pub(crate) local_addr: Multiaddr,
    pub(crate) send_back_addr: Multiaddr,
}

/// What the set knows of a waiting socket. Dropping it drops the socket.
struct Place {
    listener: ListenerId,
    local_addr: Multiaddr,
    send_back_addr: Multiaddr,
    /// Whether a refusal has been counted already.
    refused: bool,
    abort: AbortHandle,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// What became of a socket.
enum Step<S> {
    /// It sent as many bytes as a knock has.
    Full(S, Reader),
    /// It broke or ended.
    Gone,
}

type Waiter<S> = Abortable<BoxFuture<'static, (Slot, Step<S>)>>;

/// The set. Poll it with [`Lobby::poll`].
pub(crate) struct Lobby<S> {
    shared: Arc<Shared>,
    own: Key,
    places: Waiting<Place>,
    sockets: FuturesUnordered<Waiter<S>>,
    /// For the first deadline, or for an earlier one whose socket has left in time.
    timer: Option<Deadline>,
    /// Whether the last turn ended with its openings used up.
    busy: bool,
}

impl<S> Lobby<S>
where
    S: AsyncRead + Unpin + Send + 'static,
{
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let config = &shared.config;
        Self {
            own: config.key,
            places: Waiting::new(config.max_waiting, config.knock_timeout),
            sockets: FuturesUnordered::new(),
            timer: None,
            busy: false,
            shared,
        }
    }

    /// Takes a socket in, once `socket`, the inner transport's upgrade, yields it.
    pub(crate) fn admit<F, E>(
        &mut self,
        socket: F,
        listener: ListenerId,
        local_addr: Multiaddr,
        send_back_addr: Multiaddr,
    ) where
        F: Future<Output = Result<S, E>> + Send + 'static,
    {
        let (abort, registration) = AbortHandle::new_pair();
        let place = Place {
            listener,
            local_addr,
            send_back_addr,
            refused: false,
            abort,
        };
        let (slot, evicted) = self.places.on_accept(Instant::now(), place);
        let metrics = &self.shared.config.metrics;
        metrics.accepted();
        if evicted.is_some_and(|place| !place.refused) {
            metrics.knock(KnockOutcome::Evicted);
        }
        let knock = async move {
            let Ok(mut io) = socket.await else {
                return (slot, Step::Gone);
            };
            match read_knock(&mut io).await {
                Ok(reader) => (slot, Step::Full(io, reader)),
                Err(_) => (slot, Step::Gone),
            }
        };
        self.sockets.push(Abortable::new(knock.boxed(), registration));
        self.count();
    }

    /// Drops the sockets of a listener that is no more. Those that have knocked are the Swarm's already.
    pub(crate) fn close(&mut self, listener: ListenerId) {
        self.places.remove_where(|place| place.listener == listener);
        self.count();
    }

    /// Whether more may be ready than the last [`Lobby::poll`] got to. It has asked to be woken then.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// The next caller that may come in.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Knocked<S>> {
        self.busy = false;
        self.poll_deadlines(cx);
        for _ in 0..OPENINGS_PER_TURN {
            let (slot, step) = match self.sockets.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(done))) => done,
                // Evicted, expired, or its listener closed.
                Poll::Ready(Some(Err(_aborted))) => continue,
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
            match step {
                Step::Gone => {
                    if self.places.remove(slot).is_some_and(|place| !place.refused) {
                        self.shared.config.metrics.knock(KnockOutcome::Incomplete);
                    }
                    self.count();
                }
                Step::Full(io, reader) => {
                    if let Some(knocked) = self.open(slot, io, &reader) {
                        return Poll::Ready(knocked);
                    }
                }
            }
        }
        self.busy = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn open(&mut self, slot: Slot, io: S, reader: &Reader) -> Option<Knocked<S>> {
        let place = self.places.get_mut(slot)?;
        let config = &self.shared.config;
        let point = ConnectedPoint::Listener {
            local_addr: place.local_addr.clone(),
            send_back_addr: place.send_back_addr.clone(),
        };
        let allowed = match reader.open(&self.own.bytes()) {
            Some(Ok(caller)) => self.shared.admit(&caller, &point).ok().map(|()| caller),
            Some(Err(refusal)) => {
                config.metrics.knock(KnockOutcome::Refused(refusal));
                tracing::trace!(remote = %place.send_back_addr, %refusal, stage = "knock", "refused");
                None
            }
            None => None,
        };
        let Some(caller) = allowed else {
            place.refused = true;
            let (abort, registration) = AbortHandle::new_pair();
            place.abort = abort;
            self.sockets.push(Abortable::new(drain(slot, io).boxed(), registration));
            return None;
        };
        let place = self.places.remove(slot)?;
        self.count();
        Some(Knocked {
            io,
            caller,
            listener: place.listener,
            local_addr: place.local_addr.clone(),
            send_back_addr: place.send_back_addr.clone(),
        })
    }

    /// Drops whose time is over.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        while let Some(deadline) = self.places.next_timeout() {
            let timer = self.timer.get_or_insert_with(|| Deadline::at(deadline));
            if timer.poll_unpin(cx).is_pending() {
                return;
            }
            self.timer = None;
            while let Some(place) = self.places.pop_expired(Instant::now()) {
                if !place.refused {
                    self.shared.config.metrics.knock(KnockOutcome::Timeout);
                }
            }
            self.count();
        }
    }

    fn count(&self) {
        self.shared.config.metrics.waiting(self.places.len());
    }
}

/// Reads what a refused caller goes on sending, so that its close, or our deadline, is an ordinary one: a socket
/// closed with bytes unread answers with a reset.
async fn drain<S: AsyncRead + Unpin>(slot: Slot, mut io: S) -> (Slot, Step<S>) {
    let mut sink = [0; 512];
    // In portions, so that one that never stops sending does not keep the others from being heard.
    while let Ok(1..) = io.read(&mut sink).await {
        let mut rested = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut rested, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    (slot, Step::Gone)
}
