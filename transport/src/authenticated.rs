//! The first half: knock, then TLS.

use crate::address;
use crate::config::Config;
use crate::door::{Door, Event, Said, Secured, Upgrade};
use crate::error::{Error, Failure, Stage};
use crate::identity::Key;
use crate::inner::Inner;
use crate::metrics::Outcome;
use crate::stream::TlsStream;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Knock and TLS over any byte-stream transport `T`, without a muxer.
///
/// For those who compose by hand: a check may come between this and [`muxed`](crate::MuxExt::muxed), and may refuse.
/// Everybody else takes [`Transport`](crate::Transport), or [`tokio::Transport`](crate::tokio::Transport).
///
/// Addresses are those of `T` with `/tls` behind them, and `/p2p/<peer>` behind that: always in a dial, never demanded
/// in a `listen_on`. Dial futures do nothing before they are first polled; dropped at any point they leave nothing but
/// a closed socket behind.
///
/// Errors are [`Failure`]s. `MultiaddrNotSupported` says that an address is not ours or not `T`'s, so that the next
/// transport may be asked.
pub struct Authenticated<T>
where
    T: libp2p_core::Transport,
{
    inner: Inner<T>,
    shared: Arc<Shared>,
    door: Door<T>,
    /// Moves the door to a task of its own when something first listens.
    spawn: Option<Spawn<T>>,
    /// Listeners that have not been reported as closed, oldest first.
    open: Vec<ListenerId>,
    /// Events to report before those of the door.
    unsaid: VecDeque<Event<T::Output>>,
    /// Listeners that were reported as closed when their door ended. The inner transport may report
    /// them too.
    mourned: HashSet<ListenerId>,
}

type Spawn<T> = Box<dyn FnMut(&mut Door<T>) + Send>;

impl<T> Authenticated<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    /// Knock and TLS as `config` says, over `inner`.
    pub fn new(inner: T, config: Config) -> Self {
        Self::with_shared(inner, Shared::new(config))
    }

    /// Runs the listening side on a task of its own, given to `spawn` when something first listens, and closed with the
    /// transport. Otherwise it runs whenever the Swarm polls the transport, and how busy the Swarm is shows, a little,
    /// in when strangers are accepted and closed.
    ///
    /// `inner` has to work on whichever thread polls it.
    ///
    /// The task may end before the transport does: it panics, or its runtime is shut down. Every
    /// listener is then closed and reported so, with [`Error::ListenersEnded`]. The next
    /// [`listen_on`](libp2p_core::Transport::listen_on) asks `spawn` for a new task. `spawn` is
    /// called inside `listen_on`. Its panic reaches the caller of that, and nothing listens.
    pub fn with_executor(mut self, mut spawn: impl FnMut(BoxFuture<'static, ()>) + Send + 'static) -> Self
    where
        T: Send + 'static,
    {
        self.spawn = Some(Box::new(move |door| door.spawn(&mut spawn)));
        self
    }

    fn with_shared(inner: T, shared: Arc<Shared>) -> Self {
        let inner = Inner::new(inner);
        Self {
            door: Door::new(inner.clone(), shared.clone()),
            inner,
            shared,
            spawn: None,
            open: Vec::new(),
            unsaid: VecDeque::new(),
            mourned: HashSet::new(),
        }
    }

    /// Closes the socket of a listener that was just removed, without waiting for the door. Returns
    /// whether it is closed. Polls the inner transport, which has to be able to work on this
    /// thread.
    #[cfg(feature = "tokio")]
    pub(crate) fn settle(&mut self, removed: ListenerId) -> bool {
        let closed = self.inner.settle(removed);
        self.door.wake();
        closed
    }

    /// Moves the door to its task, if it has an executor and is not there yet.
    fn spawn(&mut self) {
        let Some(spawn) = &mut self.spawn else { return };
        let door = &mut self.door;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| spawn(door))) {
            // The caller's own. What listens here would be heard by no task.
            self.end();
            resume_unwind(panic);
        }
    }

    /// The task of the door has ended, or was never started. Closes its listeners and reports them.
    fn mourn(&mut self) {
        tracing::error!(listeners = self.open.len(), "the task of the listening side has ended");
        for listener_id in self.end() {
            self.unsaid.push_back(TransportEvent::ListenerClosed {
                listener_id,
                reason: Err(Error::ListenersEnded.at(Stage::Inner)),
            });
        }
    }

    /// Closes all listeners without a report, and puts a new door in place of the old one. Returns
    /// what was open.
    fn end(&mut self) -> Vec<ListenerId> {
        let open = std::mem::take(&mut self.open);
        // It may be what panicked.
        let user_code = &self.shared.config.user_code;
        let abandoned = user_code.run(Hook::Inner, || self.inner.abandon(open.clone()));
        self.mourned.extend(abandoned.as_ref().unwrap_or(&open));
        self.door = Door::new(self.inner.clone(), self.shared.clone());
        open
    }

    /// Whether to report this event.
    fn is_news(&mut self, event: &Event<T::Output>) -> bool {
        if let TransportEvent::ListenerClosed { listener_id, .. } = event {
            self.open.retain(|open| open != listener_id);
            return !self.mourned.remove(listener_id);
        }
        true
    }
}

