//! The first half: knock, then TLS.

use crate::address;
use crate::config::Config;
use crate::error::{Error, Failure, Stage};
use crate::identity::Key;
use crate::listener::{Knocked, Lobby};
use crate::metrics::Outcome;
use crate::stream::TlsStream;
use crate::upgrade::Shared;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Sockets accepted from the inner transport in one turn, at most.
const ACCEPTS_PER_TURN: usize = 64;

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
    inner: T,
    shared: Arc<Shared>,
    lobby: Lobby<T::Output>,
}

impl<T> Authenticated<T>
where
    T: libp2p_core::Transport,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Knock and TLS as `config` says, over `inner`.
    pub fn new(inner: T, config: Config) -> Self {
        Self::with_shared(inner, Shared::new(config, false))
    }

    /// The same for our own muxer.
    pub(crate) fn for_muxer(inner: T, config: Config) -> Self {
        Self::with_shared(inner, Shared::new(config, true))
    }

    fn with_shared(inner: T, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            lobby: Lobby::new(shared.clone()),
            shared,
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

type Secured<S> = Result<(PeerId, TlsStream<S>), Failure>;

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
    type ListenerUpgrade = BoxFuture<'static, Secured<T::Output>>;
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
        self.inner
            .listen_on(id, marked.inner)
            .map_err(|error| as_ours(error, address))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.lobby.close(id);
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Failure>> {
        let Some(marked) = address::parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        // The inner transport first: an address that it does not know may be another transport's.
        let connect = self
            .inner
            .dial(marked.inner, opts)
            .map_err(|error| as_ours(error, address.clone()))?;
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
        // Callers that have knocked go before sockets that have not: those can wait in the kernel's queue, where they
        // take nobody's place.
        if let Poll::Ready(knocked) = this.lobby.poll(cx) {
            return Poll::Ready(this.incoming(knocked));
        }
        if this.lobby.is_busy() {
            return Poll::Pending;
        }
        let mut accepted = 0;
        while let Poll::Ready(event) = Pin::new(&mut this.inner).poll(cx) {
            match event {
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                } => {
                    let (local, remote) = (address::mark(local_addr), address::mark(send_back_addr));
                    this.lobby.admit(upgrade, listener_id, local, remote);
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
                        listen_addr: address::mark(listen_addr),
                    });
                }
                TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                } => {
                    return Poll::Ready(TransportEvent::AddressExpired {
                        listener_id,
                        listen_addr: address::mark(listen_addr),
                    });
                }
                TransportEvent::ListenerClosed { listener_id, reason } => {
                    this.lobby.close(listener_id);
                    return Poll::Ready(TransportEvent::ListenerClosed {
                        listener_id,
                        reason: reason.map_err(Error::inner),
                    });
                }
                TransportEvent::ListenerError { listener_id, error } => {
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
        this.lobby.poll(cx).map(|knocked| this.incoming(knocked))
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

    /// Hands a caller to the Swarm. TLS runs in the upgrade, on a task of the Swarm's.
    fn incoming(
        &self,
        knocked: Knocked<T::Output>,
    ) -> TransportEvent<<Self as libp2p_core::Transport>::ListenerUpgrade, Failure> {
        let Knocked {
            io,
            caller,
            listener,
            local_addr,
            send_back_addr,
        } = knocked;
        let shared = self.shared.clone();
        let point = ConnectedPoint::Listener {
            local_addr: local_addr.clone(),
            send_back_addr: send_back_addr.clone(),
        };
        TransportEvent::Incoming {
            listener_id: listener,
            upgrade: async move { shared.answer(io, caller, &point).await }.boxed(),
            local_addr,
            send_back_addr,
        }
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
