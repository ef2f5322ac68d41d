//! What the manager has on each connection: keeps it alive at both ends, or does not.

use crate::alive::{Accept, Alive, Ask, Schedule, Told};
use libp2p_swarm::handler::ConnectionEvent;
use libp2p_swarm::{ConnectionHandler, ConnectionHandlerEvent, ConnectionId, SubstreamProtocol};
use std::convert::Infallible;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Keeps its connection alive, or does not: at this end by saying so, at the other by asking it.
#[derive(Debug)]
pub struct Handler {
    alive: Alive,
}

impl Handler {
    /// `every` is how often an end is asked that does not keep the connection itself; `accepts`,
    /// whether the other end may have this one keep it.
    pub(crate) fn new(connection: ConnectionId, keep_alive: bool, every: Option<Duration>, accepts: bool) -> Self {
        let mut alive = Alive::new(connection, Schedule::new(every, None), accepts);
        alive.keep(keep_alive);
        Self { alive }
    }
}

/// From here on the connection is to be kept alive, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetKeepAlive(pub(crate) bool);

impl ConnectionHandler for Handler {
    type FromBehaviour = SetKeepAlive;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accept;
    type OutboundProtocol = Ask;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        self.alive.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.alive.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, SetKeepAlive(keep_alive): SetKeepAlive) {
        self.alive.keep(keep_alive);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Ask, (), Infallible>> {
        loop {
            match ready!(self.alive.poll(cx)) {
                Told::Open(protocol) => {
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                // The manager closes no connection for not answering.
                Told::Answered | Told::Silent => {}
            }
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Ask>) {
        self.alive.on_connection_event(event);
    }
}
