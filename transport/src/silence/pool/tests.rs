use super::*;

const T: Duration = Duration::from_secs(300);

fn pool(capacity: usize) -> Pool<u32> {
    Pool::new(NonZeroUsize::new(capacity).expect("not zero"), T)
}

fn net(n: u16) -> Prefix {
    let [a, b] = n.to_be_bytes();
    Prefix::V4([10, a, b])
}

/// Accepts one and makes a draw of its name.
fn accept(pool: &mut Pool<u32>, now: Instant, prefix: Prefix, known: bool, name: u32) -> (Slot, Option<u32>) {
    pool.on_accept(now, prefix, known, name, u64::from(name))
}

#[test]
fn draws_are_those_of_splitmix64() {
    // The first outputs of the reference implementation for these seeds, of which the upper bits are taken.
    for (seed, outputs) in [
        (
            0,
            [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f],
        ),
        (
            1_234_567,
            [0x599e_d017_fb08_fc85, 0x2c73_f084_5854_0fa5, 0x883e_bce5_a3f2_7c77],
        ),
    ] {
        let mut draw = Draw(seed);
        for output in outputs {
            assert_eq!(draw.below(1 << 63), (output >> 1) as usize);
        }
    }
    assert_eq!(Draw(7).below(0), 0);
}

#[test]
fn everybody_leaves_at_accept_plus_t_and_not_a_nanosecond_sooner() {
    let start = Instant::now();
    let mut pool = pool(8);
    accept(&mut pool, start, net(1), false, 1);
    accept(&mut pool, start + Duration::from_secs(1), net(2), true, 2);
    assert_eq!(pool.next_timeout(), Some(start + T));
    assert_eq!(pool.pop_expired(start + T - Duration::from_nanos(1), |_| false), None);
    assert_eq!(pool.pop_expired(start + T, |_| false), Some(1));
    assert_eq!(pool.pop_expired(start + T, |_| false), None);
    assert_eq!(pool.pop_expired(start + T + Duration::from_secs(1), |_| false), Some(2));
    assert_eq!(pool.next_timeout(), None);
}

#[test]
fn no_timeout_and_no_limit_are_nothing_special() {
    let start = Instant::now();
    let mut pool = Pool::new(NonZeroUsize::MAX, Duration::MAX);
    pool.on_accept(start, net(1), false, "patient", 0);
    assert_eq!(pool.pop_expired(start + T, |_| false), None);
    assert!(pool.next_timeout().is_some_and(|at| at > start + T));
}

#[test]
fn a_full_pool_takes_everybody_in_and_never_grows() {
    let now = Instant::now();
    let mut pool = pool(64);
    for n in 0..10_000 {
        let (_, evicted) = accept(&mut pool, now, net(n as u16), false, n);
        assert_eq!(evicted.is_some(), n >= 64);
        assert!(pool.len() <= 64);
    }
}

#[test]
fn below_half_nobody_goes_and_above_it_a_prefix_keeps_its_share_and_gives_up_its_own() {
    let now = Instant::now();
    let mut pool = pool(64);
    for n in 0..32 {
        assert_eq!(accept(&mut pool, now, net(1), false, n).1, None);
    }
    for n in 32..1000 {
        assert!(accept(&mut pool, now, net(1), false, n).1.is_some());
        assert_eq!(pool.len(), 32);
    }
    for n in 0..4 {
        assert_eq!(accept(&mut pool, now, net(2), false, 5000 + n).1, None);
    }
    assert!(
        accept(&mut pool, now, net(2), false, 6000)
            .1
            .is_some_and(|gone| gone >= 5000)
    );
    assert_eq!(pool.held_by(net(2)), pool.share());
}

#[test]
fn a_pool_of_one_holds_the_newest() {
    let now = Instant::now();
    let mut pool = pool(1);
    assert_eq!(accept(&mut pool, now, net(1), true, 1).1, None);
    assert_eq!(accept(&mut pool, now, net(1), true, 2).1, Some(1));
    assert_eq!(accept(&mut pool, now, net(2), false, 3).1, Some(2));
}

#[test]
fn the_busiest_prefix_pays_for_a_newcomer() {
    let now = Instant::now();
    let mut pool = pool(1024);
    // A flood that took its place while there was room for all, then one socket each from everywhere.
    for n in 0..512 {
        accept(&mut pool, now, net(0), false, n);
    }
    for n in 512..1024 {
        accept(&mut pool, now, net(n as u16), false, n);
    }
    let flood = (1024..1224).filter(|n| {
        accept(&mut pool, now, net(*n as u16), false, *n)
            .1
            .is_some_and(|v| v < 512)
    });
    // Of eight drawn by lot at least one is the flood's, unless all eight are not: half to the eighth.
    let flood = flood.count();
    assert!(flood >= 190, "{flood} of 200");
}

