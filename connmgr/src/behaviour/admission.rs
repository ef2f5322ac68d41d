//! The hard limit: which newcomer may come in, and which peer goes for it.
//!
//! A newcomer is judged before it is established, and the peer whose place it takes is closed once
//! it is: between the two another behaviour may still deny it.

use super::{Behaviour, is_relayed};
use crate::core::{EVICTED, Mode, Newcomer, Room, Stamp};
use crate::event::{Event, Reason};
use crate::handle::HardLimitReached;
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use libp2p_swarm::{CloseConnection, ConnectionDenied, ConnectionId};

impl Behaviour {
    /// At the hard limit, looks for a peer that is worth less, or says no.
    pub(super) fn admit(&mut self, newcomer: Newcomer) -> Result<(), ConnectionDenied> {
        let Some(hard) = self.shared.hard_limit else {
            return Ok(());
        };
        let has_room = match hard.room(&self.shared.book) {
            Room::Free => true,
            Room::OfAnother => {
                let rules = self.shared.rules(Mode::Evict, self.shared.now());
                self.evictor.has_room(&rules, newcomer)
            }
            Room::None => false,
        };
        if has_room {
            return Ok(());
        }
        self.report(Event::Denied { peer: newcomer.peer });
        let limit = hard.limit;
        Err(ConnectionDenied::new(HardLimitReached { limit }))
    }

    /// Closes the peer whose place a newcomer has taken. If every such peer has gained since the
    /// newcomer was let in, it has to go again itself.
    pub(super) fn keep_limit(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, now: Stamp) {
        let Some(hard) = self.shared.hard_limit else { return };
        if self.shared.book.open() <= hard.limit {
            return;
        }
        let newcomer = Newcomer {
            peer,
            outbound: endpoint.is_dialer(),
            relayed: is_relayed(endpoint.get_remote_address()),
        };
        let shared = self.shared.clone();
        let victim = self.evictor.make_room(&shared.rules(Mode::Evict, now), newcomer);
        let (peer, connections, close) = match victim {
            Some((peer, connections)) => (peer, connections, CloseConnection::All),
            None if shared.book.mark_one(&peer, connection, EVICTED) => {
                (peer, [connection].as_slice().into(), CloseConnection::One(connection))
            }
            None => return,
        };
        let reason = Reason::HardLimit;
        let close = self.close(peer, &connections, close, reason, now);
        self.out.extend(close);
        let connections = connections.len();
        self.report(Event::Trimmed {
            peer,
            connections,
            reason,
        });
    }
}
