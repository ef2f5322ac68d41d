//! When which peer is dialled, and where: not more often than configured, at times that two ends do
//! not share, and no slow peer keeps another waiting (W8).

use super::time::later;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// Addresses that are tried in one round of dials to a peer, at most. The next round goes on behind
/// them.
pub(crate) const ROUND: usize = 16;

#[derive(Debug)]
struct Entry {
    wanted: bool,
    busy: bool,
    not_before: Instant,
    queued: Option<Instant>,
    /// Where the next round begins.
    cursor: usize,
    /// Where the peer was reached last.
    worked: Option<Multiaddr>,
}

/// The peers that have no connection and should have one.
#[derive(Debug)]
pub(crate) struct DialPlan {
    interval: Duration,
    peers: HashMap<PeerId, Entry>,
    queue: BTreeSet<(Instant, PeerId)>,
}

impl DialPlan {
    /// `interval`: at least so long, and on average half as long again, between two rounds of dials to a peer.
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            peers: HashMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// There should be a connection with `peer`. A new peer is dialled at once; one whose connection was lost within a quarter
    /// of the interval, as its other end lost it at the same moment.
    pub(crate) fn want<R: Rng>(&mut self, peer: PeerId, now: Instant, rng: &mut R) {
        let known = self.peers.contains_key(&peer);
        let entry = self.peers.entry(peer).or_insert(Entry {
            wanted: false,
            busy: false,
            not_before: now,
            queued: None,
            cursor: 0,
            worked: None,
        });
        if entry.wanted {
            return;
        }
        entry.wanted = true;
        let jitter = if known { self.interval / 4 } else { Duration::ZERO };
        let at = later(now, jitter.mul_f64(rng.random())).max(entry.not_before);
        self.queue(peer, at);
    }

