//! One connection of the Swarm: opens and accepts the substream, and runs what is spoken there.

#![expect(
    unnameable_types,
    reason = "the Swarm finds them as associated types, and nobody else has a use for them"
)]

use crate::link::Link;
use crate::peers::Registry;
use futures::io::BufReader;
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_core::upgrade::ReadyUpgrade;
use libp2p_identity::PeerId;
use libp2p_swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What is negotiated for the substream.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/knock-host/streams/1");

/// Bytes read at once.
const READ: usize = 32 << 10;

/// Open a substream.
#[derive(Debug, Clone, Copy)]
pub struct Open;

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// It is there, unless the other end has no stream to us.
    Opened,
    /// It is not.
    Failed(&'static str),
}

/// See the module.
pub struct Handler {
    registry: Arc<Registry>,
    peer: PeerId,
    /// To be opened.
    open: bool,
    /// Being opened.
    opening: bool,
    outcome: Option<Outcome>,
    links: FuturesUnordered<Link<BufReader<Stream>>>,
}

impl Handler {
    pub(super) fn new(registry: Arc<Registry>, peer: PeerId, open: bool) -> Self {
        Self {
            registry,
            peer,
            open,
            opening: false,
            outcome: None,
            links: FuturesUnordered::new(),
        }
    }

    fn run(&mut self, stream: Stream, outbound: bool) {
        // Without a lease the stream is dropped: the other end sees it closed.
        if let Some(lease) = self.registry.arrived(&self.peer, outbound) {
            self.links
                .push(Link::new(BufReader::with_capacity(READ, stream), lease, None));
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Outcome;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.open || self.opening || !self.links.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(outcome));
        }
        if self.open && !self.opening {
            self.open = false;
            self.opening = true;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()),
            });
        }
        while let Poll::Ready(Some(end)) = self.links.poll_next_unpin(cx) {
            let (peer, error) = (self.peer, &end as &dyn std::error::Error);
            tracing::debug!(%peer, error, "a substream ended");
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        self.open = true;
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.run(protocol, false);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.opening = false;
                self.outcome = Some(Outcome::Opened);
                self.run(protocol, true);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.opening = false;
                self.outcome = Some(Outcome::Failed(match error {
                    StreamUpgradeError::NegotiationFailed => "the other end does not know the protocol",
                    StreamUpgradeError::Timeout => "the other end did not answer",
                    StreamUpgradeError::Apply(_) | StreamUpgradeError::Io(_) => "the substream broke",
                }));
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("peer", &self.peer)
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}
