//! What is remembered in favour of somebody: prefixes that have authenticated lately, and v2 knocks that were verified.
//!
//! Both are tables of the most recent, and may forget: whoever is forgotten is served like a stranger, or verified once more.
//! Only authentication fills them, so a stranger cannot push anybody out.

use super::prefix::Prefix;
use crate::recent::recent;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

/// How long an authentication speaks for its prefix.
const FOR: Duration = Duration::from_secs(86_400);
/// Prefixes remembered, at most: some 300 kB.
const PREFIXES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Verified knocks remembered, at most, one for each peer: about 1 MB. More peers than that are verified more often.
const KNOCKS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Prefixes from which somebody has authenticated within a day.
#[derive(Debug)]
pub(crate) struct KnownPrefixes(LruCache<Prefix, Instant>);

impl KnownPrefixes {
    pub(crate) fn new() -> Self {
        Self(recent(PREFIXES))
    }

    /// A peer has authenticated from there: its certificate has been verified, not just its knock.
    pub(crate) fn on_authenticated(&mut self, now: Instant, prefix: Prefix) {
        // That one among all who have no address is good says nothing about the others.
        if prefix != Prefix::Unknown {
            self.0.put(prefix, now);
        }
    }

    /// Only looks: what strangers in a prefix do keeps it no longer in the table.
    pub(crate) fn contains(&self, now: Instant, prefix: Prefix) -> bool {
        self.0
            .peek(&prefix)
            .is_some_and(|at| now.saturating_duration_since(*at) < FOR)
    }
}

/// A v2 knock is the same 97 bytes for ever, so an honest peer's is verified once in a process's life.
#[derive(Debug)]
pub(crate) struct VerifiedKnocks(LruCache<[u8; 32], [u8; 97]>);

impl VerifiedKnocks {
    pub(crate) fn new() -> Self {
        Self(recent(KNOCKS))
    }

    /// Whether these are the very bytes that were verified for `claimed`. Takes the same time wherever they differ.
    pub(crate) fn contains(&mut self, claimed: &[u8; 32], knock: &[u8; 97]) -> bool {
        let verified = self.0.get(claimed);
        verified.is_some_and(|verified| verify_slices_are_equal(verified, knock).is_ok())
    }

    pub(crate) fn insert(&mut self, claimed: [u8; 32], knock: [u8; 97]) {
        self.0.put(claimed, knock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u16) -> Prefix {
        let [a, b] = n.to_be_bytes();
        Prefix::V4([10, a, b])
    }

    #[test]
    fn an_authentication_speaks_for_its_prefix_for_a_day() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        assert!(!known.contains(now, net(1)));
        known.on_authenticated(now, net(1));
        assert!(known.contains(now + FOR - Duration::from_nanos(1), net(1)));
        assert!(!known.contains(now + FOR, net(1)));
        known.on_authenticated(now + FOR, net(1));
        assert!(known.contains(now + FOR, net(1)));
    }

    #[test]
    fn asking_keeps_nobody_and_the_table_stays_within_its_bound() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        for n in 0..=4096 {
            assert!(n == 0 || known.contains(now, net(0)));
            known.on_authenticated(now, net(n));
        }
        assert_eq!(known.0.len(), PREFIXES.get());
        assert!(!known.contains(now, net(0)));
        assert!(known.contains(now, net(1)));
    }

    #[test]
    fn who_has_no_address_is_never_known() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        known.on_authenticated(now, Prefix::Unknown);
        assert!(!known.contains(now, Prefix::Unknown));
    }

    #[test]
    fn a_verified_knock_is_known_by_every_one_of_its_bytes() {
        let mut knocks = VerifiedKnocks::new();
        let knock = [7; 97];
        knocks.insert([1; 32], knock);
        assert!(knocks.contains(&[1; 32], &knock));
        assert!(!knocks.contains(&[2; 32], &knock));
        for n in 0..97 {
            let mut other = knock;
            other[n] ^= 1;
            assert!(!knocks.contains(&[1; 32], &other), "byte {n}");
        }
    }
}
