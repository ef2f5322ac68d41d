//! Which of two connections with the same peer is used, so that both ends keep the same one.
//!
//! Two ends that dial at the same time have two connections for a moment. In the original each end keeps the one that it
//! saw last, which may be different ones: then each closes what the other kept, and both go (W1). And a dialer gives up a
//! working connection for one that the other end is about to refuse (W2). Here a second connection *stands by*: what it
//! brings is kept and not looked at, until one of the following.
//!
//! - The one in use ends: the other takes over. The original closes what it does not use at once, so against a Go peer
//!   this comes within a round trip.
//! - It has brought a byte, which says that the other end uses it (nobody writes on a connection that stands by). The end
//!   with the smaller key follows after half a second, in which a Go peer has closed one of the two, perhaps this one. The
//!   one with the larger key waits for 2 s, as the other end follows *it* if it is one of ours.
//! - It has brought nothing for 5 s: it is closed.
//!
//! A peer that dials again over its own connection has lost the old one: there the new one is used at once.

use std::time::{Duration, Instant};

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Active,
    Standby,
    /// It is not, or no longer, wanted.
    Closed,
}

/// For the other end to close what it does not use.
const TO_FOLLOW: Duration = Duration::from_millis(500);

/// For the other end to follow, with time to spare.
const TO_BE_FOLLOWED: Duration = Duration::from_secs(2);

/// For a second connection to bring its first byte.
const TO_SPEAK: Duration = Duration::from_secs(5);

/// No dial is under way for longer: an older connection is no party to two simultaneous dials.
const OLD: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy)]
struct Candidate {
    generation: u64,
    outbound: bool,
    since: Instant,
    spoke: Option<Instant>,
}

/// The connections with one peer: one in use, one that stands by.
#[derive(Debug)]
pub(crate) struct Slots {
    follows: bool,
    active: Option<Candidate>,
    standby: Option<Candidate>,
}

impl Slots {
    /// `follows`: ours is the smaller key.
    pub(crate) fn new(follows: bool) -> Self {
        Self {
            follows,
            active: None,
            standby: None,
        }
    }

    pub(crate) fn arrive(&mut self, generation: u64, outbound: bool, now: Instant) {
        let new = Candidate {
            generation,
            outbound,
            since: now,
            spoke: None,
        };
        match self.active {
            Some(active) if outbound || active.outbound => self.standby = Some(new),
            _ => self.active = Some(new),
        }
    }

    /// The connection that stands by has brought its first byte.
    pub(crate) fn spoke(&mut self, generation: u64, now: Instant) {
        if let Some(standby) = self.standby.as_mut().filter(|s| s.generation == generation) {
            standby.spoke.get_or_insert(now);
            self.tick(now);
        }
    }

    pub(crate) fn ended(&mut self, generation: u64) {
        if self.standby.is_some_and(|standby| standby.generation == generation) {
            self.standby = None;
        }
        if self.active.is_some_and(|active| active.generation == generation) {
            self.active = self.standby.take();
        }
    }

    /// The peer is gone, or the host is closed.
    pub(crate) fn clear(&mut self) {
        self.active = None;
        self.standby = None;
    }

    /// What is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        let standby = self.standby.take();
        if standby.is_some_and(|standby| standby.spoke.is_some()) {
            self.active = standby;
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let (active, standby) = (self.active?, self.standby?);
        let Some(spoke) = standby.spoke else {
            return Some(standby.since + TO_SPEAK);
        };
        let simultaneous = standby.since.saturating_duration_since(active.since) < OLD;
        Some(match (simultaneous, self.follows) {
            (false, _) => spoke,
            (true, true) => spoke + TO_FOLLOW,
            (true, false) => spoke + TO_BE_FOLLOWED,
        })
    }

    pub(crate) fn role(&self, generation: u64) -> Role {
        let is = |slot: Option<Candidate>| slot.is_some_and(|candidate| candidate.generation == generation);
        if is(self.active) {
            Role::Active
        } else if is(self.standby) {
            Role::Standby
        } else {
            Role::Closed
        }
    }

