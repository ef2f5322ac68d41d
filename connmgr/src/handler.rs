//! What the manager has on each connection: whether to keep it alive.

use libp2p_core::upgrade::DeniedUpgrade;
use libp2p_swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p_swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use std::convert::Infallible;
use std::task::{Context, Poll};

/// Speaks no protocol. Keeps its connection alive, or does not.
#[derive(Debug)]
pub struct Handler {
    keep_alive: bool,
}

impl Handler {
    pub(crate) fn new(keep_alive: bool) -> Self {
        Self { keep_alive }
    }
}

/// From here on the connection is to be kept alive, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetKeepAlive(pub(crate) bool);

impl ConnectionHandler for Handler {
    type FromBehaviour = SetKeepAlive;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn on_behaviour_event(&mut self, SetKeepAlive(keep_alive): SetKeepAlive) {
        self.keep_alive = keep_alive;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => match protocol {},
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => match protocol {},
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                error: StreamUpgradeError::Apply(error),
                ..
            }) => match error {},
            _ => {}
        }
    }
}
