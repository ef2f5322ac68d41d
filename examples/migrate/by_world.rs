//! A behaviour that sees the connections and the external address candidates of one world alone: the knock's or the stock
//! transport's.
//!
//! AutoNAT v2's client asks any server that it has dialled about any candidate, once. A server that knows only stock
//! cannot dial a `/tls` address, and one such answer is final. At `prefer` take two clients: each asks servers of its
//! world about addresses of its world.
//!
//! This is a file to copy. It goes when the network has moved.

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint};
use libp2p_knock::is_knock_address;
use std::task::{Context, Poll};

pub(crate) struct ByWorld<B> {
    knock: bool,
    behaviour: Toggle<B>,
    /// Makes the handlers of the other world's connections, which do nothing.
    absent: Toggle<B>,
}

impl<B: NetworkBehaviour> ByWorld<B> {
    pub(crate) fn stock(behaviour: B) -> Self {
        Self::new(false, behaviour)
    }

    pub(crate) fn knock(behaviour: B) -> Self {
        Self::new(true, behaviour)
    }

    fn new(knock: bool, behaviour: B) -> Self {
        Self {
            knock,
            behaviour: Some(behaviour).into(),
            absent: None.into(),
        }
    }

    fn is_ours(&self, address: &Multiaddr) -> bool {
        is_knock_address(address) == self.knock
    }

    fn has(&self, point: &ConnectedPoint) -> bool {
        self.is_ours(match point {
            ConnectedPoint::Dialer { address, .. } => address,
            ConnectedPoint::Listener { local_addr, .. } => local_addr,
        })
    }

    fn at(&mut self, address: &Multiaddr) -> &mut Toggle<B> {
        if self.is_ours(address) {
            &mut self.behaviour
        } else {
            &mut self.absent
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for ByWorld<B> {
    type ConnectionHandler = THandler<Toggle<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.at(local)
            .handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.at(address)
            .handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let seen = match &event {
            FromSwarm::ConnectionEstablished(event) => self.has(event.endpoint),
            FromSwarm::ConnectionClosed(event) => self.has(event.endpoint),
            FromSwarm::AddressChange(event) => self.has(event.new),
            FromSwarm::NewExternalAddrCandidate(event) => self.is_ours(event.addr),
            _ => true,
        };
        if seen {
            self.behaviour.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.behaviour.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.behaviour.poll(cx)
    }
}
