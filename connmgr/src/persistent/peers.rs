//! Who is wanted, who is connected, and what is to be done about the difference. Time and reports come in; dials and
//! closes go out.

mod addresses;
#[cfg(test)]
mod tests;

use super::choice::{self, Held};
use super::config::Config;
use super::event::Event;
use super::pauses::{Dice, pause};
use addresses::Addresses;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;
use web_time::Instant;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial `peer`, and tell [`Peers::dialling`] under which id.
    Dial { peer: PeerId, addresses: Vec<Multiaddr> },
    /// Close this connection.
    Close { peer: PeerId, connection: ConnectionId },
    /// Keep this connection alive and ask whether it answers, or no longer.
    Keep {
        peer: PeerId,
        connection: ConnectionId,
        keep: bool,
    },
    /// Tell the application.
    Tell(Event),
}

/// How a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not made: somebody else is at it, or was faster.
    NotNeeded,
    Failed,
}

#[derive(Debug)]
pub(crate) struct Peers {
    config: Config,
    local: PeerId,
    dice: Dice,
    /// The wanted, the connected and the known.
    peers: HashMap<PeerId, Peer>,
    connected: usize,
    /// Wanted peers without a connection or a dial, by when to dial them.
    queue: BTreeSet<(Instant, PeerId)>,
    /// Peers that are not wanted, known for the target and without a connection, the longest so first.
    known: BTreeMap<u64, PeerId>,
    next_known: u64,
    dials: HashMap<ConnectionId, PeerId>,
    /// Of them and of those that have no id yet.
    dialling: usize,
    /// When the other end will have had its time to close duplicates.
    settling: BTreeSet<(Instant, PeerId)>,
    /// Set when a look for somebody to dial may find somebody.
    short: bool,
    /// When one of the known may be dialled again.
    short_until: Option<Instant>,
    missed: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug, Default)]
struct Peer {
    wanted: bool,
    /// Whether its connection was dialled for the target, and is kept for that.
    for_target: bool,
    addresses: Addresses,
    connections: Vec<Connection>,
    failures: u32,
    last_dial: Option<Instant>,
    connected_since: Option<Instant>,
    dialling: bool,
    /// Its place in `queue`, or, for one of the known, when it may be dialled.
    due: Option<Instant>,
    known: Option<u64>,
    settle: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    held: Held,
    closing: bool,
}

impl Peer {
    fn kept(&self) -> bool {
        self.wanted || self.for_target
    }

    fn idle(&self) -> bool {
        self.connections.is_empty() && !self.dialling
    }
}

impl Peers {
    pub(crate) fn new(local: PeerId, config: Config) -> Self {
        Self {
            dice: Dice::new(config.seed),
            local,
            peers: HashMap::new(),
            connected: 0,
            queue: BTreeSet::new(),
            known: BTreeMap::new(),
            next_known: 0,
            dials: HashMap::new(),
            dialling: 0,
            settling: BTreeSet::new(),
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

    pub(crate) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.wanted)
    }