    /// There is a connection with `peer`.
    pub(crate) fn satisfied(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.wanted = false;
            if let Some(at) = entry.queued.take() {
                self.queue.remove(&(at, *peer));
            }
        }
    }

    /// Nobody wants `peer` any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.satisfied(peer);
        self.peers.remove(peer);
    }

    /// The next peer to dial at `now`, if one is due.
    pub(crate) fn due<R: Rng>(&mut self, now: Instant, rng: &mut R) -> Option<PeerId> {
        let &(at, peer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        let entry = self.peers.get_mut(&peer)?;
        entry.queued = None;
        entry.busy = true;
        let pause = self.interval.saturating_add(self.interval.mul_f64(rng.random()));
        entry.not_before = later(now, pause);
        Some(peer)
    }

    /// The round of dials to `peer` is over; whether it helped shows elsewhere.
    pub(crate) fn finished(&mut self, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.busy = false;
        let at = entry.not_before;
        if entry.wanted {
            self.queue(peer, at);
        }
    }

    /// Whether a round of dials to `peer` is under way.
    pub(crate) fn is_busy(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.busy)
    }

    /// `peer` was reached at this address.
    pub(crate) fn worked(&mut self, peer: &PeerId, address: Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.worked = Some(address);
        }
    }

    /// Where `peer` was reached last.
    pub(crate) fn proven(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(peer)?.worked.as_ref()
    }

    /// Which of the addresses that were `found` to try in this round, and in which order: no
    /// address twice, [`ROUND`] at most.
    ///
    /// The one that worked last comes first. If it was not found any more it comes last, and has
    /// its place: what peers say of each other does not push out what was seen. The others begin
    /// with the one behind that which the last round began with, or, where they do not fit into a
    /// round, behind those that the last round tried.
    pub(crate) fn order(&mut self, peer: &PeerId, found: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let Some(entry) = self.peers.get_mut(peer) else {
            return Vec::new();
        };
        let proven = entry.worked.clone();
        let known = proven.as_ref().is_some_and(|proven| found.contains(proven));
        let mut others = Vec::<Multiaddr>::with_capacity(found.len().min(ROUND));
        let mut seen: HashSet<Multiaddr> = proven.iter().cloned().collect();
        others.extend(found.into_iter().filter(|address| seen.insert(address.clone())));
        let places = ROUND - usize::from(proven.is_some());
        let tried = others.len().min(places);
        if !others.is_empty() {
            let (start, count) = (entry.cursor % others.len(), others.len());
            others.rotate_left(start);
            entry.cursor = start + if tried < count { tried } else { 1 };
        }
        others.truncate(places);
        match proven {
            Some(proven) if known => others.insert(0, proven),
            Some(proven) => others.push(proven),
            None => {}
        }
        others
    }

    /// When to ask again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn queue(&mut self, peer: PeerId, at: Instant) {
        if let Some(entry) = self.peers.get_mut(&peer)
            && !entry.busy
            && entry.queued.is_none()
        {
            entry.queued = Some(at);
            self.queue.insert((at, peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn plan() -> (DialPlan, StdRng, Instant) {
        (DialPlan::new(INTERVAL), StdRng::seed_from_u64(7), Instant::now())
    }

    #[test]
    fn a_new_peer_is_dialled_at_once_and_then_after_one_to_two_intervals() {
        let (mut plan, mut rng, mut now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        let mut gaps = Vec::new();
        for _ in 0..200 {
            assert_eq!(plan.due(now, &mut rng), Some(peer));
            assert_eq!(plan.due(now, &mut rng), None);
            plan.finished(peer);
            let next = plan.next().unwrap();
            gaps.push(next - now);
            now = next;
        }
        assert!(gaps.iter().all(|gap| (INTERVAL..2 * INTERVAL).contains(gap)));
        let spread = gaps.iter().max().unwrap().saturating_sub(*gaps.iter().min().unwrap());
        assert!(spread > INTERVAL / 2, "the gaps hardly differ: {spread:?}");
    }

    #[test]
    fn a_slow_dial_keeps_nobody_else_waiting() {
        // W8: the original waits for all dials of a round.
        let (mut plan, mut rng, now) = plan();
        let (slow, other) = (PeerId::random(), PeerId::random());
        plan.want(slow, now, &mut rng);
        assert_eq!(plan.due(now, &mut rng), Some(slow));
        plan.want(other, now, &mut rng);
        for round in 0..5 {
            let now = now + 3 * round * INTERVAL;
            assert_eq!(plan.due(now, &mut rng), Some(other), "round {round}");
            assert_eq!(plan.due(now, &mut rng), None, "the slow one is still busy");
            plan.finished(other);
        }
    }

    #[test]
    fn a_lost_connection_is_dialled_again_soon_but_not_before_the_interval() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        plan.due(now, &mut rng);
        plan.satisfied(&peer);
        plan.finished(peer);
        assert_eq!(plan.next(), None);
        // At once: the interval holds.
        plan.want(peer, now, &mut rng);
        assert!(plan.next().unwrap() >= now + INTERVAL);
        plan.satisfied(&peer);
        // Later: a quarter of it at most.
        let later = now + 10 * INTERVAL;
        plan.want(peer, later, &mut rng);
        let next = plan.next().unwrap();
        assert!((later..=later + INTERVAL / 4).contains(&next));
    }

    #[test]
    fn who_is_wanted_again_while_his_dial_runs_is_dialled_once() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        plan.due(now, &mut rng);
        plan.satisfied(&peer);
        plan.want(peer, now, &mut rng);
        assert_eq!(plan.next(), None);
        plan.finished(peer);
        assert!(plan.next().is_some());
        plan.forget(&peer);
        assert_eq!(plan.next(), None);
        plan.finished(peer);
        assert_eq!(plan.next(), None);
    }

    fn at(port: usize) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()
    }

    fn ports(addresses: &[Multiaddr]) -> Vec<usize> {
        let port = |address: &Multiaddr| address.to_string().rsplit('/').next().unwrap().parse().unwrap();
        addresses.iter().map(port).collect()
    }

    #[test]
    fn each_round_tries_all_addresses_and_begins_with_the_next_one() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        let mut round = || ports(&plan.order(&peer, vec![at(0), at(1), at(0), at(2)]));
        assert_eq!(
            [round(), round(), round(), round()],
            [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
        );
        assert!(plan.order(&peer, Vec::new()).is_empty());
    }

    #[test]
    fn the_address_that_worked_comes_first_and_none_of_the_others_starves() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        let found: Vec<Multiaddr> = (0..50).map(at).collect();
        let mut tried = BTreeSet::new();
        for _ in 0..4 {
            let round = ports(&plan.order(&peer, found.clone()));
            assert_eq!(round.len(), ROUND);
            tried.extend(round);
        }
        assert_eq!(tried.len(), 50, "each of fifty was tried within four rounds");
        plan.worked(&peer, at(37));
        let mut tried = BTreeSet::new();
        for _ in 0..4 {
            let round = ports(&plan.order(&peer, found.clone()));
            assert_eq!((round.len(), round[0]), (ROUND, 37));
            tried.extend(round);
        }
        assert_eq!(tried.len(), 50);
    }

    #[test]
    fn an_address_that_worked_has_a_place_that_others_cannot_take() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        plan.worked(&peer, at(99));
        plan.satisfied(&peer);
        for _ in 0..4 {
            let round = ports(&plan.order(&peer, (0..50).map(at).collect()));
            assert_eq!((round.len(), round[ROUND - 1]), (ROUND, 99));
        }
        plan.worked(&peer, at(3));
        let round = ports(&plan.order(&peer, (0..50).map(at).collect()));
        assert!(round[0] == 3 && !round.contains(&99), "where it is now: {round:?}");
        plan.forget(&peer);
        plan.want(peer, now, &mut rng);
        assert_eq!(
            ports(&plan.order(&peer, vec![at(1)])),
            [1],
            "and is forgotten with the peer"
        );
    }

    #[test]
    fn an_interval_without_end_does_not_overflow() {
        let (_, mut rng, now) = plan();
        for interval in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            let mut plan = DialPlan::new(interval);
            let peer = PeerId::random();
            plan.want(peer, now, &mut rng);
            assert_eq!(plan.due(now, &mut rng), Some(peer));
            plan.finished(peer);
            assert!(plan.next().unwrap() > later(now, Duration::from_secs(1 << 20)));
            plan.satisfied(&peer);
            plan.want(peer, now, &mut rng);
            assert!(plan.next().is_some());
        }
    }
}
