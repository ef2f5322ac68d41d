//! Closing, by the Swarm or by a closer of the user's.

use super::Behaviour;
use crate::core::Stamp;
use crate::event::{Event, Reason};
use crate::handler::SetKeepAlive;
use crate::user_code::Hook;
use libp2p_identity::PeerId;
use libp2p_swarm::{CloseConnection, ConnectionId, ToSwarm};
use std::time::Duration;

/// How long a closer has before its connection is closed without it.
const CLOSER_TIME: Duration = Duration::from_secs(2);

impl Behaviour {
    /// Closes a peer's connections, or lets the closer do so.
    pub(super) fn close(
        &mut self,
        peer_id: PeerId,
        connections: &[ConnectionId],
        connection: CloseConnection,
        reason: Reason,
        now: Stamp,
    ) -> Option<ToSwarm<Event, SetKeepAlive>> {
        let close = ToSwarm::CloseConnection { peer_id, connection };
        let Some(closer) = &self.closer else { return Some(close) };
        for connection in connections {
            let call = || closer(peer_id, *connection, reason.as_str());
            if self.shared.panics().call(Hook::Closer, call).is_none() {
                return Some(close);
            }
        }
        self.unclosed.push_back((now.after(CLOSER_TIME), peer_id));
        None
    }

    /// Closes what a closer should have closed by now.
    pub(super) fn on_unclosed(&mut self, now: Stamp) {
        while let Some((due, peer_id)) = self.unclosed.front().copied()
            && due <= now
        {
            self.unclosed.pop_front();
            for connection in self.shared.book.closing_of(&peer_id) {
                self.out.push_back(ToSwarm::CloseConnection {
                    peer_id,
                    connection: CloseConnection::One(connection),
                });
            }
        }
    }
}