/// Its listeners' sockets close here, and not when the task of its door is polled next.
impl<T> Drop for Authenticated<T>
where
    T: libp2p_core::Transport,
{
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl<T> std::fmt::Debug for Authenticated<T>
where
    T: libp2p_core::Transport,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticated")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl<T> libp2p_core::Transport for Authenticated<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = (PeerId, TlsStream<T::Output>);
    type Error = Failure;
    type ListenerUpgrade = Upgrade<T::Output>;
    type Dial = BoxFuture<'static, Secured<T::Output>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Failure>> {
        let Some(marked) = address::parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if marked
            .peer
            .is_some_and(|peer| peer != self.shared.config.local_peer_id())
        {
            return Err(TransportError::Other(
                Error::NotOurPeerId { address }.at(Stage::Address),
            ));
        }
        // A door that has ended unnoticed would take this listener along.
        if let Some(said) = self.door.last_words() {
            for event in said {
                if self.is_news(&event) {
                    self.unsaid.push_back(event);
                }
            }
            self.mourn();
        }
        let listening = self.inner.ask(|inner| inner.listen_on(id, marked.inner));
        let listening = listening.expect("the inner transport goes with this one");
        listening.map_err(|error| as_ours(error, address))?;
        self.open.push(id);
        self.spawn();
        self.door.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let removed = self.inner.ask(|inner| inner.remove_listener(id));
        self.door.wake();
        removed.unwrap_or(false)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Failure>> {
        let Some(marked) = address::parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        // The inner transport first: an address that it does not know may be another transport's.
        let connect = self.inner.ask(|inner| inner.dial(marked.inner, opts));
        let connect = connect.expect("the inner transport goes with this one");
        let connect = connect.map_err(|error| as_ours(error, address.clone()))?;
        self.door.wake();
        let peer = self
            .callee(&address, marked.peer)
            .map_err(|error| TransportError::Other(error.at(Stage::Address)))?;

        let shared = self.shared.clone();
        let point = ConnectedPoint::Dialer {
            address,
            role_override: opts.role,
            port_use: opts.port_use,
        };
        let dial = async move {
            let connected = connect.await.map_err(Error::inner);
            let result = match (connected, opts.role) {
                (Ok(io), Endpoint::Dialer) => shared.knock_at(io, peer, &point).await,
                // Both ends of a hole punch dial; the one in this role keeps silent and awaits the other's knock.
                (Ok(io), Endpoint::Listener) => shared.await_knock_of(io, peer, &point).await,
                (Err(failure), _) => Err(failure),
            };
            let outcome = result.as_ref().map_or_else(|e| e.error().into(), |_| Outcome::Ok);
            shared.config.metrics.dial(outcome);
            result
        };
        Ok(dial.boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.unsaid.pop_front() {
                return Poll::Ready(event);
            }
            match ready!(this.door.poll(cx)) {
                Said::Event(event) => {
                    if this.is_news(&event) {
                        return Poll::Ready(event);
                    }
                }
                Said::Ended => this.mourn(),
            }
        }
    }
}

impl<T> Authenticated<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    /// The key to knock at.
    fn callee(&self, address: &Multiaddr, peer: Option<PeerId>) -> Result<Key, Error> {
        let peer = peer.ok_or_else(|| Error::MissingPeerId {
            address: address.clone(),
        })?;
        let key = Key::of_peer(&peer).map_err(|reason| Error::UnsupportedKey { peer, reason })?;
        if key == self.shared.config.key {
            return Err(Error::SelfDial);
        }
        Ok(key)
    }
}

/// An error of the inner transport's `dial` or `listen_on`, with the address as the user wrote it.
fn as_ours<E>(error: TransportError<E>, address: Multiaddr) -> TransportError<Failure>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match error {
        TransportError::MultiaddrNotSupported(_) => TransportError::MultiaddrNotSupported(address),
        TransportError::Other(error) => TransportError::Other(Error::inner(error)),
    }
}
