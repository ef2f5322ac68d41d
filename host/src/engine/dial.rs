//! When which peer is dialled: not more often than configured, at times that two ends do not share, and no slow peer keeps
//! another waiting (W8).

use libp2p_identity::PeerId;
use rand::{Rng, RngExt as _};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Entry {
    wanted: bool,
    busy: bool,
    not_before: Instant,
    queued: Option<Instant>,
    cursor: usize,
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
        });
        if entry.wanted {
            return;
        }
        entry.wanted = true;
        let jitter = if known { self.interval / 4 } else { Duration::ZERO };
        let at = (now + jitter.mul_f64(rng.random())).max(entry.not_before);
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
        entry.not_before = now + self.interval + self.interval.mul_f64(rng.random());
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

    /// In which order to try `count` addresses: from the one behind that which the last round began with.
    pub(crate) fn order(&mut self, peer: &PeerId, count: usize) -> impl Iterator<Item = usize> + use<> {
        let start = self.peers.get_mut(peer).map_or(0, |entry| {
            let start = entry.cursor;
            entry.cursor = entry.cursor.wrapping_add(1);
            start
        });
        (0..count).map(move |n| (start % count + n) % count)
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

    #[test]
    fn each_round_tries_all_addresses_and_begins_with_the_next_one() {
        let (mut plan, mut rng, now) = plan();
        let peer = PeerId::random();
        plan.want(peer, now, &mut rng);
        let mut round = || plan.order(&peer, 3).collect::<Vec<_>>();
        assert_eq!(
            [round(), round(), round(), round()],
            [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
        );
        assert_eq!(plan.order(&peer, 0).count(), 0);
    }
}
