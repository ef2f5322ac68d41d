//! The accepting side: the inner transport's listeners and the lobby behind them, polled by the Swarm or, so that a busy
//! Swarm does not show in how strangers are treated, on a task of its own.

use crate::address;
use crate::error::{Error, Failure};
use crate::inner::Inner;
use crate::listener::{Knocked, Lobby};
use crate::stream::TlsStream;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use futures::channel::mpsc;
use futures::future::{AbortHandle, BoxFuture, FutureExt as _, poll_fn};
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::StreamExt as _;
use futures::task::AtomicWaker;
use libp2p_core::ConnectedPoint;
use libp2p_core::transport::TransportEvent;
use libp2p_identity::PeerId;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Sockets accepted from the inner transport in one turn, at most.
const ACCEPTS_PER_TURN: usize = 64;

pub(crate) type Secured<S> = Result<(PeerId, TlsStream<S>), Failure>;
pub(crate) type Upgrade<S> = BoxFuture<'static, Secured<S>>;
pub(crate) type Event<S> = TransportEvent<Upgrade<S>, Failure>;

/// Where the door is polled.
pub(crate) enum Door<T: libp2p_core::Transport> {
    Here(Box<Accepting<T>>),
    There(Task<T::Output>),
}

/// What a door has come to.
pub(crate) enum Said<S> {
    Event(Event<S>),
    /// Its task has ended, by a panic or with its runtime, and all that it held is gone.
    Ended,
}

/// A door on a task of its own. Dropped, it closes.
pub(crate) struct Task<S> {
    events: mpsc::UnboundedReceiver<Event<S>>,
    /// Wakes the task when something was asked of the inner transport. The task has the only other
    /// copy.
    waker: Arc<AtomicWaker>,
    abort: AbortHandle,
}

impl<S> Drop for Task<S> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl<T> Door<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    pub(crate) fn new(inner: Inner<T>, shared: Arc<Shared>) -> Self {
        Self::Here(Box::new(Accepting {
            inner,
            lobby: Lobby::new(shared.clone()),
            shared,
        }))
    }

    /// Moves it to a task of its own, unless it has one.
    pub(crate) fn spawn(&mut self, spawn: &mut impl FnMut(BoxFuture<'static, ()>))
    where
        T: Send + 'static,
    {
        let Self::Here(_) = self else { return };
        let (sender, events) = mpsc::unbounded();
        let waker = Arc::new(AtomicWaker::new());
        // What is in flight to the Swarm is bounded by the lobby, and by its own listeners.
        let registered = waker.clone();
        let (abort, registration) = AbortHandle::new_pair();
        let there = Self::There(Task { events, waker, abort });
        let Self::Here(mut accepting) = std::mem::replace(self, there) else {
            return;
        };
        let work = poll_fn(move |cx| {
            registered.register(cx.waker());
            while let Poll::Ready(event) = accepting.poll(cx) {
                if sender.unbounded_send(event).is_err() {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        });
        spawn(futures::future::Abortable::new(work, registration).map(drop).boxed());
    }

    /// Something was asked of the inner transport.
    pub(crate) fn wake(&self) {
        if let Self::There(task) = self {
            task.waker.wake();
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Said<T::Output>> {
        match self {
            Self::Here(accepting) => accepting.poll(cx).map(Said::Event),
            Self::There(task) => task.events.poll_next_unpin(cx).map(|event| match event {
                Some(event) => Said::Event(event),
                None => Said::Ended,
            }),
        }
    }

    /// If its task has ended: what that had said and was not heard.
    pub(crate) fn last_words(&mut self) -> Option<Vec<Event<T::Output>>> {
        let Self::There(task) = self else { return None };
        if Arc::strong_count(&task.waker) > 1 {
            return None;
        }
        Some(std::iter::from_fn(|| task.events.try_recv().ok()).collect())
    }
}

/// The listeners and the lobby.
pub(crate) struct Accepting<T: libp2p_core::Transport> {
    inner: Inner<T>,
    shared: Arc<Shared>,
    lobby: Lobby<T::Output>,
}

impl<T> Accepting<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<T::Output>> {
        // Callers that have knocked go before sockets that have not: those can wait in the kernel's queue, where they
        // take nobody's place.
        if let Poll::Ready(knocked) = self.lobby.poll(cx) {
            return Poll::Ready(self.incoming(knocked));
        }
        if self.lobby.is_busy() {
            return Poll::Pending;
        }
        let mut accepted = 0;
        while let Poll::Ready(event) = self.inner.poll(cx) {
            match event {
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                } => {
                    let (local, remote) = (address::mark(local_addr), address::mark(send_back_addr));
                    self.lobby
                        .admit(upgrade.map(Result::ok).boxed(), listener_id, local, remote);
                    accepted += 1;
                    if accepted == ACCEPTS_PER_TURN {
                        cx.waker().wake_by_ref();
                        break;
                    }
                }
                TransportEvent::NewAddress {
                    listener_id,
                    listen_addr,
                } => {
                    return Poll::Ready(TransportEvent::NewAddress {
                        listener_id,
                        listen_addr: self.shared.unmarked.announced(listener_id, listen_addr),
                    });
                }
                TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                } => {
                    return Poll::Ready(TransportEvent::AddressExpired {
                        listener_id,
                        listen_addr: self.shared.unmarked.announced(listener_id, listen_addr),
                    });
                }
                TransportEvent::ListenerClosed { listener_id, reason } => {
                    self.lobby.close(listener_id);
                    self.shared.unmarked.closed(listener_id);
                    return Poll::Ready(TransportEvent::ListenerClosed {
                        listener_id,
                        reason: reason.map_err(Error::inner),
                    });
                }
                TransportEvent::ListenerError { listener_id, error } => {
                    let user_code = &self.shared.config.user_code;
                    if let Ok(true) = user_code.run(Hook::Inner, || is_exhaustion(&error)) {
                        self.lobby.make_room();
                    }
                    return Poll::Ready(TransportEvent::ListenerError {
                        listener_id,
                        error: Error::inner(error),
                    });
                }
            }
        }
        if accepted == 0 {
            return Poll::Pending;
        }
        self.lobby.go_on(cx).map(|knocked| self.incoming(knocked))
    }

    /// Hands a caller to the Swarm. TLS runs in the upgrade, on a task of the Swarm's.
    fn incoming(&self, knocked: Knocked<T::Output>) -> Event<T::Output> {
        let Knocked {
            io,
            invited,
            prefix,
            listener,
            local_addr,
            send_back_addr,
            ticket,
        } = knocked;
        let shared = self.shared.clone();
        let point = ConnectedPoint::Listener {
            local_addr: local_addr.clone(),
            send_back_addr: send_back_addr.clone(),
        };
        let upgrade = async move {
            match shared.answer(io, invited, prefix, &point).await {
                Ok(secured) => {
                    ticket.authenticated();
                    Ok(secured)
                }
                Err((failure, io)) => {
                    if let Some(io) = io {
                        ticket.failed(io);
                    }
                    Err(failure)
                }
            }
        };
        TransportEvent::Incoming {
            listener_id: listener,
            upgrade: upgrade.boxed(),
            local_addr,
            send_back_addr,
        }
    }
}

/// Whether the system is short of descriptors, or of memory for another socket.
#[cfg(unix)]
fn is_exhaustion(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error);
    let mut next = Some(error);
    while let Some(error) = next {
        let system = error.downcast_ref::<std::io::Error>();
        if let Some(code) = system.and_then(std::io::Error::raw_os_error) {
            return exhausted.contains(&code);
        }
        next = match system.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[cfg(not(unix))]
fn is_exhaustion(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}
