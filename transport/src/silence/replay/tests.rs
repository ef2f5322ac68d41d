use super::*;
use crate::silence::budget::OPENINGS_PER_SECOND;
use proptest::prelude::*;
use std::collections::HashMap;

/// Some day, in milliseconds since 1970.
const DAY: u64 = 1_800_000_000_000;
const NET: Prefix = Prefix::V4([192, 0, 2]);

fn id(n: u64) -> [u8; 32] {
    let mut ephemeral = [0; 32];
    ephemeral[..8].copy_from_slice(&n.to_le_bytes());
    ephemeral
}

fn net(n: u64) -> Prefix {
    let [.., a, b, c] = n.to_be_bytes();
    Prefix::V4([a, b, c])
}

/// A process that has run for an hour and more: by then its start is nobody's concern.
struct Clock(Instant);

impl Clock {
    fn at(&self, ms: u64) -> Moment {
        self.at_wall(ms, DAY + ms)
    }

    fn at_wall(&self, ms: u64, wall: u64) -> Moment {
        Moment::new(
            wall,
            Duration::from_millis(3_600_000 + ms),
            self.0 + Duration::from_millis(ms),
        )
    }
}

fn set(per_second: u32) -> (ReplaySet, Clock) {
    let now = Instant::now();
    (ReplaySet::new([5; 32], per_second, now), Clock(now))
}

#[test]
fn a_knock_is_taken_once() {
    let (mut set, clock) = set(10);
    assert!(!set.contains(&id(1)));
    assert_eq!(set.insert(&id(1), DAY, clock.at(0), NET, false), Ok(()));
    assert!(set.contains(&id(1)));
    for ms in [0, 1, 119_999, 120_000] {
        assert_eq!(
            set.insert(&id(1), DAY, clock.at(ms), NET, false),
            Err(Refused::Replayed)
        );
    }
    assert_eq!(
        set.insert(&id(1), DAY, clock.at(120_001), NET, false),
        Err(Refused::Replayed)
    );
    assert_eq!(
        set.insert(&id(1), DAY, clock.at(500_000), NET, false),
        Err(Refused::TooOld)
    );
}

#[test]
fn times_count_to_the_millisecond_at_both_ends_of_the_window() {
    let (mut set, clock) = set(10);
    let at = clock.at(0);
    assert_eq!(
        set.insert(&id(1), DAY - WINDOW - 1, at, NET, true),
        Err(Refused::TooOld)
    );
    assert_eq!(set.insert(&id(2), DAY - WINDOW, at, NET, true), Ok(()));
    assert_eq!(set.insert(&id(3), DAY + WINDOW, at, NET, true), Ok(()));
    assert_eq!(
        set.insert(&id(4), DAY + WINDOW + 1, at, NET, true),
        Err(Refused::TooNew)
    );
}

#[test]
fn what_was_sent_before_this_process_began_is_too_old_and_what_was_sent_after_it_is_not() {
    let now = Instant::now();
    let mut set = ReplaySet::new([5; 32], 10, now);
    let at = Moment::new(DAY, Duration::from_secs(3), now);
    assert_eq!(set.insert(&id(1), DAY - 3000, at, NET, false), Err(Refused::TooOld));
    assert_eq!(set.insert(&id(2), DAY - 2999, at, NET, false), Ok(()));
}

#[test]
fn what_is_forgotten_is_the_time_of_a_knock_and_not_one_of_the_clock() {
    let (mut set, clock) = set(10);
    set.insert(&id(1), DAY + 5, clock.at(0), NET, true).expect("new");
    // The clock leaps ahead by an hour, something is taken then, and the clock comes back.
    let ahead = clock.at_wall(1000, DAY + 3_600_000);
    set.insert(&id(2), ahead.wall, ahead, NET, true).expect("new");
    assert!(set.is_forgotten(DAY + 5) && !set.is_forgotten(DAY + 6));
    let back = clock.at(2000);
    assert_eq!(set.insert(&id(1), DAY + 5, back, NET, true), Err(Refused::TooOld));
    assert_eq!(set.insert(&id(3), DAY + 6, back, NET, true), Ok(()));
}

/// A node that starts with a clock that is an hour ahead, talks to others of which the same is true, and is put right.
#[test]
fn a_clock_that_was_ahead_for_long_and_is_put_right_keeps_nobody_out() {
    let (mut set, clock) = set(10);
    let hour = 3_600_000;
    for second in 0..600 {
        let ahead = clock.at_wall(second * 1000, DAY + hour + second * 1000);
        set.insert(&id(second), ahead.wall, ahead, NET, true).expect("new");
    }
    assert!(set.is_forgotten(DAY + hour));
    for second in 600..1200 {
        let right = clock.at(second * 1000);
        assert_eq!(set.insert(&id(second), right.wall, right, NET, true), Ok(()));
    }
    // When the world gets to that hour, what was answered then is refused still.
    let then = clock.at(hour);
    for second in 0..600 {
        let time = DAY + hour + second * 1000;
        let again = set.insert(&id(second), time, clock.at_wall(hour + second * 1000, time), NET, true);
        assert!(matches!(again, Err(Refused::TooOld | Refused::Replayed)), "{again:?}");
    }
    assert_eq!(set.insert(&id(5000), then.wall - 1, then, NET, true), Ok(()));
}

