//! What the behaviour reports.

use super::error::DialFailure;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::time::Duration;

/// Something happened to a wanted peer, or to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A wanted peer is connected, in either direction.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// A wanted peer's last connection is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// When it will be dialled.
        retry_in: Duration,
    },
    /// A wanted peer was dialled in vain. The Swarm itself does not report a dial that was denied
    /// or had no address before anything was sent.
    DialFailed {
        /// Who.
        peer: PeerId,
        /// Why.
        error: DialFailure,
        /// Failures in a row. A denial does not count.
        failures: u32,
        /// When it will be dialled again.
        retry_in: Duration,
    },
    /// A second connection to a peer is being closed: it has carried no stream for a while.
    DuplicateClosed {
        /// To whom.
        peer: PeerId,
        /// The one that goes.
        closed: ConnectionId,
        /// The one that stays.
        kept: ConnectionId,
    },
    /// A connection did not answer in time and is being closed.
    Unresponsive {
        /// To whom.
        peer: PeerId,
        /// Which.
        connection: ConnectionId,
    },
    /// Fewer peers than the target are connected. Once, until it is reached again.
    TargetMissed {
        /// How many are.
        connected: usize,
    },
    /// As many peers as the target are connected again.
    TargetReached {
        /// How many are.
        connected: usize,
    },
}
