//! What is there already, judged anew after a rule has been tightened: some of it in each turn.

use super::{Behaviour, Live};
use crate::context::{Direction, Link, LiveConnection, PendingConnection};
use crate::event::Event;
use crate::gate::Gate;
use crate::user_code::Hook;
use crate::verdict::{Denied, Stage};
use libp2p_swarm::{CloseConnection, ConnectionId, ToSwarm};
use std::ops::Bound;

/// Connections that are judged again in one turn, at most, after a rule has been tightened.
const JUDGED_PER_TURN: usize = 256;

#[derive(Clone, Copy)]
pub(super) struct Sweep {
    /// The state of the policy when it began.
    version: u64,
    /// Attempts come first: one that is established meanwhile is met again among the connections.
    connections: bool,
    /// The last id that was judged.
    last: Option<ConnectionId>,
}

impl Behaviour {
    /// Judges some of what is there by the policy as it is now. Says whether all have been.
    pub(super) fn judge(&mut self) -> bool {
        let now = self.gate.0.version();
        let mut sweep = match self.sweep {
            Some(sweep) => sweep,
            None if now == self.judged => return true,
            None => Sweep {
                version: now,
                connections: false,
                last: None,
            },
        };
        let mut left = JUDGED_PER_TURN;
        if !sweep.connections {
            left = self.judge_attempts(&mut sweep, left);
        }
        if left > 0 {
            if !sweep.connections {
                (sweep.connections, sweep.last) = (true, None);
            }
            left = self.judge_connections(&mut sweep, left);
        }
        if left == 0 {
            self.sweep = Some(sweep);
            return false;
        }
        self.sweep = None;
        self.judged = sweep.version;
        // Tightened once more while this one was under way?
        self.gate.0.version() == sweep.version
    }

    fn judge_attempts(&mut self, sweep: &mut Sweep, mut left: usize) -> usize {
        let from = sweep.last.map_or(Bound::Unbounded, Bound::Excluded);
        let shared = &self.gate.0;
        let mut aborted = Vec::new();
        for (id, pending) in self.pending.range((from, Bound::Unbounded)) {
            if left == 0 {
                break;
            }
            left -= 1;
            sweep.last = Some(*id);
            // Nothing can stop the others: they are asked about when they are established, or by the gate's transport.
            let (Direction::Outbound, Some(peer)) = (pending.direction, pending.peer) else {
                continue;
            };
            let mut link = Link::unknown(pending.role).with_connection(*id);
            link.direction = Direction::Outbound;
            let question = PendingConnection::new(Some(&peer), link);
            let verdict = shared.ask(Hook::JudgePending, |policy| policy.judge_pending(&question));
            if verdict.is_deny()
                && let Err(denied) = shared.settle(Stage::Live, Some(&peer), &link, verdict)
                // It is all of a peer or nothing, and its connections may be allowed.
                && !self.peers.contains_key(&peer)
            {
                aborted.push((peer, denied.reason));
            }
        }
        aborted.sort_by_key(|(peer, _)| *peer);
        aborted.dedup_by_key(|(peer, _)| *peer);
        for (peer, reason) in aborted {
            self.actions
                .push_back(ToSwarm::GenerateEvent(Event::DialsAborted { peer, reason }));
            self.actions.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::All,
            });
        }
        left
    }

    fn judge_connections(&mut self, sweep: &mut Sweep, mut left: usize) -> usize {
        let from = sweep.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut unwanted = Vec::new();
        for (id, live) in self.live.range((from, Bound::Unbounded)) {
            if left == 0 {
                break;
            }
            left -= 1;
            sweep.last = Some(*id);
            if !live.closing
                && let Err(denied) = judge_live(&self.gate, *id, live)
            {
                unwanted.push((*id, denied.reason));
            }
        }
        for (id, reason) in unwanted {
            self.close(id, reason);
        }
        left
    }
}

/// Only what is denied is counted, as nothing has been decided where nothing changes.
pub(super) fn judge_live(gate: &Gate, id: ConnectionId, live: &Live) -> Result<(), Denied> {
    let link = live.link(id);
    let question = LiveConnection::new(&live.peer, link);
    let verdict = gate.0.ask(Hook::JudgeLive, |policy| policy.judge_live(&question));
    match verdict.is_deny() {
        true => gate.0.settle(Stage::Live, Some(&live.peer), &link, verdict),
        false => Ok(()),
    }
}
