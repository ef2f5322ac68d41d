//! Names one more address every few seconds at which the node might be reached, as others do by and
//! by. AutoNAT 2 asks about each.

use futures::FutureExt as _;
use libp2p::Multiaddr;
use libp2p::PeerId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

const EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Behaviour {
    left: Vec<Multiaddr>,
    next: Pin<Box<Sleep>>,
}

impl Behaviour {
    pub(crate) fn new() -> Self {
        Self {
            left: Vec::new(),
            next: Box::pin(sleep(EVERY)),
        }
    }

    pub(crate) fn add(&mut self, address: Multiaddr) {
        self.left.push(address);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        while self.next.poll_unpin(cx).is_ready() {
            self.next.as_mut().reset(Instant::now() + EVERY);
            if let Some(address) = self.left.pop() {
                return Poll::Ready(ToSwarm::NewExternalAddrCandidate(address));
            }
        }
        Poll::Pending
    }
}
