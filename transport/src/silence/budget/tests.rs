use super::*;
use std::time::Duration;

fn net(n: u32) -> Prefix {
    let [_, a, b, c] = n.to_be_bytes();
    Prefix::V4([a, b, c])
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How many of `n` tries in this instant are served.
fn served(budget: &mut Budget, now: Instant, prefix: impl Fn(u32) -> Prefix, known: bool, n: u32) -> u32 {
    (0..n).filter(|i| budget.charge(now, prefix(*i), known)).count() as u32
}

#[test]
fn limits_grow_with_the_openings_that_are_allowed_and_never_shrink() {
    let limit = Limit {
        per_second: 20,
        burst: 40,
    };
    for (openings, per_second, burst) in [(1, 20, 40), (1000, 20, 40), (1999, 20, 40), (5000, 100, 200)] {
        let scaled = limit.scaled(openings);
        assert_eq!((scaled.per_second, scaled.burst), (per_second, burst), "{openings}");
    }
}

#[test]
fn one_prefix_gets_half_at_once_then_its_own_forty_then_twenty_a_second() {
    let start = Instant::now();
    let mut budget = Budget::new(1000, start);
    // 501: the one at exactly half is served too.
    assert_eq!(served(&mut budget, start, |_| net(1), false, 5000), 501 + 40);
    // At 10,000 tries a second, what it gets is what comes in above half; the others find half a second's worth.
    for n in 1..2000u64 {
        budget.charge(start + ms(n) / 10, net(1), false);
        if n % 100 == 0 {
            assert!(budget.charge(start + ms(n) / 10, net(2), false), "at {n}");
        }
    }
}

#[test]
fn strangers_from_everywhere_leave_known_prefixes_a_quarter_at_once_and_half_the_rate() {
    let start = Instant::now();
    let mut budget = Budget::new(1000, start);
    let flood = served(&mut budget, start, net, false, 50_000);
    assert_eq!(flood, 501 + 250);
    assert_eq!(served(&mut budget, start, |i| net(1 << 20 | i), true, 1000), 249);
    let mut known = 0;
    for n in 1..=1000 {
        let now = start + ms(n);
        served(&mut budget, now, |i| net(n as u32 * 50 + i), false, 50);
        known += served(&mut budget, now, |i| net(1 << 20 | n as u32 | i), true, 1);
    }
    // One of the thousand tries a millisecond apart may be made just before a token is whole.
    assert!(known >= 500, "{known}");
}

#[test]
fn a_known_prefix_cannot_use_up_what_is_kept_for_the_known() {
    let start = Instant::now();
    let mut budget = Budget::new(1000, start);
    assert_eq!(served(&mut budget, start, |_| net(1), true, 5000), 541);
    assert_eq!(served(&mut budget, start, |_| net(2), true, 5000), 40);
    assert_eq!(served(&mut budget, start, |i| net(3 + i), true, 100), 100);
}

#[test]
fn over_a_minute_no_more_is_served_than_the_rate_and_one_burst() {
    let start = Instant::now();
    let mut budget = Budget::new(1000, start);
    let total: u32 = (0..60_000u64)
        .map(|n| served(&mut budget, start + ms(n), |i| net(n as u32 * 3 + i), n % 2 == 0, 3))
        .sum();
    assert!(total <= 61_000, "{total}");
    assert!(total >= 60_000, "{total}");
}

#[test]
fn what_the_table_forgets_for_lack_of_room_is_full() {
    // The most that can be served below half, from as many prefixes as there are tries.
    let start = Instant::now();
    let mut budget = Budget::new(1000, start);
    let mut last = std::collections::HashMap::new();
    for n in 0..100_000u64 {
        let (now, prefix) = (start + ms(n) / 5, net(n as u32));
        if budget.charge(now, prefix, true) && budget.prefixes.buckets.contains(&prefix) {
            last.insert(prefix, now);
        }
        if n % 1000 == 0 {
            last.retain(|prefix, used| {
                let there = budget.prefixes.buckets.contains(prefix);
                assert!(there || now - *used >= ms(2000), "forgotten after {:?}", now - *used);
                there
            });
        }
    }
    assert_eq!(budget.prefixes.buckets.len(), 4000, "the table has been full");
}

#[test]
fn nothing_is_lost_in_rounding_and_time_that_stands_still_or_goes_back_gives_nothing() {
    let start = Instant::now();
    let limit = Limit {
        per_second: 3,
        burst: 3,
    };
    let mut bucket = Bucket::full(limit, start);
    for _ in 0..3 {
        bucket.take(limit, start + ms(10));
    }
    assert!(!bucket.has_one(limit, start));
    for n in 0..333_333_333 / 1_000_000 {
        assert!(!bucket.has_one(limit, start + ms(10 + n)));
    }
    assert!(bucket.has_one(limit, start + ms(10) + Duration::from_nanos(333_333_334)));
    assert_eq!(
        bucket.level(limit, start + Duration::from_secs(10 * 365 * 86_400)),
        limit.cap()
    );
}

#[test]
fn verifications_stop_at_five_for_a_prefix_and_two_thousand_in_all() {
    let start = Instant::now();
    let mut budget = Verifications::new(OPENINGS_PER_SECOND, start);
    let mut charge = |now, prefix| budget.charge(now, prefix, Some(1));
    assert_eq!((0..100).filter(|_| charge(start, net(1))).count(), 5);
    assert_eq!((0..10_000).filter(|n| charge(start, net(2 + n))).count(), 1995);
    assert!(!charge(start + ms(49), net(1)), "a prefix gets one in 50 ms");
    assert!(charge(start + ms(50), net(1)));
}

#[test]
fn a_prefix_has_as_many_verifications_at_once_as_there_are_peers_and_never_more_than_an_eighth_of_all() {
    let start = Instant::now();
    for (peers, at_once) in [
        (Some(0), 5),
        (Some(6), 6),
        (Some(256), 256),
        (Some(usize::MAX), 256),
        (None, 256),
    ] {
        let mut budget = Verifications::new(OPENINGS_PER_SECOND, start);
        let mut served = |now| (0..5000).filter(|_| budget.charge(now, net(1), peers)).count();
        assert_eq!(served(start), at_once, "{peers:?}");
        // For ever after, twenty a second.
        let later: usize = (1..=100).map(|n| served(start + ms(50 * n))).sum();
        assert_eq!(later, 100, "{peers:?}");
        // Forged knocks leave the others theirs.
        assert!(budget.charge(start + ms(5000), net(2), peers), "{peers:?}");
    }
}

#[test]
fn a_replay_from_elsewhere_does_not_use_up_the_peers_own_handshakes() {
    let start = Instant::now();
    let mut budget = Handshakes::new(OPENINGS_PER_SECOND);
    assert_eq!((0..100).filter(|_| budget.charge(start, &[1; 32], net(1))).count(), 4);
    assert!(budget.charge(start, &[1; 32], net(2)));
    assert!(budget.charge(start, &[2; 32], net(1)));
    assert!(!budget.charge(start + ms(499), &[1; 32], net(1)));
    assert!(budget.charge(start + ms(500), &[1; 32], net(1)));
}

#[test]
fn the_tables_of_buckets_stay_within_their_bounds() {
    let start = Instant::now();
    let mut pairs = Handshakes::new(OPENINGS_PER_SECOND);
    for n in 0..100_000 {
        pairs.charge(start, &[1; 32], net(n));
    }
    assert_eq!(pairs.pairs.buckets.len(), TABLE);
}

/// What a network of peers in one prefix asks for when its listener has been restarted: each of
/// them once, at once.
#[test]
fn forty_peers_of_one_prefix_are_verified_within_two_seconds_of_a_restart() {
    let start = Instant::now();
    for peers in [Some(40), None] {
        let (mut budget, mut left, mut took) = (Verifications::new(OPENINGS_PER_SECOND, start), 40, ms(0));
        while left > 0 {
            let verified = |_: &usize| budget.charge(start + took, net(1), peers);
            left -= (0..left).filter(verified).count();
            if left > 0 {
                // A refused dialer waits in silence for five seconds, and then dials again.
                took += ms(5000);
            }
        }
        assert!(took <= ms(2000), "{took:?} for {peers:?}");
    }
}
