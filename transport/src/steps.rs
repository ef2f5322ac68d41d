//! What a dial logs of itself at `debug`, to its end, whichever that is.

use crate::error::Failure;
use crate::upgrade::Shared;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use tracing::{Level, debug, enabled};

/// One dial. If it is dropped before it has ended, it was given up: at a time limit of the Swarm's,
/// or as another dial was faster.
pub(crate) struct Steps {
    peer: PeerId,
    address: Multiaddr,
    ended: bool,
}

impl Steps {
    pub(crate) fn begin(peer: PeerId, address: Multiaddr, role: Endpoint) -> Self {
        debug!(%peer, %address, ?role, "connecting");
        Self {
            peer,
            address,
            ended: false,
        }
    }

    pub(crate) fn connected(&self) {
        debug!(peer = %self.peer, address = %self.address, "connected");
    }

    pub(crate) fn end(mut self, failed: Option<&Failure>, shared: &Shared) {
        self.ended = true;
        let (peer, address) = (&self.peer, &self.address);
        match failed {
            None => debug!(%peer, %address, "dialled"),
            Some(failure) if enabled!(Level::DEBUG) => {
                let (stage, error) = (failure.stage(), shared.whole(failure.error()));
                debug!(%peer, %address, %stage, error, "the dial failed");
            }
            Some(_) => {}
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if !self.ended {
            debug!(peer = %self.peer, address = %self.address, "the dial was given up");
        }
    }
}
