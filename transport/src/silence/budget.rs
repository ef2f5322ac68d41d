//! How much work strangers may cause, and for whom it is done first when there is too much of it.
//!
//! Whoever is over a budget is refused in silence, like everybody who is refused. All arithmetic is in whole
//! billionths of a token, so that nothing is lost in rounding however often one asks.

use super::prefix::Prefix;
use crate::recent::recent;
use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use web_time::Instant;

/// Openings a second: two Diffie-Hellman operations each, about 6 % of a core.
pub(crate) const OPENINGS_PER_SECOND: u32 = 1000;

/// What a prefix may take of a [`Budget`] that runs low.
const OF_A_PREFIX: Limit = Limit {
    per_second: 20,
    burst: 40,
};
/// Signature checks of v2 knocks: 7 % of a core in all.
const VERIFICATIONS: Limit = Limit {
    per_second: 2000,
    burst: 2000,
};
/// Signature checks of one prefix in a second.
const VERIFICATIONS_OF_A_PREFIX: u32 = 20;
/// Signature checks of one prefix at once, at least and at most. See [`Verifications`].
const AT_ONCE: RangeInclusive<u32> = 5..=256;
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
            prefixes: PerKey::new(room),
        }
    }

    /// Takes one for this prefix, or says that there is none for it. A refusal takes nothing.
    pub(crate) fn charge(&mut self, now: Instant, prefix: Prefix, known: bool) -> bool {
        let (limit, (shared, strangers)) = (self.limit, &mut self.strangers);
        if !self.overall.has_one(limit, now) {
            return false;
        }
        if self.overall.level(limit, now) < limit.cap() / 2 {
            if !self.prefixes.has_one(OF_A_PREFIX, now, prefix) || !(known || strangers.has_one(*shared, now)) {
                return false;
            }
            self.prefixes.take(OF_A_PREFIX, now, prefix);
            if !known {
                strangers.take(*shared, now);
            }
        }
        self.overall.take(limit, now);
        true
    }
}

/// Signature checks of v2 knocks, asked only for claimed keys that are configured and not remembered.
///
/// **How many at once.** A peer's knock never changes, and is remembered once it was verified. So
/// peers need one check each after a restart, at the same time if they live in one prefix, and none
/// after that. A prefix therefore has as many at once as there are peers configured for version 2,
/// from 5 to 256. It has 256 if version 2 is the rule, as the number of peers is not known then. It
/// has 20 a second, as WireGuard's has.
///
/// A replay is remembered too, and costs no check. A forger gets what peers leave of this: 256
/// checks at once at most, an eighth of what all prefixes have, and 20 a second from then on.
///
/// The alternative is a head that waits for its token. It would have to be kept, and to go on
/// reading as a refused one does, or its socket would show which keys are configured. A larger
/// burst changes nothing that is visible.
#[derive(Debug)]
pub(crate) struct Verifications {
    limit: Limit,
    overall: Bucket,
    /// What one prefix has, but for how many at once.
    of_a_prefix: Limit,
    /// Only a prefix that was served has an entry. An attacker with more than 4,096 prefixes can
    /// have one forgotten before it is full again; the overall limit holds then.
    prefixes: PerKey<Prefix>,
}

impl Verifications {
    /// As many as `openings` of sealed knocks a second leave room for: the figures above are for the default of those.
    pub(crate) fn new(openings: u32, now: Instant) -> Self {
        let limit = VERIFICATIONS.scaled(openings);
        let of_a_prefix = Limit {
            per_second: VERIFICATIONS_OF_A_PREFIX,
            burst: *AT_ONCE.start(),
        };
        Self {
            limit,
            overall: Bucket::full(limit, now),
            of_a_prefix: of_a_prefix.scaled(openings),
            prefixes: PerKey::new(TABLE),
        }
    }

    /// Takes one for this prefix, where so many peers are configured for version 2. `None`: all
    /// are.
    pub(crate) fn charge(&mut self, now: Instant, prefix: Prefix, peers: Option<usize>) -> bool {
        let (least, most) = AT_ONCE.into_inner();
        let at_once = peers.map_or(most, |peers| u32::try_from(peers).unwrap_or(most).clamp(least, most));
        let (limit, of_a_prefix) = (self.limit, self.of_a_prefix.at_once(at_once));
        let both = self.overall.has_one(limit, now) && self.prefixes.has_one(of_a_prefix, now, prefix);
        if both {
            self.overall.take(limit, now);
            self.prefixes.take(of_a_prefix, now, prefix);
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
pub(crate) struct Handshakes {
    limit: Limit,
    pairs: PerKey<([u8; 32], Prefix)>,
}

impl Handshakes {
    pub(crate) fn new(openings: u32) -> Self {
        Self {
            limit: HANDSHAKES_OF_A_PAIR.scaled(openings),
            pairs: PerKey::new(TABLE),
        }
    }

    pub(crate) fn charge(&mut self, now: Instant, peer: &[u8; 32], prefix: Prefix) -> bool {
        let pair = (*peer, prefix);
        let has_one = self.pairs.has_one(self.limit, now, pair);
        if has_one {
            self.pairs.take(self.limit, now, pair);
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

    /// The same with at least so many at once.
    fn at_once(self, burst: u32) -> Self {
        Self {
            burst: self.burst.max(burst),
            ..self
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
    buckets: LruCache<K, Bucket>,
}

impl<K: Hash + Eq + Copy> PerKey<K> {
    fn new(room: usize) -> Self {
        let room = NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN);
        Self { buckets: recent(room) }
    }

    /// Only looks: what is refused does not keep an entry young.
    fn has_one(&self, limit: Limit, now: Instant, key: K) -> bool {
        self.buckets.peek(&key).is_none_or(|bucket| bucket.has_one(limit, now))
    }

    fn take(&mut self, limit: Limit, now: Instant, key: K) {
        self.buckets
            .get_or_insert_mut(key, || Bucket::full(limit, now))
            .take(limit, now);
    }
}

#[cfg(test)]
mod tests;
