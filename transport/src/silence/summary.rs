//! What the operator hears: strangers are counted, not written down one by one, or they would fill his disk.

use crate::recent::recent;
use lru::LruCache;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

/// At most one summary, and one notice of each kind about each of those it can be about, in this
/// time.
const EVERY: Duration = Duration::from_secs(60);
/// Notices that are remembered, at most: some 200 kB.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");
/// Notices a minute in all: in an open network a stranger can make any number of peers.
const NOTICES: u32 = 60;

/// How a socket failed to become a connection, in the order in which it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// Its end came before its knock was complete.
    Incomplete,
    /// Its time was over before its knock was complete.
    Timeout,
    /// It had to go for another one.
    Evicted,
    /// It was no knock of any kind spoken here.
    NoKnock,
    Replayed,
    /// There was no budget for it.
    OverBudget,
    /// It was not made for us by who it claims to be from.
    Forged,
    /// Its time was too far from ours, or not after the last restart.
    Stale,
    /// The rules do not let its sender in.
    Denied,
    /// What came behind the head was not what belongs there.
    BadFlight,
    /// Others needed the buffer for its flight.
    Displaced,
}

impl Cause {
    /// In a summary.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    const ALL: [(Self, &str); 11] = [
        (Self::Incomplete, "incomplete"),
        (Self::Timeout, "timed out"),
        (Self::Evicted, "evicted"),
        (Self::NoKnock, "no knock"),
        (Self::Replayed, "replayed"),
        (Self::OverBudget, "over budget"),
        (Self::Forged, "forged"),
        (Self::Stale, "stale"),
        (Self::Denied, "denied"),
        (Self::BadFlight, "bad flight"),
        (Self::Displaced, "displaced"),
    ];
}

/// How often each [`Cause`] occurred. Displays as one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary([u64; Cause::ALL.len()]);

impl Summary {
    pub(crate) fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} strangers turned away", self.total())?;
        let mut separator = ": ";
        for (cause, name) in Cause::ALL {
            if self.of(cause) > 0 {
                write!(f, "{separator}{name} {}", self.of(cause))?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// Counts until a minute has passed since the first.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    since: Option<Instant>,
    summary: Summary,
}

impl Counts {
    pub(crate) fn count(&mut self, now: Instant, cause: Cause) {
        self.since.get_or_insert(now);
        let counter = &mut self.summary.0[cause as usize];
        *counter = counter.saturating_add(1);
    }

    /// When `pop` has something to say. Never, while there is nothing.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.since.map(|since| since + EVERY)
    }

    /// What was counted, if a minute has passed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Summary> {
        if self.next_timeout()? > now {
            return None;
        }
        Some(std::mem::take(self).summary)
    }
}

/// What an operator can do something about. It was said in a peer's name, which is not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Notice {
    /// A knock in order but for its time. One of the clocks is wrong, or it was recorded long ago
    /// and is played back.
    Skewed,
    /// A knock that was answered before.
    Replayed,
    /// A knock in order but for its version or its mode: the two ends are configured differently.
    Configured,
}

/// Which notices are passed on: one about the same `K` in a minute, and so many about everything.
#[derive(Debug)]
pub(crate) struct Notices<K: Hash + Eq> {
    last: LruCache<K, Instant>,
    /// The current minute, and how many there were in it.
    minute: Option<(Instant, u32)>,
}

impl<K: Hash + Eq> Notices<K> {
    pub(crate) fn new() -> Self {
        Self {
            last: recent(REMEMBERED),
            minute: None,
        }
    }

    /// Whether to pass this one on.
    pub(crate) fn pass(&mut self, now: Instant, about: K) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < EVERY;
        if self.last.peek(&about).is_some_and(|at| recent(*at)) {
            return false;
        }
        let (since, said) = self.minute.filter(|(since, _)| recent(*since)).unwrap_or((now, 0));
        if said >= NOTICES {
            return false;
        }
        self.minute = Some((since, said + 1));
        self.last.put(about, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_million_strangers_are_one_line_a_minute() {
        let start = Instant::now();
        let mut counts = Counts::default();
        assert_eq!((counts.next_timeout(), counts.pop(start)), (None, None));
        for _ in 0..1_000_000 {
            counts.count(start, Cause::NoKnock);
        }
        counts.count(start + seconds(59), Cause::Replayed);
        assert_eq!(counts.pop(start + seconds(59)), None);
        assert_eq!(counts.next_timeout(), Some(start + seconds(60)));
        let summary = counts.pop(start + seconds(60)).expect("a minute has passed");
        assert_eq!(
            summary.to_string(),
            "1000001 strangers turned away: no knock 1000000, replayed 1"
        );
        assert_eq!((counts.next_timeout(), counts.pop(start + seconds(600))), (None, None));
    }

    #[test]
    fn every_cause_has_its_own_counter() {
        let now = Instant::now();
        let mut counts = Counts::default();
        for (n, (cause, _)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(n, cause as usize);
            counts.count(now, cause);
        }
        let summary = counts.pop(now + EVERY).expect("a minute has passed");
        assert!(Cause::ALL.into_iter().all(|(cause, _)| summary.of(cause) == 1));
        assert_eq!(summary.total(), 11);
    }

    #[test]
    fn one_notice_of_a_kind_about_a_peer_in_a_minute() {
        let start = Instant::now();
        let mut notices = Notices::new();
        assert!(notices.pass(start, (Notice::Skewed, [1; 32])));
        assert!(!notices.pass(start + seconds(59), (Notice::Skewed, [1; 32])));
        assert!(notices.pass(start, (Notice::Replayed, [1; 32])));
        assert!(notices.pass(start, (Notice::Skewed, [2; 32])));
        assert!(notices.pass(start + seconds(60), (Notice::Skewed, [1; 32])));
    }

    #[test]
    fn somebody_with_any_number_of_keys_gets_sixty_lines_a_minute_and_a_bounded_table() {
        let start = Instant::now();
        let mut notices = Notices::new();
        let mut passed = 0;
        for n in 0..100_000u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&n.to_le_bytes());
            passed += u32::from(notices.pass(start + seconds(u64::from(n) / 1000), (Notice::Replayed, peer)));
        }
        assert_eq!(passed, 2 * NOTICES);
        for n in 0..3000u32 {
            let mut peer = [1; 32];
            peer[..4].copy_from_slice(&n.to_le_bytes());
            assert!(notices.pass(start + seconds(1000 + 60 * u64::from(n)), (Notice::Replayed, peer)));
        }
        assert_eq!(notices.last.len(), REMEMBERED.get());
    }
}
