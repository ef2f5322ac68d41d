//! The second half: yamux over an authenticated stream, without negotiation and with a bounded close.

use crate::timer::Deadline;
use crate::yamux;
use futures::future::FutureExt as _;
use futures::io::{AsyncRead, AsyncWrite};
use futures::ready;
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr, Transport};
use libp2p_identity::PeerId;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Puts a muxer on an authenticated transport.
pub trait MuxExt: Transport + Sized {
    /// Puts yamux on every connection. Which side is yamux's client follows from the
    /// [`ConnectedPoint`](libp2p_core::ConnectedPoint), the role override of a hole punch included. Nothing is
    /// negotiated: both ends know, and TLS has compared ([`Mode`](crate::Mode)).
    ///
    /// What comes before is not looked into. Where a check of yours stands between
    /// [`Authenticated`](crate::Authenticated) and the muxer, it has to refuse peers for whom
    /// [`Mode::Frames`](crate::Mode::Frames) is configured, by
    /// [`TlsStream::mode`](crate::TlsStream::mode).
    /// [`Authenticated::muxed`](crate::Authenticated::muxed) does that by itself.
    fn muxed(self, yamux: yamux::Config) -> Muxed<Self> {
        Muxed {
            inner: self,
            yamux,
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl<T, C> MuxExt for T where T: Transport<Output = (PeerId, C)> {}

/// See [`MuxExt::muxed`].
#[derive(Debug)]
pub struct Muxed<T> {
    inner: T,
    yamux: yamux::Config,
    close_timeout: Duration,
}

impl<T> Muxed<T> {
    /// How long a connection may take to close. Default 5 s.
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    pub(crate) fn map_inner(mut self, map: impl FnOnce(T) -> T) -> Self {
        self.inner = map(self.inner);
        self
    }

    fn muxing<F>(&self, connecting: F, role: Endpoint) -> Muxing<F> {
        Muxing {
            connecting: Box::pin(connecting),
            role,
            yamux: self.yamux.clone(),
            close_timeout: self.close_timeout,
        }
    }
}

impl<T, C> Transport for Muxed<T>
where
    T: Transport<Output = (PeerId, C)> + Unpin,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Muxer<C>);
    type Error = T::Error;
    type ListenerUpgrade = Muxing<T::ListenerUpgrade>;
    type Dial = Muxing<T::Dial>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<T::Error>> {
        let connecting = self.inner.dial(address, opts)?;
        Ok(self.muxing(connecting, opts.role))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, T::Error>> {
        let this = self.get_mut();
        let event = ready!(Pin::new(&mut this.inner).poll(cx));
        Poll::Ready(event.map_upgrade(|upgrade| this.muxing(upgrade, Endpoint::Listener)))
    }
}

/// A connection on its way to a [`Muxer`].
pub struct Muxing<F> {
    connecting: Pin<Box<F>>,
    role: Endpoint,
    yamux: yamux::Config,
    close_timeout: Duration,
}

impl<F> fmt::Debug for Muxing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxing")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl<F, C, E> Future for Muxing<F>
where
    F: Future<Output = Result<(PeerId, C), E>>,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Result<(PeerId, Muxer<C>), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (peer, stream) = ready!(self.connecting.as_mut().poll(cx))?;
        let muxer = Muxer::new(stream, self.role, &self.yamux, self.close_timeout);
        Poll::Ready(Ok((peer, muxer)))
    }
}

/// yamux over one connection. Closing takes [`Muxed::with_close_timeout`] at most: rust-libp2p awaits a closing
/// connection without a limit, so a peer that stops reading could otherwise hold it for ever.
pub struct Muxer<C> {
    inner: yamux::Connection<C>,
    close_timeout: Duration,
    closing: Option<Deadline>,
}

impl<C> fmt::Debug for Muxer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxer")
            .field("closing", &self.closing.is_some())
            .finish_non_exhaustive()
    }
}

impl<C> Muxer<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(stream: C, role: Endpoint, config: &yamux::Config, close_timeout: Duration) -> Self {
        Self {
            inner: yamux::Connection::new(stream, role, config),
            close_timeout,
            closing: None,
        }
    }
}

impl<C> StreamMuxer for Muxer<C>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Substream = yamux::Stream<C>;
    type Error = std::io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().inner.poll_inbound(cx)
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().inner.poll_outbound(cx)
    }

    /// An error of kind `TimedOut` when the time is up; the connection is then to be dropped.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let timeout = this.close_timeout;
        let deadline = this.closing.get_or_insert_with(|| Deadline::after(timeout));
        if deadline.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        this.inner.poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.get_mut().inner.poll(cx).map(Err)
    }
}
