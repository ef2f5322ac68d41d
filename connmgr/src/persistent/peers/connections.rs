//! What is there: which connection is kept, which is one too many, and what a loss means.

use super::super::choice::{self, Held};
use super::super::event::Event;
use super::super::handler::Command;
use super::{Action, Connection, Peers, Role};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use web_time::Instant;

/// A connection has lasted beyond doubt after so many times
/// [`Config::with_stable`](super::super::Config::with_stable).
const LASTING: u32 = 6;

/// A connection that has come up.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) held: Held,
    pub(crate) by_knock: bool,
    /// Whether its handler keeps it.
    pub(crate) kept: bool,
    /// Where it was dialled, if we did that.
    pub(crate) dialled: Option<Multiaddr>,
}

impl Peers {
    /// Any connection of the Swarm.
    pub(crate) fn established(&mut self, now: Instant, peer: PeerId, arrival: Arrival) {
        let Arrival {
            held,
            by_knock,
            kept,
            dialled,
        } = arrival;
        self.dial_ended(held.id);
        self.dequeue(&peer);
        let entry = self.peers.entry(peer).or_default();
        if let Some(place) = entry.known.take() {
            self.known.remove(&place);
            entry.due = None;
        }
        if let Some(address) = dialled {
            entry.addresses.worked(peer, address);
        }
        (entry.denials, entry.rounds, entry.misled) = (0, 0, false);
        // It was about a dial that is not needed any more.
        entry.denied_until = None;
        let first = entry.connections.is_empty();
        // A peer that has a connection and makes another one may have lost the first.
        for have in &mut entry.connections {
            (have.asked, have.answered) = (false, false);
        }
        entry.connections.push(Connection {
            held,
            by_knock,
            closing: false,
            role: if kept { Role::Kept } else { Role::Loose },
            asked: false,
            answered: false,
        });
        if first {
            entry.connected_since = Some(now);
            self.connected += 1;
            if entry.wanted {
                self.wanted_connected += 1;
                self.tell(Event::Connected { peer });
            }
        }
        self.judge(&peer);
        self.run(now);
    }

    /// Any connection of the Swarm, and those that were reported before the end of all.
    pub(crate) fn closed(&mut self, now: Instant, peer: &PeerId, connection: ConnectionId) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let before = entry.connections.len();
        entry.connections.retain(|have| have.held.id != connection);
        if entry.connections.len() == before {
            return;
        }
        if entry.connections.is_empty() {
            self.connected -= 1;
            self.short = true;
            entry.for_target = false;
            let since = entry.connected_since.take().unwrap_or(now);
            let lasted = now.saturating_duration_since(since);
            let stable = self.config.stable;
            if lasted >= stable.saturating_mul(LASTING) {
                (entry.failures, entry.brief) = (0, false);
            } else if lasted >= stable && !entry.brief {
                (entry.failures, entry.brief) = (0, true);
            } else {
                // A peer that ends every connection after a while, as an idle timeout does, is not
                // dialled at once for ever.
                entry.failures = entry.failures.saturating_add(1);
            }
            if entry.wanted {
                self.wanted_connected -= 1;
                let retry_in = self.again(now, *peer);
                self.tell(Event::Disconnected { peer: *peer, retry_in });
            } else {
                self.forget_or_know(now, peer);
            }
        }
        self.judge(peer);
        self.run(now);
    }

    /// A connection that was asked has answered.
    pub(crate) fn answered(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        for have in &mut entry.connections {
            have.answered |= have.held.id == connection && have.asked;
        }
        self.judge(peer);
    }

    /// A connection did not answer.
    pub(crate) fn unresponsive(&mut self, peer: PeerId, connection: ConnectionId) {
        if self.close(&peer, connection, |_| true) {
            self.tell(Event::Unresponsive { peer, connection });
            self.judge(&peer);
        }
    }

    /// A connection that is one too many has carried no stream for as long as it was told.
    pub(crate) fn unused(&mut self, peer: PeerId, closed: ConnectionId) {
        let kept = self.peers.get(&peer).and_then(|entry| {
            let kept = |have: &&Connection| have.role == Role::Kept && !have.closing;
            entry.connections.iter().find(kept).map(|have| have.held.id)
        });
        // Meanwhile it may have become the one that is kept.
        if let Some(kept) = kept
            && self.close(&peer, closed, |have| have.role == Role::Spare)
        {
            self.tell(Event::DuplicateClosed { peer, closed, kept });
        }
    }

    /// Closes those that are not by knock.
    pub(super) fn close_others(&mut self, peer: &PeerId) {
        let Some(entry) = self.peers.get(peer) else { return };
        let others = entry.connections.iter().filter(|have| !have.by_knock);
        let others: Vec<ConnectionId> = others.map(|have| have.held.id).collect();
        for connection in others {
            self.close(peer, connection, |_| true);
        }
    }

    /// False if it is not there, is being closed already, or is not `meant`.
    fn close(&mut self, peer: &PeerId, connection: ConnectionId, meant: impl Fn(&Connection) -> bool) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else {
            return false;
        };
        let found = entry.connections.iter_mut().find(|have| have.held.id == connection);
        let Some(found) = found.filter(|have| !have.closing && meant(have)) else {
            return false;
        };
        found.closing = true;
        let peer = *peer;
        self.actions.push_back(Action::Close { peer, connection });
        true
    }

    /// Tells each connection of `peer` what it is, if that has changed. Of several, the one that
    /// [`choice`] names is kept once it has answered since the newest came up, and until then all
    /// are.
    pub(super) fn judge(&mut self, peer: &PeerId) {
        let (local, config) = (self.local, &self.config);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let kept = entry.kept();
        let live = entry.connections.iter().filter(|have| !have.closing);
        let chosen = if kept && config.one_connection {
            let held = live.clone().map(|have| &have.held);
            choice::keep(&local, peer, held, config.simultaneous).map(|held| held.id)
        } else {
            None
        };
        let newest = live.map(|have| (have.held.since, have.held.id)).max();
        let newest = newest.map(|(_, id)| id);
        let mut settled = true;
        let mut commands = Vec::new();
        if let Some(chosen) = chosen
            && let Some(have) = entry.connections.iter_mut().find(|have| have.held.id == chosen)
        {
            settled = have.answered || newest == Some(chosen);
            if !settled && !std::mem::replace(&mut have.asked, true) {
                commands.push((chosen, Command::Ask));
            }
        }
        let unused = if choice::closes(&local, peer) {
            config.settle
        } else {
            config.settle.saturating_add(config.settle / 2)
        };
        for have in entry.connections.iter_mut().filter(|have| !have.closing) {
            let role = match chosen {
                _ if !kept => Role::Loose,
                Some(chosen) if settled && have.held.id != chosen => Role::Spare,
                _ => Role::Kept,
            };
            if std::mem::replace(&mut have.role, role) != role {
                let command = match role {
                    Role::Loose => Command::LetGo,
                    Role::Kept => Command::Keep,
                    Role::Spare => Command::Spare { unused },
                };
                // Before it is asked: only a connection that is kept is.
                commands.insert(0, (have.held.id, command));
            }
        }
        let peer = *peer;
        self.actions
            .extend(commands.into_iter().map(|(connection, command)| Action::Command {
                peer,
                connection,
                command,
            }));
    }
}
