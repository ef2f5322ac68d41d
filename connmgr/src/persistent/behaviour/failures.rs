//! Dials that failed.

use super::super::error::DialFailure;
use super::super::metrics::Dialled;
use super::super::peers::Failure;
use super::Behaviour;
use libp2p_swarm::{DialError, behaviour};
use web_time::Instant;

impl Behaviour {
    pub(super) fn on_dial_failure(&mut self, failure: behaviour::DialFailure<'_>) {
        let (id, error) = (failure.connection_id, failure.error);
        self.keeping.remove(&id);
        if let (Some(peer), DialError::WrongPeerId { address, .. }) = (failure.peer_id, error) {
            self.peers.wrong(Instant::now(), &peer, address);
        }
        if !self.peers.is_ours(id) {
            return;
        }
        let failure = match error {
            DialError::DialPeerConditionFalse(_) | DialError::Aborted => Failure::NotNeeded,
            DialError::Denied { cause } => Failure::Denied {
                early: self.early.contains(&id),
                wait: self.denied_for(cause),
            },
            DialError::WrongPeerId { .. } => Failure::Misled,
            _ => Failure::Failed,
        };
        let error = DialFailure::new(error);
        self.metrics.dialled(match (&failure, &error) {
            (Failure::NotNeeded, _) => Dialled::NotNeeded,
            (_, DialFailure::Denied { .. }) => Dialled::Denied,
            (_, DialFailure::NoAddresses) => Dialled::NoAddresses,
            (_, DialFailure::WrongPeer { .. }) => Dialled::WrongPeer,
            (_, DialFailure::Unreachable { .. }) => Dialled::Unreachable,
            (_, DialFailure::Other { .. }) => Dialled::Other,
        });
        self.peers.dial_failed(Instant::now(), id, failure, error);
    }
}
