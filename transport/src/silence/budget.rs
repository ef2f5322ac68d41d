//! How much work strangers may cause, and for whom it is done first when there is too much of it.
//!
//! Whoever is over a budget is refused in silence, like everybody who is refused. All arithmetic is in whole
//! billionths of a token, so that nothing is lost in rounding however often one asks.

use super::prefix::Prefix;
use crate::recent::recent;
use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;
use web_time::Instant;

/// Openings a second: two Diffie-Hellman operations each, about 6 % of a core.
pub(crate) const OPENINGS_PER_SECOND: u32 = 1000;

/// What a prefix may take of a [`Budget`] that runs low.
const OF_A_PREFIX: Limit = Limit {
    per_second: 20,
    burst: 40,
};
/// Signature checks of v2 knocks: 7 % of a core in all. The figures for one prefix are WireGuard's.
const VERIFICATIONS: Limit = Limit {
    per_second: 2000,
    burst: 2000,
};
const VERIFICATIONS_OF_A_PREFIX: Limit = Limit {
    per_second: 20,
    burst: 5,
};
/// TLS handshakes behind a v2 knock, which can be a replay.
const HANDSHAKES_OF_A_PAIR: Limit = Limit {
    per_second: 2,
    burst: 4,
};
/// Entries of each table of buckets below.
const TABLE: usize = 4096;

/// A budget that is shared by all, of which half is kept for known prefixes.
///
/// - While at least half of a second's worth is left, everybody is served.
/// - Below that, each prefix has 20 a second and 40 at once, and strangers together have half of what comes in. So one
///   prefix alone cannot use it up for the others, and however many prefixes strangers have, known ones find
///   a quarter of a second's worth at once and half of the rate for ever.
///
/// What it does not do: from some fifty prefixes up, strangers that all know how to knock can keep other strangers
/// waiting. Who has authenticated in the last day does not notice.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Limit,
    overall: Bucket,
    strangers: (Limit, Bucket),
    /// Only who is served while the budget is low has an entry here. An entry is full again two seconds after its
    /// last use, and says nothing from then on; in two seconds at most 5/2 of the rate are served from
    /// below half. The table has room for four times the rate, so what it forgets for lack of room is always full.
    prefixes: PerKey<Prefix>,
}

impl Budget {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let limit = Limit {
            per_second,
            burst: per_second,
        };
        let strangers = Limit {
            per_second: per_second / 2,
            burst: per_second / 4,
        };
        let room = (per_second as usize).saturating_mul(4);
        Self {
            limit,
            overall: Bucket::full(limit, now),
            strangers: (strangers, Bucket::full(strangers, now)),
            prefixes: PerKey::new(OF_A_PREFIX, room),
        }
    }

    /// Takes one for this prefix, or says that there is none for it. A refusal takes nothing.
    pub(crate) fn charge(&mut self, now: Instant, prefix: Prefix, known: bool) -> bool {
        let (limit, (shared, strangers)) = (self.limit, &mut self.strangers);
        if !self.overall.has_one(limit, now) {
            return false;
        }
        if self.overall.level(limit, now) < limit.cap() / 2 {
            if !self.prefixes.has_one(now, prefix) || !(known || strangers.has_one(*shared, now)) {
                return false;
            }
            self.prefixes.take(now, prefix);
            if !known {
                strangers.take(*shared, now);
            }
        }
        self.overall.take(limit, now);
        true
    }
}

/// Signature checks of v2 knocks, asked only for claimed keys that are configured and not remembered.
#[derive(Debug)]
pub(crate) struct Verifications {
    limit: Limit,
    overall: Bucket,
    /// Only who is served has an entry, which is full again after a quarter of a second. In that time 2,500 are served
    /// at most, so what the table forgets for lack of room is always full.
    prefixes: PerKey<Prefix>,
}

impl Verifications {
    /// As many as `openings` of sealed knocks a second leave room for: the figures above are for the default of those.
    pub(crate) fn new(openings: u32, now: Instant) -> Self {
        let limit = VERIFICATIONS.scaled(openings);
        Self {
            limit,
            overall: Bucket::full(limit, now),
            prefixes: PerKey::new(VERIFICATIONS_OF_A_PREFIX.scaled(openings), TABLE),
        }
    }

    pub(crate) fn charge(&mut self, now: Instant, prefix: Prefix) -> bool {
        let limit = self.limit;
        let both = self.overall.has_one(limit, now) && self.prefixes.has_one(now, prefix);
        if both {
            self.overall.take(limit, now);
            self.prefixes.take(now, prefix);
        }
        both
    }
}

/// TLS handshakes behind a v2 knock, for each pair of claimed peer and prefix: by the peer alone, a replay from elsewhere
/// would keep the true peer out.
///
/// Somebody with more than 4,096 prefixes can have a pair forgotten before its two seconds are over, and it starts
/// anew with four.
#[derive(Debug)]
pub(crate) struct Handshakes(PerKey<([u8; 32], Prefix)>);

impl Handshakes {
    pub(crate) fn new(openings: u32) -> Self {
        Self(PerKey::new(HANDSHAKES_OF_A_PAIR.scaled(openings), TABLE))
    }

    pub(crate) fn charge(&mut self, now: Instant, peer: &[u8; 32], prefix: Prefix) -> bool {
        let pair = (*peer, prefix);
        let has_one = self.0.has_one(now, pair);
        if has_one {
            self.0.take(now, pair);
        }
        has_one
    }
}

const ONE: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Limit {
    per_second: u32,
    burst: u32,
}

impl Limit {
    /// For somebody who has allowed more openings than are the default, in the same proportion. Never less.
    fn scaled(self, openings: u32) -> Self {
        let times = (openings / OPENINGS_PER_SECOND).max(1);
        Self {
            per_second: self.per_second.saturating_mul(times),
            burst: self.burst.saturating_mul(times),
        }
    }

    fn cap(self) -> u64 {
        u64::from(self.burst) * ONE
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: Instant,
}

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self {
            level: limit.cap(),
            at: now,
        }
    }

    /// In billionths of a token, which is what a rate of one a second yields in a nanosecond.
    fn level(&self, limit: Limit, now: Instant) -> u64 {
        let gained = now.saturating_duration_since(self.at).as_nanos() * u128::from(limit.per_second);
        let level = gained.saturating_add(u128::from(self.level));
        u64::try_from(level).unwrap_or(u64::MAX).min(limit.cap())
    }

    fn has_one(&self, limit: Limit, now: Instant) -> bool {
        self.level(limit, now) >= ONE
    }

    fn take(&mut self, limit: Limit, now: Instant) {
        self.level = self.level(limit, now).saturating_sub(ONE);
        self.at = self.at.max(now);
    }
}

/// A bucket for each key. Who is not in the table has a full one.
#[derive(Debug)]
struct PerKey<K: Hash + Eq> {
    limit: Limit,
    buckets: LruCache<K, Bucket>,
}

impl<K: Hash + Eq + Copy> PerKey<K> {
    fn new(limit: Limit, room: usize) -> Self {
        let room = NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN);
        Self {
            limit,
            buckets: recent(room),
        }
    }

    /// Only looks: what is refused does not keep an entry young.
    fn has_one(&self, now: Instant, key: K) -> bool {
        self.buckets
            .peek(&key)
            .is_none_or(|bucket| bucket.has_one(self.limit, now))
    }

    fn take(&mut self, now: Instant, key: K) {
        let limit = self.limit;
        self.buckets
            .get_or_insert_mut(key, || Bucket::full(limit, now))
            .take(limit, now);
    }
}

#[cfg(test)]
mod tests;
