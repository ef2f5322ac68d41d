//! What an application is told.

use crate::goodbye;
use crate::verdict::Reason;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;

/// What the gate's behaviour tells its Swarm.
///
/// Refusals are not among them: a flood of them would be a flood of events. Those that the Swarm sees it reports itself, as
/// [`SwarmEvent::IncomingConnectionError`](libp2p_swarm::SwarmEvent::IncomingConnectionError) and
/// [`SwarmEvent::OutgoingConnectionError`](libp2p_swarm::SwarmEvent::OutgoingConnectionError) with a
/// [`Denied`](crate::Denied) inside; all of them are counted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection is being closed, as a rule that was tightened does not let it in any more. Followed by the Swarm's own
    /// `ConnectionClosed`, within little more than a second.
    Closing {
        /// With whom.
        peer: PeerId,
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: Reason,
    },
    /// All dials of a peer are being given up, as a rule that was tightened does not allow them any more. Followed by the
    /// Swarm's own `OutgoingConnectionError`.
    DialsAborted {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: Reason,
    },
    /// The other end of a connection has said why it closes it, or we have.
    Goodbye(goodbye::Event),
}
