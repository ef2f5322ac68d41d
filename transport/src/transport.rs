//! Both halves joined.

use crate::authenticated::Authenticated;
use crate::config::Config;
use crate::error::Failure;
use crate::muxed::{Muxed, Muxer, Muxing};
use crate::stream::TlsStream;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use libp2p_core::Multiaddr;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_identity::PeerId;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Knock, TLS and yamux over any byte-stream transport `T`: TCP, memory, a Unix socket, a relay circuit.
///
/// Ready for a `Swarm`. Over TCP, [`tokio::Transport`](crate::tokio::Transport) is this with one argument less. What
/// an address looks like, and what the futures promise, is said at [`Authenticated`].
///
/// A transport `T` that writes to a socket before it yields it (WebSocket does) is not silent, and nothing here can
/// make it so.
pub struct Transport<T>
where
    T: libp2p_core::Transport,
{
    inner: Muxed<Authenticated<T>>,
}

impl<T> Transport<T>
where
    T: libp2p_core::Transport + Unpin + Send + 'static,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    /// The stack that `config` describes, over `inner`.
    pub fn new(inner: T, config: Config) -> Self {
        let yamux = config.yamux.clone();
        Self {
            inner: Authenticated::new(inner, config).muxed(yamux),
        }
    }

    /// See [`Authenticated::with_executor`].
    pub fn with_executor(self, spawn: impl FnMut(BoxFuture<'static, ()>) + Send + 'static) -> Self {
        Self {
            inner: self.inner.map_inner(|inner| inner.with_executor(spawn)),
        }
    }

    /// See [`Authenticated::settle`].
    #[cfg(feature = "tokio")]
    pub(crate) fn settle(&mut self, removed: ListenerId) -> bool {
        self.inner.inner_mut().settle(removed)
    }
}

impl<T> std::fmt::Debug for Transport<T>
where
    T: libp2p_core::Transport,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl<T> libp2p_core::Transport for Transport<T>
where
    T: libp2p_core::Transport + Unpin + Send + 'static,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = (PeerId, Muxer<TlsStream<T::Output>>);
    type Error = Failure;
    type ListenerUpgrade = Muxing<<Authenticated<T> as libp2p_core::Transport>::ListenerUpgrade>;
    type Dial = Muxing<<Authenticated<T> as libp2p_core::Transport>::Dial>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Failure>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Failure>> {
        self.inner.dial(address, opts)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.get_mut().inner).poll(cx)
    }
}
