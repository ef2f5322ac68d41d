//! What earlier dials and callers tell about a dial that fails, and about our own clock. Pure:
//! times come in.
//!
//! Only a sealed knock has a time in it. One that is answered shows that the peer's clock and ours
//! differ by [`MAX_SKEW_MS`] at most. One that comes in shows the caller's clock. A knock that is
//! not answered shows nothing: that of a dialer with a wrong clock is refused in silence like any
//! other.

use crate::config::Theirs;
use crate::knock::v3::MAX_SKEW_MS;
use crate::recent::recent;
use crate::silence::replay::Moment;
use libp2p_core::Multiaddr;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

/// Peers whose last answer is remembered, at most: some 100 kB.
const ANSWERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Addresses of which it is remembered who answered there, at most: some 100 kB.
const PLACES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Callers whose clock, or whose way to knock, is remembered, at most, and peers that count as
/// silent in a row.
const OTHERS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// What a caller has shown says something for so long.
const FRESH: Duration = Duration::from_secs(600);
/// So many callers have to agree before something is said of our own clock.
const ENOUGH: usize = 3;
/// A wall clock that is slewed differs by less from one that runs freely.
const STEP_MS: u64 = 10_000;
/// Whether time asleep counts as time. Where it does not, a sleep looks like a clock that was set.
const COUNTS_SLEEP: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What is known of our own clock when a knock was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnClock {
    /// Nothing: no peer has answered a knock of ours, and too few callers have shown their clocks.
    Unknown,
    /// A peer has answered a knock of ours, so its clock and ours differed by 120 s at most. Ours
    /// was not set since.
    Agreed {
        /// How long ago the last such answer was.
        ago: Duration,
    },
    /// It was set since a peer last answered a knock of ours. Linux and Android alone can tell.
    Set {
        /// By how much, in seconds; negative if it was set back.
        seconds: i64,
        /// How long ago that answer was.
        ago: Duration,
    },
    /// Callers have shown other times than ours within the last ten minutes, three of them at
    /// least. Nothing proves a caller's clock.
    Differs {
        /// By how much ours is ahead of the one in the middle, in seconds; negative for behind.
        seconds_ahead: i64,
        /// How many callers there were.
        callers: usize,
    },
}

