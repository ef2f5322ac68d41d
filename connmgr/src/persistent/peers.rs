//! Wanted peers, connected peers, and what is to be done about the difference. Time and reports
//! come in; dials and closes go out.

mod addresses;
mod connections;
mod dials;
#[cfg(test)]
mod tests;

use super::choice::Held;
use super::config::Config;
use super::event::Event;
use super::handler::Command;
use super::knock::is_knock;
use super::pauses::Dice;
use addresses::Addresses;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use web_time::Instant;

pub(crate) use addresses::Plan;
pub(crate) use connections::Arrival;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial `peer`, and tell [`Peers::dialling`] under which id.
    Dial { peer: PeerId, plan: Plan },
    /// Close this connection.
    Close { peer: PeerId, connection: ConnectionId },
    /// Tell this connection.
    Command {
        peer: PeerId,
        connection: ConnectionId,
        command: Command,
    },
    /// Tell the application.
    Tell(Event),
}

/// How a dial failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not made: another dial is under way, or was faster.
    NotNeeded,
    /// Ours said no, and says perhaps for how long.
    Denied {
        /// Before anything was sent.
        early: bool,
        wait: Option<Duration>,
    },
    /// Another peer answered.
    Misled,
    Failed,
}

#[derive(Debug)]
pub(crate) struct Peers {
    config: Config,
    local: PeerId,
    /// Where this Swarm listens.
    own: Vec<Multiaddr>,
    dice: Dice,
    /// The wanted, the connected and the known.
    peers: HashMap<PeerId, Peer>,
    connected: usize,
    /// Of the peers, those that are wanted; and of these, those that have a connection.
    wanted: usize,
    wanted_connected: usize,
    /// Wanted peers without a connection or a dial, by when to dial them.
    queue: BTreeSet<(Instant, PeerId)>,
    /// Peers that are not wanted, known for the target and without a connection, the longest so first.
    known: BTreeMap<u64, PeerId>,
    next_known: u64,
    dials: HashMap<ConnectionId, PeerId>,
    /// Of them and of those that have no id yet.
    dialling: usize,
    /// Set when a look for a peer to dial may find one.
    short: bool,
    /// When one of the known may be dialled again.
    short_until: Option<Instant>,
    missed: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug, Default)]
struct Peer {
    wanted: bool,
    /// Whether it may be reached by knock only.
    knock_only: bool,
    /// Whether its connection was dialled for the target, and is kept for that.
    for_target: bool,
    addresses: Addresses,
    connections: Vec<Connection>,
    failures: u32,
    /// Denials in a row, and until when the last one holds.
    denials: u32,
    denied_until: Option<Instant>,
    /// Dials in vain since the last connection.
    rounds: u32,
    /// The last dial that was made reached another peer.
    misled: bool,
    /// A connection that had been stable was lost, and none has lasted beyond doubt since.
    brief: bool,
    last_dial: Option<Instant>,
    connected_since: Option<Instant>,
    /// What the dial that is under way tries.
    dialling: Option<Vec<Multiaddr>>,
    /// Its place in `queue`, or, for one of the known, when it may be dialled.
    due: Option<Instant>,
    known: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    held: Held,
    by_knock: bool,
    closing: bool,
    role: Role,
    /// Whether it is asked, or has answered, since the newest connection came up.
    asked: bool,
    answered: bool,
}

/// What a connection's handler has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Loose,
    Kept,
    Spare,
}

impl Peer {
    fn kept(&self) -> bool {
        self.wanted || self.for_target
    }

    fn idle(&self) -> bool {
        self.connections.is_empty() && self.dialling.is_none()
    }
}

impl Peers {
    pub(crate) fn new(local: PeerId, config: Config) -> Self {
        Self {
            dice: Dice::new(config.seed),
            local,
            own: Vec::new(),
            peers: HashMap::new(),
            connected: 0,
            wanted: 0,
            wanted_connected: 0,
            queue: BTreeSet::new(),
            known: BTreeMap::new(),
            next_known: 0,
            dials: HashMap::new(),
            dialling: 0,
            short: config.target > 0,
            short_until: None,
            missed: false,
            actions: VecDeque::new(),
            config,
        }
    }