#[test]
fn known_prefixes_stay_while_anything_else_can_go() {
    let now = Instant::now();
    let mut pool = pool(64);
    for n in 0..32 {
        accept(&mut pool, now, net(n as u16), true, n);
    }
    for n in 100..5000 {
        if let Some(gone) = accept(&mut pool, now, net(n as u16), false, n).1 {
            assert!(gone >= 100, "a known one went for a stranger");
        }
    }
    // And once there are only known ones, one of them does.
    let gone: Vec<_> = (10_000..10_033)
        .filter_map(|n| accept(&mut pool, now, net(n as u16), true, n).1)
        .collect();
    assert_eq!(gone.iter().filter(|n| **n < 100 || **n >= 10_000).count(), 1);
}

#[test]
fn a_stranger_in_a_known_prefix_takes_that_prefixs_share_and_no_more() {
    let now = Instant::now();
    let mut pool = pool(64);
    for n in 0..60 {
        accept(&mut pool, now, net(1 + n as u16), false, n);
    }
    for n in 100..1000 {
        accept(&mut pool, now, net(0), true, n);
    }
    assert_eq!(pool.held_by(net(0)), pool.share());
}

#[test]
fn an_authentication_covers_who_is_here_already_but_not_everybody_without_an_address() {
    let now = Instant::now();
    let mut pool = pool(16);
    accept(&mut pool, now, net(0), false, 0);
    accept(&mut pool, now, Prefix::Unknown, false, 1);
    pool.on_authenticated(net(0));
    pool.on_authenticated(Prefix::Unknown);
    let gone: Vec<_> = (2..1000)
        .filter_map(|n| accept(&mut pool, now, net(n as u16), false, n).1)
        .collect();
    assert!(!gone.contains(&0));
    assert!(gone.contains(&1));
}

#[test]
fn eviction_is_by_lot_and_not_by_age() {
    let now = Instant::now();
    let mut by_age = [0; 16];
    for seed in 0..16_000 {
        let mut pool = pool(16);
        for n in 0..16 {
            accept(&mut pool, now, net(n as u16), false, n);
        }
        let (_, gone) = pool.on_accept(now, net(99), false, 99, seed);
        by_age[gone.expect("was full") as usize] += 1;
    }
    assert!(by_age.iter().all(|n| (850..1150).contains(n)), "{by_age:?}");
}

#[test]
fn a_lack_of_descriptors_takes_as_many_as_asked_for_or_all_there_are() {
    let now = Instant::now();
    let mut pool = pool(128);
    for n in 0..100 {
        accept(&mut pool, now, net(n as u16), n < 50, n);
    }
    let gone = pool.evict(EVICTED_FOR_DESCRIPTORS, 7);
    assert_eq!(gone.len(), 64);
    assert_eq!(gone.iter().filter(|n| **n >= 50).count(), 50, "strangers first");
    assert_eq!(pool.evict(EVICTED_FOR_DESCRIPTORS, 7).len(), 36);
    assert!(pool.evict(EVICTED_FOR_DESCRIPTORS, 7).is_empty());
}

#[test]
fn a_knock_goes_through_its_states_and_out() {
    let mut pool = pool(8);
    let (slot, _) = accept(&mut pool, Instant::now(), net(1), false, 1);
    assert_eq!(pool.on_event(slot, Event::Admitted), Action::Nothing);
    assert_eq!(pool.on_event(slot, Event::Knocked), Action::Nothing);
    assert_eq!(pool.on_event(slot, Event::Head), Action::Open);
    assert_eq!(pool.on_event(slot, Event::Head), Action::Nothing);
    assert_eq!(pool.on_event(slot, Event::Undecided), Action::ReadHead);
    assert_eq!(pool.on_event(slot, Event::Undecided), Action::Nothing);
    assert_eq!(pool.on_event(slot, Event::Head), Action::Open);
    assert_eq!(
        pool.on_event(slot, Event::Admitted),
        Action::ReadFlight { displaced: None }
    );
    assert_eq!(pool.flights(), 1);
    assert_eq!(pool.on_event(slot, Event::Knocked), Action::Answer);
    assert_eq!(
        (pool.len(), pool.flights()),
        (1, 0),
        "it keeps its place until it is through"
    );
    assert_eq!(pool.remove(slot), Some(1));
    assert_eq!(pool.on_event(slot, Event::Ended), Action::Nothing);
    assert_eq!(pool.len(), 0);
}

