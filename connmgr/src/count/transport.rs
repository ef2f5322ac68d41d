//! The transport around a transport.

use super::muxer::Muxer;
use super::registry::Registry;
use futures::ready;
use libp2p_core::muxing::StreamMuxer;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use web_time::Instant;

/// Counts the streams of all connections that the transport inside makes. Changes nothing that is on the wire, nor any
/// address or error of `listen_on` and `dial`.
///
/// Costs a map entry while a connection is being announced, some 40 bytes while it lasts, and a look at the clock for
/// each read or write that moves bytes.
#[derive(Debug)]
pub struct Transport<T> {
    inner: T,
    registry: Registry,
    close_timeout: Duration,
}

impl<T> Transport<T> {
    /// Counts the connections of `inner` in `registry`.
    pub fn new(inner: T, registry: Registry) -> Self {
        Self {
            inner,
            registry,
            close_timeout: Duration::from_secs(5),
        }
    }

    /// How long a connection may take to close before it is dropped. Default 5 s.
    ///
    /// Where the transport inside has a limit of its own, the shorter one counts.
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    fn counting<F>(&self, connecting: F, direction: Endpoint, remote: Multiaddr) -> Counting<F> {
        Counting {
            connecting: Box::pin(connecting),
            direction,
            remote,
            registry: self.registry.clone(),
            close_timeout: self.close_timeout,
        }
    }
}

impl<T, M> libp2p_core::Transport for Transport<T>
where
    T: libp2p_core::Transport<Output = (PeerId, M)> + Unpin,
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Output = (PeerId, Muxer<M>);
    type Error = T::Error;
    type ListenerUpgrade = Counting<T::ListenerUpgrade>;
    type Dial = Counting<T::Dial>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<T::Error>> {
        let connecting = self.inner.dial(address.clone(), opts)?;
        // Also in a hole punch, where we take the listener's part: the Swarm reports a dialer all the same.
        Ok(self.counting(connecting, Endpoint::Dialer, address))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, T::Error>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(Pin::new(&mut this.inner).poll(cx)) {
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => TransportEvent::Incoming {
                listener_id,
                upgrade: this.counting(upgrade, Endpoint::Listener, send_back_addr.clone()),
                local_addr,
                send_back_addr,
            },
            other => other.map_upgrade(|_| unreachable!("only what comes in has an upgrade")),
        })
    }
}

/// A connection on its way to a counted [`Muxer`].
pub struct Counting<F> {
    connecting: Pin<Box<F>>,
    direction: Endpoint,
    remote: Multiaddr,
    registry: Registry,
    close_timeout: Duration,
}

impl<F> fmt::Debug for Counting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counting")
            .field("direction", &self.direction)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

impl<F, M, E> Future for Counting<F>
where
    F: Future<Output = Result<(PeerId, M), E>>,
{
    type Output = Result<(PeerId, Muxer<M>), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (peer, muxer) = ready!(self.connecting.as_mut().poll(cx))?;
        let remote = std::mem::replace(&mut self.remote, Multiaddr::empty());
        let (activity, place) = self.registry.enter(peer, self.direction, remote, Instant::now());
        Poll::Ready(Ok((peer, Muxer::new(muxer, activity, place, self.close_timeout))))
    }
}
