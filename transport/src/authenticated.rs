//! The first half: knock, then TLS.

use crate::address;
use crate::config::Config;
use crate::door::{Door, Inner, Secured, Upgrade, lock};
use crate::error::{Error, Failure, Stage};
use crate::identity::Key;
use crate::metrics::Outcome;
use crate::stream::TlsStream;
use crate::upgrade::Shared;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
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
}

type Spawn<T> = Box<dyn FnOnce(&mut Door<T>) + Send>;

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
    pub fn with_executor(mut self, spawn: impl FnOnce(BoxFuture<'static, ()>) + Send + 'static) -> Self
    where
        T: Send + 'static,
    {
        self.spawn = Some(Box::new(|door| door.spawn(spawn)));
        self
    }

    fn with_shared(inner: T, shared: Arc<Shared>) -> Self {
        let inner = Arc::new(Mutex::new(inner));
        Self {
            door: Door::new(inner.clone(), shared.clone()),
            inner,
            shared,
            spawn: None,
        }
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
        let listening = lock(&self.inner).listen_on(id, marked.inner);
        listening.map_err(|error| as_ours(error, address))?;
        if let Some(spawn) = self.spawn.take() {
            spawn(&mut self.door);
        }
        self.door.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let removed = lock(&self.inner).remove_listener(id);
        self.door.wake();
        removed
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Failure>> {
        let Some(marked) = address::parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        // The inner transport first: an address that it does not know may be another transport's.
        let connect = lock(&self.inner).dial(marked.inner, opts);
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
        self.get_mut().door.poll(cx)
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