#[test]
fn who_was_answered_and_fails_is_drained_until_the_same_deadline_as_everybody() {
    let start = Instant::now();
    let mut pool = pool(8);
    let (slot, _) = accept(&mut pool, start, net(1), false, 1);
    for event in [Event::Head, Event::Knocked] {
        pool.on_event(slot, event);
    }
    assert_eq!(pool.on_event(slot, Event::Refused), Action::Drain);
    assert_eq!(pool.pop_expired(start + T - Duration::from_nanos(1), |_| false), None);
    assert_eq!(pool.pop_expired(start + T, |_| false), Some(1));
}

#[test]
fn who_is_being_answered_may_stay_and_keeps_its_place_until_it_is_through_or_fails_or_has_to_go() {
    let start = Instant::now();
    let mut pool = pool(4);
    let slots: Vec<_> = (1..=3)
        .map(|n| {
            let (slot, _) = accept(&mut pool, start, net(n as u16), false, n);
            for event in [Event::Head, Event::Knocked] {
                pool.on_event(slot, event);
            }
            slot
        })
        .collect();
    accept(&mut pool, start, net(4), false, 4);
    let mut asked = Vec::new();
    let mut expire = |pool: &mut Pool<u32>| {
        pool.pop_expired(start + T, |n| {
            asked.push(*n);
            *n != 2
        })
    };
    assert_eq!(expire(&mut pool), Some(2));
    assert_eq!(expire(&mut pool), Some(4));
    assert_eq!(expire(&mut pool), None);
    assert_eq!(asked, [1, 2, 3], "only those that are being answered");
    assert_eq!((pool.len(), pool.next_timeout()), (2, None));
    assert_eq!(pool.on_event(slots[0], Event::Refused), Action::Close(1));
    for n in 5..=7 {
        accept(&mut pool, start + T, net(n), false, n.into());
    }
    assert_eq!(pool.len(), 4, "it is one of them");
    assert_eq!(pool.remove(slots[2]), Some(3), "it is through");
    assert_eq!(pool.len(), 3);
}

#[test]
fn who_was_refused_is_never_listened_to_again() {
    let mut pool = pool(8);
    let (slot, _) = accept(&mut pool, Instant::now(), net(1), false, 1);
    pool.on_event(slot, Event::Head);
    assert_eq!(pool.on_event(slot, Event::Refused), Action::Drain);
    for event in [Event::Head, Event::Admitted, Event::Knocked, Event::Refused] {
        assert_eq!(pool.on_event(slot, event), Action::Nothing);
    }
    assert_eq!(pool.on_event(slot, Event::Ended), Action::Close(1));
}

#[test]
fn there_are_256_buffers_and_the_one_that_waited_longest_gives_its_own_up() {
    let now = Instant::now();
    let mut pool = pool(1024);
    let mut admit = |n: u32| {
        let (slot, _) = accept(&mut pool, now, net(n as u16), false, n);
        pool.on_event(slot, Event::Head);
        (slot, pool.on_event(slot, Event::Admitted))
    };
    let slots: Vec<_> = (0..MAX_FLIGHTS as u32).map(|n| admit(n).0).collect();
    let (_, action) = admit(1000);
    assert_eq!(
        action,
        Action::ReadFlight {
            displaced: Some(slots[0])
        }
    );
    assert_eq!(pool.flights(), MAX_FLIGHTS);
    assert_eq!(pool.on_event(slots[0], Event::Knocked), Action::Nothing);
    // Every way out gives the buffer back.
    pool.on_event(slots[1], Event::Refused);
    pool.on_event(slots[2], Event::Ended);
    pool.on_event(slots[3], Event::Knocked);
    pool.remove(slots[4]);
    assert_eq!(pool.flights(), MAX_FLIGHTS - 4);
    while pool.pop_expired(now + T, |_| false).is_some() {}
    assert_eq!((pool.len(), pool.flights()), (0, 0));
}

#[test]
fn a_listener_takes_its_own_along() {
    let now = Instant::now();
    let mut pool = pool(8);
    for n in 0..6 {
        accept(&mut pool, now, net(n as u16), n % 3 == 0, n);
    }
    let mut gone = pool.remove_where(|n| n % 2 == 0);
    gone.sort();
    assert_eq!(gone, [0, 2, 4]);
    assert_eq!(pool.len(), 3);
}