#[test]
fn a_busy_prefix_is_refused_first_and_never_at_the_cost_of_what_is_remembered() {
    let (mut set, clock) = set(100);
    let taken = (0..1000).filter(|n| set.insert(&id(*n), DAY, clock.at(0), NET, false).is_ok());
    // At exactly half one is still taken as anybody's, and then 25 more as a stranger's.
    assert_eq!(taken.count(), 51 + 25);
    assert_eq!(set.insert(&id(5000), DAY, clock.at(0), net(1), true), Ok(()));
    assert_eq!(
        set.insert(&id(0), DAY, clock.at(0), net(2), true),
        Err(Refused::Replayed)
    );
}

#[test]
fn the_most_that_the_budget_allows_with_the_times_that_stay_longest_never_fills_it() {
    let (mut set, clock) = set(50);
    let mut most = 0;
    for ms in (0..600_000).step_by(10) {
        let at = clock.at(ms);
        // As fast as the budget lets anybody, and as far ahead as it goes.
        let _ = set.insert(&id(ms), at.wall + WINDOW, at, net(ms), true);
        most = most.max(set.len());
        assert!(!set.memory.is_full());
        assert!(!set.is_forgotten(at.wall - WINDOW));
    }
    assert!(most >= 50 * 240, "{most}");
}

#[test]
fn a_clock_that_was_set_back_can_fill_it_and_then_nothing_new_is_taken_until_it_has_caught_up() {
    let (mut set, clock) = set(5);
    let hour = 3_600_000;
    let mut refused = false;
    for ms in (0..400_000).step_by(200) {
        // Time stands still by the wall clock.
        let moment = clock.at_wall(ms, DAY + WINDOW);
        refused |= set.insert(&id(ms), DAY + WINDOW, moment, net(ms), true) == Err(Refused::OverBudget);
    }
    assert!(refused && set.memory.is_full());
    assert!((0..400).all(|n| set.contains(&id(n * 200))));
    let later = clock.at_wall(hour, DAY + hour);
    assert_eq!(set.insert(&id(1), DAY + hour, later, net(1), true), Ok(()));
}

#[test]
fn remembering_takes_34_bytes_an_entry_8_megabytes_in_all() {
    let (mut set, clock) = set(OPENINGS_PER_SECOND);
    let capacity = OPENINGS_PER_SECOND as usize * KEPT;
    assert_eq!(set.memory.bytes(), 0, "who only dials pays nothing");
    let moment = clock.at_wall(0, DAY);
    set.insert(&id(1), DAY, moment, net(1), true).expect("the first");
    assert_eq!(
        set.memory.bytes().div_ceil(capacity),
        35,
        "{} bytes",
        set.memory.bytes()
    );
    assert!(set.memory.bytes() <= 34 * capacity + 64);
}

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    SetClock(i64),
    Knock { id: u64, offset: i64 },
    Again(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..60_000u64).prop_map(Op::Pass),
        (-400_000..400_000i64).prop_map(Op::SetClock),
        (any::<u64>(), -130_000..130_000i64).prop_map(|(id, offset)| Op::Knock { id, offset }),
        (
            any::<u64>(),
            prop::sample::select(vec![-120_000, -119_999, 0, 119_999, 120_000i64])
        )
            .prop_map(|(id, offset)| Op::Knock { id, offset }),
        any::<usize>().prop_map(Op::Again),
    ]
}

proptest! {
    /// Against a set that never forgets: what that one has, ours refuses, whatever the clocks did.
    #[test]
    fn nothing_is_taken_twice_however_the_clock_is_set(ops in prop::collection::vec(op(), 1..200)) {
        let (mut set, clock) = set(20);
        let (mut passed, mut shift) = (0, 0i64);
        let mut taken = HashMap::new();
        let mut tried = Vec::new();
        for op in ops {
            let wall = |passed: u64, shift| (DAY + passed).saturating_add_signed(shift);
            let (id_, time) = match op {
                Op::Pass(ms) => { passed += ms; continue }
                Op::SetClock(by) => { shift += by; continue }
                Op::Knock { id, offset } => (id, wall(passed, shift).saturating_add_signed(offset)),
                Op::Again(n) if !tried.is_empty() => tried[n % tried.len()],
                Op::Again(_) => continue,
            };
            tried.push((id_, time));
            let at = clock.at_wall(passed, wall(passed, shift));
            match set.insert(&id(id_), time, at, net(id_), true) {
                Ok(()) => prop_assert!(taken.insert(id_, time).is_none(), "taken twice"),
                Err(Refused::Replayed) => prop_assert!(taken.contains_key(&id_)),
                Err(Refused::TooOld) if time >= at.wall.saturating_sub(WINDOW) && time > at.boot => {
                    prop_assert!(set.is_forgotten(time));
                }
                Err(_) => {}
            }
            prop_assert!(taken.iter().all(|(n, time)| set.is_forgotten(*time) || set.contains(&id(*n))));
        }
    }
}