impl OwnClock {
    /// Whether it may be too wrong to knock with.
    pub(crate) fn is_suspect(self) -> bool {
        let limit = MAX_SKEW_MS / 1000;
        match self {
            Self::Unknown | Self::Agreed { .. } => false,
            Self::Set { seconds, .. } => seconds.unsigned_abs() >= limit / 2,
            Self::Differs { seconds_ahead, .. } => seconds_ahead.unsigned_abs() >= limit / 2,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bearings {
    /// When a peer last answered a sealed knock of ours.
    agreed: Option<Moment>,
    /// When each peer answered last.
    answered: LruCache<[u8; 32], Instant>,
    /// Which peer answered last at an address, and when.
    places: LruCache<Multiaddr, (Instant, [u8; 32])>,
    /// Peers that left a knock of ours unanswered since a peer last answered one.
    silent: LruCache<[u8; 32], ()>,
    /// How far each caller's clock was ahead of ours in milliseconds, and when.
    callers: LruCache<[u8; 32], (Instant, i64)>,
    /// How callers knocked that are configured otherwise here, and when.
    otherwise: LruCache<[u8; 32], (Instant, Theirs)>,
}

/// What earlier dials and callers tell about a knock that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) own_clock: OwnClock,
    /// How long ago the peer answered another knock.
    pub(crate) answered: Option<Duration>,
    /// Peers in a row that were silent, this one included if it was: up to 32.
    pub(crate) silent: usize,
    /// How far the peer's own clock was ahead of ours in milliseconds when it knocked here.
    pub(crate) skew_ms: Option<i64>,
    /// How the peer itself knocked here, if it is configured otherwise here.
    pub(crate) theirs: Option<Theirs>,
    /// Another peer that answered at the address, and how long ago.
    pub(crate) holder: Option<([u8; 32], Duration)>,
}

impl Bearings {
    pub(crate) fn new() -> Self {
        Self {
            agreed: None,
            answered: recent(ANSWERED),
            places: recent(PLACES),
            silent: recent(OTHERS),
            callers: recent(OTHERS),
            otherwise: recent(OTHERS),
        }
    }

    /// `peer` has answered a knock of ours at `place` and proven that it is this peer. `timed`: the
    /// knock had a time in it.
    pub(crate) fn on_answered(&mut self, now: Moment, peer: [u8; 32], place: Option<Multiaddr>, timed: bool) {
        self.answered.put(peer, now.monotonic);
        if let Some(place) = place {
            self.places.put(place, (now.monotonic, peer));
        }
        self.silent.clear();
        if timed {
            self.agreed = Some(now);
        }
    }

    /// `peer` has not answered a knock of ours at `place`; it was `silent`, or something else was heard there. Returns
    /// what is known about that.
    pub(crate) fn on_unanswered(
        &mut self,
        now: Moment,
        peer: [u8; 32],
        place: Option<&Multiaddr>,
        silent: bool,
    ) -> Known {
        if silent {
            self.silent.put(peer, ());
        }
        let ago = |at: Instant| now.monotonic.saturating_duration_since(at);
        let holder = place.and_then(|place| self.places.peek(place));
        let skew = self.callers.peek(&peer).filter(|(at, _)| ago(*at) < FRESH);
        let theirs = self.otherwise.peek(&peer).filter(|(at, _)| ago(*at) < FRESH);
        Known {
            own_clock: self.own_clock(now),
            answered: self.answered.peek(&peer).map(|at| ago(*at)),
            silent: self.silent.len(),
            skew_ms: skew.map(|(_, skew)| *skew),
            theirs: theirs.map(|(_, theirs)| *theirs),
            holder: holder
                .filter(|(_, holder)| *holder != peer)
                .map(|(at, holder)| (*holder, ago(*at))),
        }
    }

    /// A caller's clock was so many milliseconds ahead of ours when it knocked, less what the way
    /// took.
    pub(crate) fn on_caller(&mut self, now: Moment, peer: [u8; 32], skew_ms: i64) {
        self.callers.put(peer, (now.monotonic, skew_ms));
    }

    /// A caller is configured otherwise here than it knocks.
    pub(crate) fn on_otherwise(&mut self, now: Instant, peer: [u8; 32], theirs: Theirs) {
        self.otherwise.put(peer, (now, theirs));
    }

    fn own_clock(&self, now: Moment) -> OwnClock {
        if let Some(differs) = self.differs(now) {
            return differs;
        }
        let Some(then) = self.agreed else {
            return OwnClock::Unknown;
        };
        let ago = now.monotonic.saturating_duration_since(then.monotonic);
        // The start of the process is as far away as ever: by the wall clock it moves when that is
        // set.
        let step = now.boot.abs_diff(then.boot);
        if step < STEP_MS {
            return OwnClock::Agreed { ago };
        }
        if !COUNTS_SLEEP {
            return OwnClock::Unknown;
        }
        let seconds = signed(step, now.boot < then.boot) / 1000;
        OwnClock::Set { seconds, ago }
    }

    /// What callers say, if it is another time than ours.
    fn differs(&self, now: Moment) -> Option<OwnClock> {
        let fresh = |(at, _): &&(Instant, i64)| now.monotonic.saturating_duration_since(*at) < FRESH;
        let entries = self.callers.iter().map(|(_, entry)| entry);
        let mut skews: Vec<i64> = entries.filter(fresh).map(|(_, skew)| *skew).collect();
        if skews.len() < ENOUGH {
            return None;
        }
        skews.sort_unstable();
        let seconds_ahead = -(skews[skews.len() / 2] / 1000);
        let differs = OwnClock::Differs {
            seconds_ahead,
            callers: skews.len(),
        };
        differs.is_suspect().then_some(differs)
    }
}

fn signed(magnitude: u64, negative: bool) -> i64 {
    let magnitude = i64::try_from(magnitude).unwrap_or(i64::MAX);
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::Version;

    const V2: Theirs = Theirs {
        version: Version::V2,
        mode: None,
    };

    /// So many seconds after the start, by a wall clock that is so many seconds ahead.
    fn at(start: Instant, seconds: u64, ahead: i64) -> Moment {
        let age = Duration::from_secs(seconds);
        let wall = 1_800_000_000_000_u64 + seconds * 1000;
        Moment::new(wall.saturating_add_signed(ahead * 1000), age, start + age)
    }

    #[test]
    fn a_clock_that_was_set_since_it_agreed_with_a_peer_is_told_from_one_that_was_not() {
        let (start, peer) = (Instant::now(), [1; 32]);
        let mut bearings = Bearings::new();
        assert_eq!(bearings.own_clock(at(start, 5, 0)), OwnClock::Unknown);
        bearings.on_answered(at(start, 5, 0), peer, None, false);
        assert_eq!(
            bearings.own_clock(at(start, 5, 0)),
            OwnClock::Unknown,
            "no time was in it"
        );
        bearings.on_answered(at(start, 10, 0), peer, None, true);
        let ago = Duration::from_secs(90);
        let agreed = OwnClock::Agreed { ago };
        assert_eq!(bearings.own_clock(at(start, 100, 0)), agreed);
        assert_eq!(bearings.own_clock(at(start, 100, 9)), agreed, "slewed");
        for seconds in [-3600, -10, 10, 3600] {
            let set = bearings.own_clock(at(start, 100, seconds));
            if COUNTS_SLEEP {
                assert_eq!(set, OwnClock::Set { seconds, ago });
                assert_eq!(set.is_suspect(), seconds.unsigned_abs() > 60);
            } else {
                assert_eq!(set, OwnClock::Unknown);
            }
        }
        bearings.on_answered(at(start, 200, 3600), peer, None, true);
        let now = at(start, 200, 3600);
        assert_eq!(bearings.own_clock(now), OwnClock::Agreed { ago: Duration::ZERO });
    }

    #[test]
    fn callers_tell_of_our_clock_if_there_are_three_and_the_one_in_the_middle_is_believed() {
        let start = Instant::now();
        let mut bearings = Bearings::new();
        let now = at(start, 10, 0);
        bearings.on_caller(now, [1; 32], 400_000);
        bearings.on_caller(now, [2; 32], 401_500);
        bearings.on_caller(now, [2; 32], 401_500);
        assert_eq!(bearings.own_clock(now), OwnClock::Unknown, "two callers");
        bearings.on_caller(now, [3; 32], -90_000_000);
        let differs = OwnClock::Differs {
            seconds_ahead: -400,
            callers: 3,
        };
        assert_eq!(bearings.own_clock(now), differs);
        assert!(differs.is_suspect());
        assert_eq!(bearings.own_clock(at(start, 611, 0)), OwnClock::Unknown, "long ago");
        for peer in 1..4 {
            bearings.on_caller(now, [peer; 32], -5_000);
        }
        assert_eq!(bearings.own_clock(now), OwnClock::Unknown, "they agree with us");
    }

    #[test]
    fn silent_peers_count_until_one_answers_and_memory_is_bounded() {
        let start = Instant::now();
        let mut bearings = Bearings::new();
        for n in 0..5000_u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&n.to_le_bytes());
            let now = at(start, 1, 0);
            bearings.on_unanswered(now, peer, None, true);
            let known = bearings.on_unanswered(now, peer, None, true);
            assert_eq!(known.silent, OTHERS.get().min(n as usize + 1));
            bearings.on_caller(now, peer, i64::MIN);
            bearings.on_otherwise(now.monotonic, peer, V2);
        }
        assert_eq!(bearings.callers.len(), OTHERS.get());
        // Whatever was shown, nothing overflows.
        assert!(bearings.own_clock(at(start, 1, 0)).is_suspect());
        assert_eq!(bearings.otherwise.len(), OTHERS.get());
        bearings.on_answered(at(start, 1, 0), [9; 32], None, true);
        let known = bearings.on_unanswered(at(start, 4, 0), [9; 32], None, true);
        assert_eq!((known.silent, known.answered), (1, Some(Duration::from_secs(3))));
        assert_eq!(
            bearings.on_unanswered(at(start, 4, 0), [8; 32], None, true).answered,
            None
        );
        for n in 0..2000_u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&n.to_le_bytes());
            let place = format!("/ip4/192.0.2.1/tcp/{n}").parse().ok();
            bearings.on_answered(at(start, 1, 0), peer, place, true);
        }
        assert_eq!(bearings.answered.len(), ANSWERED.get());
        assert_eq!(bearings.places.len(), PLACES.get());
    }

    #[test]
    fn what_a_silent_peer_showed_when_it_knocked_here_is_known_for_ten_minutes() {
        let start = Instant::now();
        let mut bearings = Bearings::new();
        bearings.on_caller(at(start, 10, 0), [1; 32], 400_000);
        bearings.on_otherwise(at(start, 10, 0).monotonic, [1; 32], V2);
        let known = bearings.on_unanswered(at(start, 609, 0), [1; 32], None, true);
        assert_eq!((known.skew_ms, known.theirs), (Some(400_000), Some(V2)));
        let known = bearings.on_unanswered(at(start, 610, 0), [1; 32], None, true);
        assert_eq!((known.skew_ms, known.theirs), (None, None));
    }

    #[test]
    fn another_peer_that_answered_at_the_address_is_named_and_not_the_one_that_was_meant() {
        let (start, place) = (
            Instant::now(),
            "/ip4/192.0.2.1/tcp/1".parse::<Multiaddr>().expect("an address"),
        );
        let mut bearings = Bearings::new();
        bearings.on_answered(at(start, 1, 0), [1; 32], Some(place.clone()), true);
        let known = bearings.on_unanswered(at(start, 4, 0), [2; 32], Some(&place), true);
        assert_eq!(known.holder, Some(([1; 32], Duration::from_secs(3))));
        assert_eq!(
            bearings
                .on_unanswered(at(start, 4, 0), [1; 32], Some(&place), true)
                .holder,
            None
        );
        assert_eq!(
            bearings.on_unanswered(at(start, 4, 0), [2; 32], None, true).holder,
            None
        );
    }
}