    pub(crate) fn active(&self) -> Option<u64> {
        self.active.map(|active| active.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_millis(50);

    #[test]
    fn the_first_connection_is_used_at_once() {
        let now = Instant::now();
        for outbound in [false, true] {
            let mut slots = Slots::new(false);
            slots.arrive(1, outbound, now);
            assert_eq!(slots.role(1), Role::Active);
        }
    }

    #[test]
    fn a_dialer_keeps_its_connection_until_the_new_one_has_proved_itself() {
        // W2: the new one may be about to be refused.
        let now = Instant::now();
        let mut slots = Slots::new(true);
        slots.arrive(1, false, now);
        slots.arrive(2, true, now + STEP);
        assert_eq!((slots.role(1), slots.role(2)), (Role::Active, Role::Standby));
        slots.ended(2);
        assert_eq!(slots.role(1), Role::Active);
        slots.arrive(3, true, now + STEP);
        slots.spoke(3, now + STEP);
        assert_eq!((slots.role(1), slots.role(3)), (Role::Active, Role::Standby));
        slots.tick(now + STEP + TO_FOLLOW);
        assert_eq!((slots.role(1), slots.role(3)), (Role::Closed, Role::Active));
    }

    #[test]
    fn the_one_that_stands_by_takes_over_when_the_other_ends() {
        let now = Instant::now();
        let mut slots = Slots::new(false);
        slots.arrive(1, true, now);
        slots.arrive(2, false, now);
        slots.ended(1);
        assert_eq!(slots.role(2), Role::Active);
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_what_it_had() {
        let now = Instant::now();
        let mut slots = Slots::new(false);
        slots.arrive(1, false, now);
        slots.arrive(2, false, now);
        assert_eq!((slots.role(1), slots.role(2)), (Role::Closed, Role::Active));
    }

    #[test]
    fn one_that_says_nothing_is_closed_after_5_s() {
        let now = Instant::now();
        let mut slots = Slots::new(true);
        slots.arrive(1, true, now);
        slots.arrive(2, false, now);
        assert_eq!(slots.next_timeout(), Some(now + TO_SPEAK));
        slots.tick(now + TO_SPEAK - STEP);
        assert_eq!(slots.role(2), Role::Standby);
        slots.tick(now + TO_SPEAK);
        assert_eq!((slots.role(1), slots.role(2)), (Role::Active, Role::Closed));
    }

    #[test]
    fn the_larger_key_waits_to_be_followed_and_then_follows_itself() {
        let now = Instant::now();
        let mut slots = Slots::new(false);
        slots.arrive(1, true, now);
        slots.arrive(2, false, now);
        slots.spoke(2, now);
        assert_eq!(slots.role(2), Role::Standby);
        slots.tick(now + TO_FOLLOW);
        assert_eq!(slots.role(2), Role::Standby);
        slots.tick(now + TO_BE_FOLLOWED);
        assert_eq!((slots.role(1), slots.role(2)), (Role::Closed, Role::Active));
    }

    #[test]
    fn whoever_has_an_old_connection_follows_a_peer_that_came_back_at_once() {
        let now = Instant::now();
        let mut slots = Slots::new(false);
        slots.arrive(1, true, now);
        slots.arrive(2, false, now + OLD);
        slots.spoke(2, now + OLD);
        assert_eq!(slots.role(2), Role::Active);
    }

    /// One end, and what it has seen of the two connections.
    struct End {
        slots: Slots,
        /// In milliseconds, when each of the connections is complete here.
        sees: [u64; 2],
        dialled: u64,
        /// Go: the newest wins and the other is closed.
        go: bool,
    }

    /// What a byte or a close needs to the other end.
    const DELAY: u64 = 40;

    /// Lets both ends run for five seconds. Events of one end reach the other `DELAY` later. Returns what both use at the end.
    fn settle(mut ends: [End; 2]) -> [Option<u64>; 2] {
        let zero = Instant::now();
        // What is on its way: when, to whom, of which connection, and whether it is its end or its first byte.
        let mut mail: Vec<(u64, usize, u64, bool)> = Vec::new();
        let mut said = [[false; 2]; 2];
        let mut over = [[false; 2]; 2];
        for ms in 0..5_000 {
            let now = zero + Duration::from_millis(ms);
            for at in 0..2 {
                for c in 0..2_u64 {
                    if ends[at].sees[c as usize] == ms && !over[at][c as usize] {
                        if ends[at].go {
                            let slots = &mut ends[at].slots;
                            slots.clear();
                            slots.arrive(c, false, now);
                        } else {
                            let outbound = ends[at].dialled == c;
                            ends[at].slots.arrive(c, outbound, now);
                        }
                    }
                }
                for (_, _, c, ended) in mail.iter().filter(|m| m.0 == ms && m.1 == at) {
                    if *ended {
                        over[at][*c as usize] = true;
                        ends[at].slots.ended(*c);
                    } else {
                        ends[at].slots.spoke(*c, now);
                    }
                }
                ends[at].slots.tick(now);
                for c in 0..2_u64 {
                    let role = ends[at].slots.role(c);
                    let seen = ends[at].sees[c as usize] <= ms;
                    if role == Role::Active && !said[at][c as usize] {
                        said[at][c as usize] = true;
                        mail.push((ms.max(ends[1 - at].sees[c as usize]) + DELAY, 1 - at, c, false));
                    }
                    if seen && role == Role::Closed && !over[at][c as usize] {
                        over[at][c as usize] = true;
                        mail.push((ms.max(ends[1 - at].sees[c as usize]) + DELAY, 1 - at, c, true));
                    }
                }
            }
        }
        [0, 1].map(|at| ends[at].slots.active())
    }

    proptest! {
        #[test]
        fn two_that_dial_at_the_same_time_end_up_with_one_connection(
            sees in [0..200_u64, 0..200_u64, 0..200_u64, 0..200_u64],
            go in any::<bool>(),
            larger in any::<bool>(),
        ) {
            let end = |sees, dialled, follows, go| End { slots: Slots::new(follows), sees, dialled, go };
            let [a, b, c, d] = sees;
            let used = settle([end([a, b], 0, larger, false), end([c, d], 1, !larger, go)]);
            prop_assert!(used[0].is_some(), "{used:?}");
            prop_assert_eq!(used[0], used[1]);
        }
    }
}
