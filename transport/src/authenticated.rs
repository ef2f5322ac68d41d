//! The first half: knock, then TLS.

use crate::abandoned::{Abandoned, Dialling};
use crate::address::{self, Marked};
use crate::config::Config;
use crate::door::{Door, Event, Said, Secured, Upgrade};
use crate::error::{Error, Failure, Stage};
use crate::identity::Key;
use crate::inner::Inner;
use crate::metrics::Outcome;
use crate::muxed::{MuxExt, Muxed};
use crate::steps::Steps;
use crate::stream::TlsStream;
use crate::unanswered::Heard;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use crate::yamux;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Knock and TLS over any byte-stream transport `T`, without a muxer.
///
/// For those who compose by hand: a check may come between this and [`muxed`](crate::MuxExt::muxed), and may refuse.
/// Everybody else takes [`Transport`](crate::Transport), or [`tokio::Transport`](crate::tokio::Transport).
///
/// Addresses are those of `T` with `/tls` behind them, and `/p2p/<peer>` behind that: always in a
/// dial, never demanded in a `listen_on`. Over a relay's client a circuit may do without `/tls`, as
/// that announces it. Over a transport that looks names up (`libp2p::dns`) no circuit is dialled.
/// See [`is_knock_address`](crate::is_knock_address).
///
/// Dial futures do nothing before they are first polled. They may be dropped at any point. Dropped
/// before they have knocked, they leave nothing but a closed socket behind. A dial that is dropped
/// later is finished by the transport, if that is polled, and its connection is closed: the peer
/// would count a handshake that failed. That takes the handshake timeout and the close timeout at
/// most, for 64 dials at once; more are closed as they are.
///
/// A dial that is to come from a listener's port (`PortUse::Reuse`) and finds that the port cannot
/// be shared (`AddrInUse`) is made once more from a port of its own. So is one that is answered with
/// something else than TLS, unless it was dropped: two ends that dial each other at the same moment,
/// from the ports at which they listen, share one TCP connection, on which both knock. In the
/// listener's part of a hole punch it fails instead: the other end expects that port and no other.
/// The dialer's part cannot be told from any other dial.
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
    /// Whether the inner transport is known to be a relay's client.
    carries_circuits: bool,
    /// Dials that were dropped after they had knocked.
    abandoned: Abandoned,
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

    /// Puts yamux on every connection, as [`MuxExt::muxed`] does, with the close timeout of the
    /// configuration. Peers for whom it says [`Mode::Frames`](crate::Mode::Frames) are refused from
    /// then on.
    pub fn muxed(self, yamux: yamux::Config) -> Muxed<Self>
    where
        Self: libp2p_core::Transport<Output = (PeerId, TlsStream<T::Output>)>,
    {
        self.shared.muxed();
        let close_timeout = self.shared.config.close_timeout;
        MuxExt::muxed(self, yamux).with_close_timeout(close_timeout)
    }

    fn with_shared(inner: T, shared: Arc<Shared>) -> Self {
        let inner = Inner::new(inner);
        Self {
            door: Door::new(inner.clone(), shared.clone()),
            inner,
            shared,
            spawn: None,
            carries_circuits: false,
            abandoned: Abandoned::new(),
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
        self.shared.config.metrics.listening_ended();
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
        for id in &open {
            self.shared.unmarked.closed(*id);
        }
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
    T: libp2p_core::Transport + Unpin + Send + 'static,
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
        let Some((marked, plain)) = self.claim(&address) else {
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
        if let Some(error) = self.shared.contradiction() {
            return Err(TransportError::Other(error.at(Stage::Address)));
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
        // Before it can announce anything.
        self.shared.unmarked.listens(id, !plain);
        let listening = self.inner.ask(|inner| inner.listen_on(id, marked.inner));
        if let Err(error) = listening.expect("the inner transport goes with this one") {
            self.shared.unmarked.closed(id);
            return Err(as_ours(error, address));
        }
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
        let Some((marked, _)) = self.claim(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let peer = self.callee(&address, marked.peer);
        // The inner transport first: an address that it does not know may be another transport's.
        let ask = |opts| {
            let asked = self.inner.ask(|inner| inner.dial(marked.inner.clone(), opts));
            asked.expect("the inner transport goes with this one")
        };
        let mut connect = ask(opts);
        if let Err(TransportError::Other(error)) = &connect
            && shares_no_port(error, opts)
        {
            connect = ask(from_any_port(opts));
        }
        let connect = match connect {
            Err(TransportError::MultiaddrNotSupported(_)) => {
                return Err(TransportError::MultiaddrNotSupported(address));
            }
            connect => connect,
        };
        // Without a peer a relay would complain as well, in other words.
        let peer = peer.map_err(|error| TransportError::Other(error.at(Stage::Address)))?;
        let connect = connect.map_err(|error| as_ours(error, address.clone()))?;
        self.door.wake();

        let shared = self.shared.clone();
        let (who, to) = (peer.peer_id(), address.clone());
        let point = ConnectedPoint::Dialer {
            address,
            role_override: opts.role,
            port_use: opts.port_use,
        };
        let inner = self.inner.clone();
        let knocked = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicBool::new(false));
        let dialling = Dialling::new(knocked.clone(), dropped.clone(), &self.shared.config, &self.abandoned);
        let dial = async move {
            let steps = Steps::begin(who, to, opts.role);
            let connected = match connect.await {
                Err(error) if shares_no_port(&error, opts) => {
                    tracing::debug!(peer = %who, %error, "the port of a listener cannot be shared: dialling from another");
                    let again = inner.ask(|inner| inner.dial(marked.inner.clone(), from_any_port(opts)));
                    match again {
                        Some(Ok(connect)) => connect.await,
                        _ => Err(error),
                    }
                }
                connected => connected,
            };
            let connected = connected.map_err(Error::inner).inspect(|_| steps.connected());
            let mut result = match (connected, opts.role) {
                (Ok(io), Endpoint::Dialer) => shared.knock_at(io, peer, &point, &knocked).await,
                // Both ends of a hole punch dial; the one in this role keeps silent and awaits the other's knock.
                (Ok(io), Endpoint::Listener) => shared.await_knock_of(io, peer, &point).await,
                (Err(failure), _) => Err(failure),
            };
            let crossed = matches!(&result, Err(failure) if has_crossed(failure, opts));
            if crossed && !dropped.load(Ordering::Relaxed) {
                tracing::debug!(peer = %who, "both ends have dialled at once: dialling from another port");
                knocked.store(false, Ordering::Relaxed);
                if let Some(Ok(connect)) = inner.ask(|inner| inner.dial(marked.inner, from_any_port(opts)))
                    && let Ok(io) = connect.await
                {
                    result = shared.knock_at(io, peer, &point, &knocked).await;
                }
            }
            let outcome = result.as_ref().map_or_else(|e| e.error().into(), |_| Outcome::Ok);
            shared.config.metrics.dial(outcome);
            steps.end(result.as_ref().err(), &shared);
            result
        };
        Ok(dialling.run(dial.boxed()).boxed())
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = self.get_mut();
        this.abandoned.poll(cx);
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
    T: libp2p_core::Transport,
{
    /// The address, if it is ours, and whether it is a circuit without the marker.
    fn claim(&mut self, address: &Multiaddr) -> Option<(Marked, bool)> {
        let marked = address::parse(address);
        if !address::is_circuit(address) {
            return Some((marked?, false));
        }
        let plain = marked.is_none();
        let marked = marked.or_else(|| address::parse_circuit(address))?;
        self.carries_circuits(address).then_some((marked, plain))
    }

    /// Whether the inner transport is a relay's client. Some others take no notice of what follows a
    /// peer in an address, and would dial the relay in place of the circuit.
    ///
    /// Asked until it says so once: that it knows circuits, and misses something in this one. A
    /// transport that looks names up says of every address that it dials it. A transport in between
    /// may leave some relays to others.
    fn carries_circuits(&mut self, address: &Multiaddr) -> bool {
        if !self.carries_circuits {
            let opts = DialOpts {
                role: Endpoint::Dialer,
                port_use: PortUse::New,
            };
            let probe = address::circuit_probe(address);
            let probed = self.inner.ask(|inner| inner.dial(probe, opts));
            self.carries_circuits = matches!(probed, Some(Err(TransportError::Other(_))));
        }
        self.carries_circuits
    }

    /// The key to knock at.
    fn callee(&self, address: &Multiaddr, peer: Option<PeerId>) -> Result<Key, Error> {
        let peer = peer.ok_or_else(|| Error::MissingPeerId {
            address: address.clone(),
        })?;
        let key = Key::of_peer(&peer).map_err(|reason| Error::UnsupportedKey { peer, reason })?;
        if key == self.shared.config.key {
            return Err(Error::SelfDial);
        }
        if let Some(error) = self.shared.contradiction() {
            return Err(error);
        }
        if !self.shared.speaks(self.shared.config.dialect(&key)) {
            return Err(Error::NotMuxed { peer: Some(peer) });
        }
        Ok(key)
    }
}

/// Whether a dial failed because it was to come from a port that something else holds, and may come
/// from any other. `libp2p-tcp` tries another port by itself only if the pair of addresses is taken
/// (`AddrNotAvailable`).
fn shares_no_port(error: &(dyn std::error::Error + 'static), opts: DialOpts) -> bool {
    if opts.port_use != PortUse::Reuse || opts.role == Endpoint::Listener {
        return false;
    }
    let mut next = Some(error);
    while let Some(error) = next {
        let system = error.downcast_ref::<std::io::Error>();
        if system.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            return true;
        }
        next = match system.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Whether what came in answer to a knock may have been a knock. Two ends that dial each other at once, each from the port
/// at which it listens, get one connection of TCP without a listener.
fn has_crossed(failure: &Failure, opts: DialOpts) -> bool {
    let Error::Unanswered(unanswered) = failure.error() else {
        return false;
    };
    // A knock is uniform. Many servers speak first, and in text.
    let like_a_knock = matches!(unanswered.heard(), Heard::Other(bytes) if !bytes.is_ascii());
    like_a_knock && opts.port_use == PortUse::Reuse && opts.role == Endpoint::Dialer
}

fn from_any_port(opts: DialOpts) -> DialOpts {
    DialOpts {
        port_use: PortUse::New,
        ..opts
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
