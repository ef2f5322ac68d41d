//! Room for a newcomer at the hard limit.

use super::book::{Book, SHARDS};
use super::order::{Entry, Key, Rules, Seen, rank, view_newcomer};
use super::time::Stamp;
use super::trim::mark;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::time::Duration;

/// Records that one newcomer may cost a look at, and how many of the least valuable among them are remembered for the next
/// ones. Where a peer's record lies is random and secret, so these are a fair sample.
const LOOK_AT: usize = 8_192;
const REMEMBER: usize = 64;

/// What a look at one record costs, roughly.
const COST: Duration = Duration::from_nanos(100);

/// The mark of connections that are closed for a newcomer.
pub(crate) const EVICTED: u32 = u32::MAX;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HardLimit {
    /// Connections that are not being closed.
    pub(crate) limit: usize,
    /// How many more, while others close.
    ahead: usize,
}

/// What there is for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// The place of a peer that is worth less.
    OfAnother,
    /// Nothing until connections that are closing are gone.
    None,
}

impl HardLimit {
    pub(crate) fn new(limit: usize) -> Self {
        let ahead = (limit / 8).max(1);
        Self { limit, ahead }
    }

    pub(crate) fn room(self, book: &Book) -> Room {
        let all = book.open().saturating_add(book.closing());
        if all < self.limit {
            Room::Free
        } else if all - self.limit < self.ahead {
            Room::OfAnother
        } else {
            Room::None
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Evictor {
    /// The least valuable last.
    pool: Vec<Entry>,
    /// The next part to be looked at.
    next: usize,
    /// Until then the pool is taken for what another look would find.
    fresh_until: Stamp,
}

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer {
    pub(crate) peer: PeerId,
    pub(crate) outbound: bool,
    pub(crate) relayed: bool,
}

impl Evictor {
    /// Whether there is a peer that is worth less than the newcomer.
    pub(crate) fn has_room(&mut self, rules: &Rules<'_>, newcomer: Newcomer) -> bool {
        self.find(rules, newcomer).is_some()
    }

    /// That peer, marked, if there is one.
    pub(crate) fn make_room(
        &mut self,
        rules: &Rules<'_>,
        newcomer: Newcomer,
    ) -> Option<(PeerId, SmallVec<[ConnectionId; 2]>)> {
        loop {
            let entry = self.find(rules, newcomer)?;
            self.pool.pop();
            if let Some(victim) = mark(rules, &entry, EVICTED) {
                return Some(victim);
            }
        }
    }

    /// Brings the least valuable peer to the end of the pool, if it is worth less than the
    /// newcomer.
    fn find(&mut self, rules: &Rules<'_>, newcomer: Newcomer) -> Option<Entry> {
        let own_order = rules.order.is_some();
        let (key, stranger) = Self::key(rules, newcomer);
        let merit = key.merit(own_order);
        let own_hash = rules.book.hash(&newcomer.peer);
        let rested = rules.now < self.fresh_until;
        if !rested {
            self.pool.clear();
        }
        // Strangers can come by the thousand, and each would cost a look at thousands of records: they get a tenth of the time.
        let mut refilled = stranger && rested;
        // One whose worth has changed since the look takes another place, and a closure could
        // change it each time.
        let mut moves = 2 * REMEMBER;
        loop {
            while self.pool.last().is_some_and(|last| last.hash == own_hash) {
                self.pool.pop();
            }
            let Some(entry) = self
                .pool
                .last()
                .copied()
                .filter(|last| last.key.merit(own_order) < merit)
            else {
                // The least valuable peers of the last look are not by now, or all of them have
                // gone.
                if refilled {
                    return None;
                }
                refilled = true;
                self.refill(rules);
                continue;
            };
            if let Some(now) = rules.again(&entry) {
                if now.key.merit(own_order) == entry.key.merit(own_order) {
                    return Some(entry);
                }
                if moves > 0 {
                    moves -= 1;
                    self.pool.pop();
                    let at = self.pool.partition_point(|other| other.key > now.key);
                    self.pool.insert(at, now);
                    continue;
                }
            }
            self.pool.pop();
        }
    }

    /// What the newcomer is worth, and whether nobody here knows him.
    fn key(rules: &Rules<'_>, newcomer: Newcomer) -> (Key, bool) {
        let Newcomer {
            peer,
            outbound,
            relayed,
        } = newcomer;
        let known = rules
            .book
            .read(&peer, rules.now, |record, value| (record.is_kept(), value));
        let (kept, value) = known.unwrap_or((false, 0));
        let key = Key::newcomer(kept, value, outbound);
        let key = match rules.order {
            Some(order) => key.with_rank(rank(
                order,
                &view_newcomer(peer, value, outbound, relayed),
                &rules.book.panics,
            )),
            None => key,
        };
        (key, !kept && value <= 0 && !outbound)
    }

    fn refill(&mut self, rules: &Rules<'_>) {
        self.pool.clear();
        let mut seen = Seen::default();
        for _ in 0..SHARDS {
            rules.collect(self.next, None, &mut self.pool, &mut seen);
            self.next = (self.next + 1) % SHARDS;
            if seen.records >= LOOK_AT {
                break;
            }
        }
        self.fresh_until = rules
            .now
            .after(COST * 10 * u32::try_from(seen.records).unwrap_or(u32::MAX));
        if self.pool.len() > REMEMBER {
            self.pool.select_nth_unstable_by_key(REMEMBER - 1, |entry| entry.key);
            self.pool.truncate(REMEMBER);
        }
        self.pool.shrink_to(REMEMBER);
        self.pool.sort_unstable_by_key(|entry| Reverse(entry.key));
    }
}
