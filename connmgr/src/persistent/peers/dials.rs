//! Whom to dial, when and where.

use super::super::error::DialFailure;
use super::super::event::Event;
use super::super::pauses::pause;
use super::addresses::Limits;
use super::{Action, Failure, Peer, Peers, later};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::time::Duration;
use web_time::Instant;

/// The longest pause before a dial that is denied before anything is sent: it costs the network
/// nothing.
const DENIED_EARLY: Duration = Duration::from_secs(15);

impl Peers {
    /// The dial that [`Action::Dial`] asked for is under way.
    pub(crate) fn dialling(&mut self, peer: PeerId, dial: ConnectionId) {
        self.dials.insert(dial, peer);
    }

    /// Whether [`Action::Dial`] asked for this dial.
    pub(crate) fn is_ours(&self, dial: ConnectionId) -> bool {
        self.dials.contains_key(&dial)
    }

    /// Any failed dial of the Swarm; those of others are none of ours.
    pub(crate) fn dial_failed(&mut self, now: Instant, dial: ConnectionId, failure: Failure, error: DialFailure) {
        let Some((peer, tried)) = self.dial_ended(dial) else {
            return;
        };
        self.short = true;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        match &failure {
            Failure::NotNeeded => {}
            Failure::Denied { early, wait } => {
                entry.denials = entry.denials.saturating_add(1);
                let longest = if *early { DENIED_EARLY } else { Duration::MAX };
                let pause = pause(&self.config, entry.denials, &mut self.dice).min(longest);
                entry.denied_until = Some(later(now, wait.unwrap_or(pause)));
            }
            Failure::Misled => {
                entry.misled = true;
                entry.failed();
            }
            Failure::Failed => {
                for address in &tried {
                    entry.addresses.failed(peer, address);
                }
                entry.misled = false;
                entry.failed();
            }
        }
        if entry.connections.is_empty() {
            entry.for_target = false;
            let failures = entry.failures;
            if entry.wanted {
                let retry_in = self.again(now, peer);
                if failure != Failure::NotNeeded {
                    self.tell(Event::DialFailed {
                        peer,
                        error,
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

    /// Starts the dials whose time has come, as many as may be.
    pub(super) fn run(&mut self, now: Instant) {
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
                // Those that failed least, and of these any.
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
        let limits = Limits {
            knock_only: entry.knock_only,
            trusted_only: entry.misled,
            leave_room: entry.rounds % 2 == 1,
            own: &self.own,
        };
        let plan = entry.addresses.plan(limits, now);
        entry.dialling = Some(plan.addresses.clone());
        entry.last_dial = Some(now);
        entry.denied_until = None;
        entry.due = None;
        self.dialling += 1;
        self.actions.push_back(Action::Dial { peer, plan });
    }

    /// If `dial` is one of ours: whose, and what it tried.
    pub(super) fn dial_ended(&mut self, dial: ConnectionId) -> Option<(PeerId, Vec<Multiaddr>)> {
        let peer = self.dials.remove(&dial)?;
        self.dialling -= 1;
        self.short = true;
        let tried = self.peers.get_mut(&peer).and_then(|entry| entry.dialling.take());
        Some((peer, tried.unwrap_or_default()))
    }

    /// Queues `peer` for its next dial and says how long that is to wait.
    pub(super) fn again(&mut self, now: Instant, peer: PeerId) -> Duration {
        let due = self.next_dial(now, &peer);
        if self.peers.get(&peer).is_some_and(Peer::idle) {
            self.enqueue(peer, due);
        }
        due.saturating_duration_since(now)
    }

    /// When `peer` may be dialled again: what was denied waits for that and for nothing else.
    pub(super) fn next_dial(&mut self, now: Instant, peer: &PeerId) -> Instant {
        let earliest = self.earliest(now, peer);
        let Some(entry) = self.peers.get(peer) else {
            return earliest;
        };
        let due = match (entry.denied_until, entry.failures) {
            (Some(until), _) => until,
            (None, 0) => now,
            (None, failures) => later(now, pause(&self.config, failures, &mut self.dice)),
        };
        due.max(earliest)
    }

    /// Now, or when the minimum interval is over.
    pub(super) fn earliest(&self, now: Instant, peer: &PeerId) -> Instant {
        let last = self.peers.get(peer).and_then(|entry| entry.last_dial);
        last.map_or(now, |last| later(last, self.config.min_interval).max(now))
    }

    pub(super) fn enqueue(&mut self, peer: PeerId, due: Instant) {
        self.dequeue(&peer);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.due = Some(due);
            self.queue.insert((due, peer));
        }
    }

    pub(super) fn dequeue(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer)
            && entry.known.is_none()
            && let Some(due) = entry.due.take()
        {
            self.queue.remove(&(due, *peer));
        }
    }
}

impl Peer {
    /// A dial was in vain.
    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.rounds = self.rounds.wrapping_add(1);
        self.denials = 0;
    }
}
