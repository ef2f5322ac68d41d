//! The gate round a stock security upgrade: the secured stage where `with_tcp` has no place for one.

use crate::address::TransportKind;
use crate::context::Link;
use crate::error::Error;
use crate::gate::Gate;
use libp2p_core::Endpoint;
use libp2p_core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p_identity::PeerId;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A security upgrade that asks the gate once the peer is proven. Made by [`Gate::upgrade`].
#[derive(Clone)]
pub struct Upgrade<U> {
    inner: U,
    kind: TransportKind,
    gate: Gate,
}

impl<U> Upgrade<U> {
    pub(crate) fn new(inner: U, kind: TransportKind, gate: Gate) -> Self {
        Self { inner, kind, gate }
    }
}

impl<U: std::fmt::Debug> std::fmt::Debug for Upgrade<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Upgrade<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.inner.protocol_info()
    }
}

pin_project_lite::pin_project! {
    /// The handshake, and then the question.
    #[must_use = "a future does nothing unless it is polled"]
    pub struct Asking<F> {
        #[pin]
        handshake: F,
        role: Endpoint,
        kind: TransportKind,
        gate: Gate,
    }
}

impl<F, S, E> Future for Asking<F>
where
    F: Future<Output = Result<(PeerId, S), E>>,
{
    type Output = Result<(PeerId, S), Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (peer, stream) = ready!(this.handshake.poll(cx)).map_err(Error::Inner)?;
        let link = Link::unknown(*this.role).with_kind(*this.kind);
        this.gate.0.ask_secured(&peer, &link)?;
        Poll::Ready(Ok((peer, stream)))
    }
}

impl<C, U, S> InboundConnectionUpgrade<C> for Upgrade<U>
where
    U: InboundConnectionUpgrade<C, Output = (PeerId, S)>,
{
    type Output = (PeerId, S);
    type Error = Error<U::Error>;
    type Future = Asking<U::Future>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        Asking {
            handshake: self.inner.upgrade_inbound(socket, info),
            role: Endpoint::Listener,
            kind: self.kind,
            gate: self.gate,
        }
    }
}

impl<C, U, S> OutboundConnectionUpgrade<C> for Upgrade<U>
where
    U: OutboundConnectionUpgrade<C, Output = (PeerId, S)>,
{
    type Output = (PeerId, S);
    type Error = Error<U::Error>;
    type Future = Asking<U::Future>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        Asking {
            handshake: self.inner.upgrade_outbound(socket, info),
            role: Endpoint::Dialer,
            kind: self.kind,
            gate: self.gate,
        }
    }
}
