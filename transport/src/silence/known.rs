//! What is remembered in favour of somebody: prefixes that have authenticated lately, and v2 knocks that were verified.
//!
//! Both are tables of the most recent, and may forget: whoever is forgotten is served like a
//! stranger, or verified once more. Only authentication fills them, so a stranger cannot push
//! anybody out. The prefixes can be kept in a file ([`text`]).

pub(crate) mod text;

use super::prefix::Prefix;
use crate::recent::recent;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;
use text::Line;
use web_time::Instant;

/// How long an authentication speaks for its prefix.
const FOR: Duration = Duration::from_secs(86_400);
/// Prefixes remembered, at most: some 300 kB.
const PREFIXES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Verified knocks remembered, at most, one for each peer: about 1 MB. More peers than that are verified more often.
const KNOCKS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How old what a file says of a prefix may become before it is worth a new file.
const STALE: Duration = Duration::from_secs(3600);
/// What passes for the time since a file was written when the clock shows an earlier time than
/// that: how long it was cannot be known, and no prefix is to live for ever by a clock that is
/// always behind at first.
const UNKNOWN: Duration = Duration::from_secs(3600);

/// Prefixes from which somebody has authenticated within a day.
#[derive(Debug)]
pub(crate) struct KnownPrefixes(LruCache<Prefix, Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    until: Instant,
    /// The `until` that a file has.
    kept: Option<Instant>,
}

impl KnownPrefixes {
    pub(crate) fn new() -> Self {
        Self(recent(PREFIXES))
    }

    /// A peer has authenticated from there: its certificate has been verified, not just its knock.
    /// Whether a file should be written anew for it.
    pub(crate) fn on_authenticated(&mut self, now: Instant, prefix: Prefix) -> bool {
        // That one among all who have no address is good says nothing about the others.
        if prefix == Prefix::Unknown {
            return false;
        }
        let (until, kept) = (now + FOR, self.0.peek(&prefix).and_then(|entry| entry.kept));
        self.0.put(prefix, Entry { until, kept });
        kept.is_none_or(|kept| until.saturating_duration_since(kept) >= STALE)
    }

    /// Only looks: what strangers in a prefix do keeps it no longer in the table.
    pub(crate) fn contains(&self, now: Instant, prefix: Prefix) -> bool {
        self.0.peek(&prefix).is_some_and(|entry| now < entry.until)
    }

    /// What a file is to say now, in the order of the prefixes. It is taken as kept from then on.
    pub(crate) fn keep(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (prefix, entry) in &mut self.0 {
            let left = entry.until.saturating_duration_since(now);
            if !left.is_zero() {
                entry.kept = Some(entry.until);
                lines.push(Line::new(*prefix, FOR.saturating_sub(left)));
            }
        }
        lines.sort_unstable_by_key(|line| line.prefix);
        lines
    }

    /// Takes in what a file says that was written so long ago; `None` if the clock cannot say.
    /// Returns how many of its prefixes are known by that.
    pub(crate) fn restore(&mut self, now: Instant, lines: Vec<Line>, ago: Option<Duration>) -> usize {
        let ago = ago.unwrap_or(UNKNOWN);
        let restored = lines.into_iter().filter_map(|line| {
            let left = FOR.saturating_sub(line.age().saturating_add(ago));
            let until = now + left;
            let entry = Entry {
                until,
                kept: Some(until),
            };
            (!left.is_zero()).then_some((line.prefix, entry))
        });
        let mut all: Vec<_> = restored.collect();
        let restored = all.len();
        all.extend(self.0.iter().map(|(prefix, entry)| (*prefix, *entry)));
        // The oldest first, as they came: those go when there is no room, and of two the newer
        // stays.
        all.sort_by_key(|(_, entry)| entry.until);
        self.0.clear();
        for (prefix, entry) in all {
            self.0.put(prefix, entry);
        }
        restored
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

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn what_is_kept_speaks_for_the_rest_of_its_day_and_never_for_longer() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        known.on_authenticated(now, net(1));
        known.on_authenticated(now + minutes(90), net(2));
        let written = now + minutes(120);
        let lines = known.keep(written);
        let ages: Vec<_> = lines.iter().map(|line| (line.prefix, line.age())).collect();
        // Whole minutes, and never too few.
        assert_eq!(ages, [(net(1), minutes(121)), (net(2), minutes(31))]);
        for ago in [0, 30, 1440 - 122, 1440 - 121, 1440 - 31, 5000] {
            let (mut restored, start) = (KnownPrefixes::new(), written + minutes(ago));
            let expected = usize::from(ago < 1440 - 121) + usize::from(ago < 1440 - 31);
            assert_eq!(
                restored.restore(start, lines.clone(), Some(minutes(ago))),
                expected,
                "{ago}"
            );
            for (prefix, age) in [(net(1), 121), (net(2), 31)] {
                assert_eq!(restored.contains(start, prefix), ago < 1440 - age, "{ago}");
                let end = written + minutes(1440 - age);
                assert!(!restored.contains(end.max(start), prefix), "{ago}");
                assert!(
                    end <= start || restored.contains(end - Duration::from_nanos(1), prefix),
                    "{ago}"
                );
            }
        }
    }

    #[test]
    fn restarts_by_a_clock_that_is_behind_end_a_prefix_too() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        known.on_authenticated(now, net(1));
        let restarts = (0..100).take_while(|_| {
            let lines = known.keep(now);
            known = KnownPrefixes::new();
            known.restore(now, lines, None) == 1
        });
        assert_eq!(restarts.count(), 23, "an hour and a minute each");
    }

    #[test]
    fn a_file_is_written_for_what_is_new_in_it_and_for_what_is_an_hour_old_in_it() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        assert!(known.on_authenticated(now, net(1)));
        assert!(known.on_authenticated(now, net(1)), "not kept yet");
        known.keep(now);
        assert!(!known.on_authenticated(now + minutes(59), net(1)));
        // Again and again within the hour is no reason for ever.
        assert!(known.on_authenticated(now + minutes(60), net(1)));
        assert!(known.on_authenticated(now, net(2)));
        assert!(!known.on_authenticated(now, Prefix::Unknown));
        let mut restored = KnownPrefixes::new();
        restored.restore(now, known.keep(now), Some(Duration::ZERO));
        assert!(!restored.on_authenticated(now + minutes(1), net(2)), "as the file says");
    }

    #[test]
    fn of_a_full_table_the_latest_are_restored_and_what_is_newer_stays() {
        let now = Instant::now();
        let mut known = KnownPrefixes::new();
        for n in 0..4096 {
            known.on_authenticated(now + minutes(u64::from(n) / 4), net(n));
        }
        let later = now + minutes(1025);
        let lines = known.keep(later);
        assert_eq!(lines.len(), PREFIXES.get());
        let mut restored = KnownPrefixes::new();
        restored.on_authenticated(later, net(4095));
        restored.restore(later, lines, Some(Duration::ZERO));
        assert_eq!(restored.0.len(), PREFIXES.get());
        assert!(
            restored.contains(later + FOR - minutes(1), net(4095)),
            "as it authenticated here"
        );
        assert!(restored.contains(later, net(4094)) && restored.contains(later, net(0)));
        restored.on_authenticated(later, net(5000));
        assert!(
            restored.contains(later, net(1)) && !restored.contains(later, net(0)),
            "the oldest goes"
        );
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
