//! Room for a newcomer at the hard limit.

use super::book::SHARDS;
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

#[derive(Debug, Default)]
pub(crate) struct Evictor {
    /// The least valuable last.
    pool: Vec<Entry>,
    /// The next part to be looked at.
    next: usize,
    /// Before this a newcomer whom nobody here knows is not worth another look.
    rested: Stamp,
}

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer {
    pub(crate) peer: PeerId,
    pub(crate) outbound: bool,
    pub(crate) relayed: bool,
}

impl Evictor {
    /// Somebody who is worth less than the newcomer, marked; nobody if there is no such peer.
    pub(crate) fn make_room(
        &mut self,
        rules: &Rules<'_>,
        newcomer: Newcomer,
    ) -> Option<(PeerId, SmallVec<[ConnectionId; 2]>)> {
        let own_order = rules.order.is_some();
        let (key, stranger) = Self::key(rules, newcomer);
        let merit = key.merit(own_order);
        let own_hash = rules.book.hash(&newcomer.peer);
        // Strangers can come by the thousand, and each would cost a look at thousands of records: they get a tenth of the time.
        let mut refilled = stranger && rules.now < self.rested;
        loop {
            let Some(entry) = self.pool.last().copied() else {
                if refilled {
                    return None;
                }
                refilled = true;
                self.refill(rules);
                continue;
            };
            if entry.key.merit(own_order) >= merit {
                if refilled {
                    return None;
                }
                // Those who were least valuable at the last look are not by now.
                refilled = true;
                self.refill(rules);
                continue;
            }
            self.pool.pop();
            if entry.hash != own_hash
                && let Some(victim) = mark(rules, &entry, EVICTED)
            {
                return Some(victim);
            }
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
        self.rested = rules
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