    /// Whether a connection to `peer` is to be kept alive.
    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(Peer::kept)
    }

    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        let wanted = self.peers.iter().filter(|(_, entry)| entry.wanted);
        wanted.map(|(peer, entry)| (peer, !entry.connections.is_empty()))
    }

    /// Where `peer` can be found.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers
            .get(peer)
            .map(|peer| peer.addresses.all())
            .unwrap_or_default()
    }

    /// Wants `peer`. False if it was wanted; its addresses are replaced all the same.
    pub(crate) fn add(&mut self, now: Instant, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let entry = self.peers.entry(peer).or_default();
        entry.addresses.give(addresses);
        let was = std::mem::replace(&mut entry.wanted, true);
        if let Some(place) = entry.known.take() {
            self.known.remove(&place);
            entry.due = None;
        }
        if entry.idle() {
            // New addresses deserve a new beginning.
            entry.failures = 0;
            let earliest = self.earliest(now, &peer);
            self.enqueue(peer, earliest);
        }
        if !was {
            self.keep(&peer, true);
            self.judge(now, &peer);
        }
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
        self.dequeue(peer);
        self.keep(peer, false);
        self.forget_or_know(now, peer);
        self.run(now);
        true
    }

    /// Remembers `peer` for the target.
    pub(crate) fn add_known(&mut self, now: Instant, peer: PeerId, addresses: Vec<Multiaddr>) {
        let entry = self.peers.entry(peer).or_default();
        entry.addresses.give(addresses);
        self.forget_or_know(now, &peer);
        self.run(now);
    }

    pub(crate) fn set_target(&mut self, now: Instant, target: usize) {
        self.config.target = target;
        self.short = true;
        self.run(now);
    }

    /// Somebody, the peer itself mostly, says that it can be found there.
    pub(crate) fn learned(&mut self, now: Instant, peer: &PeerId, address: Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.learn(address);
            if entry.known.is_some() {
                self.short = true;
                self.run(now);
            }
        }
    }

    /// The address led nowhere, or to somebody else, while we were online.
    pub(crate) fn unlearned(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.unlearn(address);
        }
    }

    /// The dial that [`Action::Dial`] asked for is under way.
    pub(crate) fn dialling(&mut self, peer: PeerId, dial: ConnectionId) {
        self.dials.insert(dial, peer);
    }

    /// Any connection of the Swarm. `dialled` is the address, if we dialled.
    pub(crate) fn established(&mut self, now: Instant, peer: PeerId, held: Held, dialled: Option<Multiaddr>) {
        self.dial_ended(held.id);
        self.dequeue(&peer);
        let entry = self.peers.entry(peer).or_default();
        if let Some(place) = entry.known.take() {
            self.known.remove(&place);
            entry.due = None;
        }
        if let Some(address) = dialled {
            entry.addresses.learn(address);
        }
        let first = entry.connections.is_empty();
        entry.connections.push(Connection { held, closing: false });
        if first {
            entry.connected_since = Some(now);
            self.connected += 1;
            if entry.wanted {
                self.tell(Event::Connected { peer });
            }
        }
        self.judge(now, &peer);
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
            if now.saturating_duration_since(since) >= self.config.stable {
                entry.failures = 0;
            } else {
                entry.failures = entry.failures.saturating_add(1);
            }
            if entry.wanted {
                let retry_in = self.again(now, *peer);
                self.tell(Event::Disconnected { peer: *peer, retry_in });
            } else {
                self.forget_or_know(now, peer);
            }
        }
        self.judge(now, peer);
        self.run(now);
    }

    /// A connection did not answer.
    pub(crate) fn unresponsive(&mut self, now: Instant, peer: PeerId, connection: ConnectionId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let found = entry.connections.iter_mut().find(|have| have.held.id == connection);
        if let Some(found) = found
            && !std::mem::replace(&mut found.closing, true)
        {
            self.tell(Event::Unresponsive { peer, connection });
            self.actions.push_back(Action::Close { peer, connection });
            self.judge(now, &peer);
        }
    }

    /// Any failed dial of the Swarm; those of others are none of ours.
    pub(crate) fn dial_failed(&mut self, now: Instant, dial: ConnectionId, failure: Failure) {
        let Some(peer) = self.dial_ended(dial) else { return };
        self.short = true;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if failure == Failure::Failed {
            entry.failures = entry.failures.saturating_add(1);
        }
        if entry.connections.is_empty() {
            entry.for_target = false;
            let failures = entry.failures;
            if entry.wanted {
                let retry_in = self.again(now, peer);
                if failure == Failure::Failed {
                    self.tell(Event::DialFailed {
                        peer,
                        failures,
                        retry_in,
                    });
                }
            } else {
                self.forget_or_know(now, &peer);
            }
        }
        self.run(now);
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        while let Some((due, peer)) = self.settling.first().copied()
            && due <= now
        {
            self.judge(now, &peer);
        }
        if self.short_until.is_some_and(|due| due <= now) {
            self.short = true;
        }
        self.run(now);
    }

    /// When [`timeout`](Self::timeout) wants to be called; `None` while only reports can change anything.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let dial = if self.dialling < self.config.max_dials.get() {
            let queued = self.queue.first().map(|(due, _)| *due);
            [queued, self.short_until].into_iter().flatten().min()
        } else {
            None
        };
        let settle = self.settling.first().map(|(due, _)| *due);
        [dial, settle].into_iter().flatten().min()
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Starts the dials whose time has come, as many as may be.
    fn run(&mut self, now: Instant) {
        while self.dialling < self.config.max_dials.get()
            && let Some((due, peer)) = self.queue.first().copied()
            && due <= now
        {
            self.dequeue(&peer);
            self.dial(now, peer);
        }
        self.fill(now);
    }

    /// Dials known peers until the target would be reached, should all answer.
    fn fill(&mut self, now: Instant) {
        let target = self.config.target;
        if self.connected < target && !self.missed {
            self.missed = true;
            self.tell(Event::TargetMissed {
                connected: self.connected,
            });
        } else if self.connected >= target && self.missed {
            self.missed = false;
            self.tell(Event::TargetReached {
                connected: self.connected,
            });
        }
        let free = self.config.max_dials.get().saturating_sub(self.dialling);
        let lacking = target.saturating_sub(self.connected.saturating_add(self.dialling));
        if lacking == 0 {
            self.short_until = None;
            return;
        }
        if free == 0 || !self.short {
            return;
        }
        self.short = false;
        self.short_until = None;
        let mut ready = Vec::new();
        for peer in self.known.values() {
            let Some(entry) = self.peers.get(peer) else { continue };
            match entry.due {
                Some(due) if due > now => {
                    self.short_until = Some(self.short_until.map_or(due, |earliest| earliest.min(due)));
                }
                // Whoever failed least, and among those anybody.
                _ => ready.push((entry.failures, self.dice.roll(), *peer)),
            }
        }
        ready.sort_unstable();
        let enough = lacking.min(free);
        // Those that stay ready are looked at again when a dial ends.
        for (_, _, peer) in ready.into_iter().take(enough) {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.for_target = true;
                if let Some(place) = entry.known.take() {
                    self.known.remove(&place);
                }
            }
            self.dial(now, peer);
        }
    }

    fn dial(&mut self, now: Instant, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.dialling = true;
        entry.last_dial = Some(now);
        entry.due = None;
        self.dialling += 1;
        self.actions.push_back(Action::Dial {
            peer,
            addresses: entry.addresses.all(),
        });
    }

    /// If `dial` is one of ours: whose.
    fn dial_ended(&mut self, dial: ConnectionId) -> Option<PeerId> {
        let peer = self.dials.remove(&dial)?;
        self.dialling -= 1;
        self.short = true;
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.dialling = false;
        }
        Some(peer)
    }

    /// Queues `peer` for its next dial and says how long that is to wait.
    fn again(&mut self, now: Instant, peer: PeerId) -> Duration {
        let due = self.next_dial(now, &peer);
        if self.peers.get(&peer).is_some_and(Peer::idle) {
            self.enqueue(peer, due);
        }
        due.saturating_duration_since(now)
    }

    /// When `peer` may be dialled again.
    fn next_dial(&mut self, now: Instant, peer: &PeerId) -> Instant {
        let earliest = self.earliest(now, peer);
        match self.peers.get(peer).map_or(0, |entry| entry.failures) {
            0 => earliest,
            failures => later(now, pause(&self.config, failures, &mut self.dice)).max(earliest),
        }
    }

    /// Now, or when the minimum interval is over.
    fn earliest(&self, now: Instant, peer: &PeerId) -> Instant {
        let last = self.peers.get(peer).and_then(|entry| entry.last_dial);
        last.map_or(now, |last| later(last, self.config.min_interval).max(now))
    }

    fn enqueue(&mut self, peer: PeerId, due: Instant) {
        self.dequeue(&peer);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.due = Some(due);
            self.queue.insert((due, peer));
        }
    }

    fn dequeue(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer)
            && entry.known.is_none()
            && let Some(due) = entry.due.take()
        {
            self.queue.remove(&(due, *peer));
        }
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

    /// Tells all connections of `peer` whether they are kept, if that has changed.
    fn keep(&mut self, peer: &PeerId, keep: bool) {
        if let Some(entry) = self.peers.get(peer) {
            let keep = keep || entry.kept();
            self.actions.extend(entry.connections.iter().map(|have| Action::Keep {
                peer: *peer,
                connection: have.held.id,
                keep,
            }));
        }
    }

    /// Closes duplicates, or notes when to.
    fn judge(&mut self, now: Instant, peer: &PeerId) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let due = entry.settle.take();
        if let Some(due) = due {
            self.settling.remove(&(due, *peer));
        }
        let live = entry.connections.iter().filter(|have| !have.closing);
        if !self.config.one_connection || !entry.kept() || live.clone().count() < 2 {
            return;
        }
        if !choice::closes(&self.local, peer) && due.is_none_or(|due| due > now) {
            let due = due.unwrap_or_else(|| later(now, self.config.settle));
            entry.settle = Some(due);
            self.settling.insert((due, *peer));
            return;
        }
        let held = live.map(|have| &have.held);
        let kept = choice::keep(&self.local, peer, held, self.config.simultaneous).map(|held| held.id);
        let Some(kept) = kept else { return };
        for have in &mut entry.connections {
            if have.closing || have.held.id == kept {
                continue;
            }
            have.closing = true;
            let (peer, closed) = (*peer, have.held.id);
            self.actions.push_back(Action::Close {
                peer,
                connection: closed,
            });
            let event = Event::DuplicateClosed { peer, closed, kept };
            self.actions.push_back(Action::Tell(event));
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