    pub(crate) fn local(&self) -> &PeerId {
        &self.local
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn connected(&self) -> usize {
        self.connected
    }

    pub(crate) fn wanted_connected(&self) -> usize {
        self.wanted_connected
    }

    /// Wanted peers whose next dial is to come: its time, or its turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Wanted peers that have no connection and are being dialled.
    pub(crate) fn wanted_dialling(&self) -> usize {
        self.wanted.saturating_sub(self.wanted_connected + self.queue.len())
    }

    pub(crate) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.wanted)
    }

    /// Whether a connection to `peer` is to be kept alive.
    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(Peer::kept)
    }

    /// Whether a connection to `peer` may not be one over `address`.
    pub(crate) fn is_refused(&self, peer: &PeerId, addresses: [&Multiaddr; 2]) -> bool {
        let knock_only = self.peers.get(peer).is_some_and(|peer| peer.knock_only);
        knock_only && !addresses.into_iter().any(is_knock)
    }

    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        let wanted = self.peers.iter().filter(|(_, entry)| entry.wanted);
        wanted.map(|(peer, entry)| (peer, !entry.connections.is_empty()))
    }

    /// Where others may dial `peer`.
    pub(crate) fn addresses(&self, now: Instant, peer: &PeerId) -> Vec<Multiaddr> {
        let entry = self.peers.get(peer);
        let addresses = entry.map(|entry| entry.addresses.best(entry.knock_only, &self.own, now));
        addresses.unwrap_or_default()
    }

    /// Wants `peer`. False if it was wanted; its addresses are replaced all the same.
    pub(crate) fn add(&mut self, now: Instant, peer: PeerId, addresses: Vec<Multiaddr>, knock_only: bool) -> bool {
        let entry = self.peers.entry(peer).or_default();
        entry.addresses.give(peer, addresses);
        entry.knock_only = knock_only;
        let was = std::mem::replace(&mut entry.wanted, true);
        if !was {
            self.wanted += 1;
            self.wanted_connected += usize::from(!entry.connections.is_empty());
        }
        if let Some(place) = entry.known.take() {
            self.known.remove(&place);
            entry.due = None;
        }
        if entry.idle() {
            // New addresses deserve a new beginning.
            (entry.failures, entry.denials, entry.rounds) = (0, 0, 0);
            entry.denied_until = None;
            let earliest = self.earliest(now, &peer);
            self.enqueue(peer, earliest);
        }
        if knock_only {
            self.close_others(&peer);
        }
        self.judge(&peer);
        self.run(now);
        !was
    }

    /// Wants `peer` no longer; its connections stay. False if it was not wanted.
    pub(crate) fn remove(&mut self, now: Instant, peer: &PeerId) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else {
            return false;
        };
        if !std::mem::replace(&mut entry.wanted, false) {
            return false;
        }
        self.wanted -= 1;
        self.wanted_connected -= usize::from(!entry.connections.is_empty());
        entry.knock_only = false;
        self.dequeue(peer);
        self.judge(peer);
        self.forget_or_know(now, peer);
        self.run(now);
        true
    }

    /// Remembers `peer` for the target.
    pub(crate) fn add_known(&mut self, now: Instant, peer: PeerId, addresses: Vec<Multiaddr>) {
        let entry = self.peers.entry(peer).or_default();
        entry.addresses.give(peer, addresses);
        self.forget_or_know(now, &peer);
        self.run(now);
    }

    pub(crate) fn set_target(&mut self, now: Instant, target: usize) {
        self.config.target = target;
        self.short = true;
        self.run(now);
    }

    /// The peer itself, or another one, says that it can be found there.
    pub(crate) fn claimed(&mut self, now: Instant, peer: &PeerId, address: Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.claimed(*peer, address);
            if entry.known.is_some() {
                self.short = true;
                self.run(now);
            }
        }
    }

    /// This Swarm listens there: no other peer can be reached there.
    pub(crate) fn listens(&mut self, address: Multiaddr) {
        self.own.push(address);
    }

    pub(crate) fn listens_no_more(&mut self, address: &Multiaddr) {
        if let Some(at) = self.own.iter().position(|own| own == address) {
            self.own.swap_remove(at);
        }
    }

    /// The address led nowhere, though another one worked.
    pub(crate) fn failed(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.failed(*peer, address);
        }
    }

    /// Another peer answered at this address, in a dial of any behaviour's.
    pub(crate) fn wrong(&mut self, now: Instant, peer: &PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.wrong(*peer, address, now);
        }
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        if self.short_until.is_some_and(|due| due <= now) {
            self.short = true;
        }
        self.run(now);
    }

    /// When [`timeout`](Self::timeout) wants to be called; `None` while only reports can change anything.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.dialling >= self.config.max_dials.get() {
            return None;
        }
        let queued = self.queue.first().map(|(due, _)| *due);
        [queued, self.short_until].into_iter().flatten().min()
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What becomes of a peer that is not, or no longer, wanted: with a connection it stays; without one it is remembered
    /// for the target if it can be found.
    fn forget_or_know(&mut self, now: Instant, peer: &PeerId) {
        let Some(entry) = self.peers.get(peer) else { return };
        if entry.wanted || !entry.idle() {
            return;
        }
        if self.config.target == 0 || self.config.max_known == 0 || entry.addresses.is_empty() {
            if let Some(entry) = self.peers.remove(peer)
                && let Some(place) = entry.known
            {
                self.known.remove(&place);
            }
            return;
        }
        let due = self.next_dial(now, peer);
        self.short = true;
        let Some(entry) = self.peers.get_mut(peer) else { return };
        entry.due = Some(due);
        if entry.known.is_none() {
            entry.known = Some(self.next_known);
            self.known.insert(self.next_known, *peer);
            self.next_known += 1;
        }
        while self.known.len() > self.config.max_known
            && let Some((_, longest)) = self.known.pop_first()
        {
            self.peers.remove(&longest);
        }
    }

    fn tell(&mut self, event: Event) {
        self.actions.push_back(Action::Tell(event));
    }
}

/// `now + wait`, or as good as never.
fn later(now: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}
