//! What a dial or a loss means for the next dial.

use super::*;

#[test]
fn a_peer_that_ends_every_connection_after_a_while_is_dialled_less_and_less_often() {
    for lasts in [10, 30, 59] {
        let mut bench = Bench::new(Config::new());
        let peer = bench.want();
        let mut pauses = Vec::new();
        let mut lost = bench.start;
        for _ in 0..7 {
            let (_, dial, at) = bench.until_dial().unwrap();
            pauses.push((bench.start + at - lost).as_secs());
            bench.established(peer, dial, true);
            bench.pass(lasts * SECOND);
            bench.peers.closed(bench.now, &peer, dial);
            lost = bench.now;
        }
        // Only the first loss is answered at once.
        assert_eq!(pauses, [0, 0, 1, 2, 4, 8, 16], "{lasts}");
        // One that lasts for long ends the series.
        let (_, dial, _) = bench.until_dial().unwrap();
        bench.established(peer, dial, true);
        bench.pass(60 * SECOND);
        bench.peers.closed(bench.now, &peer, dial);
        assert_eq!(bench.dialled(), [peer], "{lasts}");
    }
}

#[test]
fn a_denial_of_our_own_is_no_failure_and_waits_for_as_long_as_it_holds() {
    let mut bench = Bench::new(Config::new());
    bench.want();
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed(dial);
    let (_, dial, at) = bench.until_dial().unwrap();
    assert_eq!(at, SECOND);
    bench.failed_by(
        dial,
        Failure::Denied {
            early: true,
            wait: Some(30 * SECOND),
        },
    );
    let (_, dial, at) = bench.until_dial().unwrap();
    assert_eq!(at, 31 * SECOND);
    // Then it goes on where it was: this is the second failure.
    bench.failed(dial);
    assert_eq!(bench.until_dial().unwrap().2, 33 * SECOND);
    let failures = bench.events.iter().filter_map(|event| match event {
        Event::DialFailed { failures, retry_in, .. } => Some((*failures, retry_in.as_secs())),
        _ => None,
    });
    assert_eq!(failures.collect::<Vec<_>>(), [(1, 1), (1, 30), (2, 2)]);
}

#[test]
fn a_denial_that_does_not_say_for_how_long_is_tried_again_and_again() {
    for (early, expected) in [
        (true, [0, 1, 3, 7, 15, 30, 45, 60]),
        (false, [0, 1, 3, 7, 15, 31, 63, 127]),
    ] {
        let mut bench = Bench::new(Config::new());
        let peer = bench.want();
        let mut times = Vec::new();
        for _ in 0..expected.len() {
            let (_, dial, at) = bench.until_dial().unwrap();
            times.push(at.as_secs());
            bench.failed_by(dial, Failure::Denied { early, wait: None });
        }
        assert_eq!(times, expected);
        // It was no failure: the next one counts as the first.
        let (_, dial, _) = bench.until_dial().unwrap();
        bench.failed(dial);
        bench.dials();
        assert!(matches!(
            bench.events.last(),
            Some(Event::DialFailed { peer: of, failures: 1, .. }) if *of == peer
        ));
    }
}

#[test]
fn a_denial_waits_the_minimum_interval_at_least() {
    let mut bench = Bench::new(Config::new());
    bench.want();
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed_by(
        dial,
        Failure::Denied {
            early: true,
            wait: Some(Duration::ZERO),
        },
    );
    assert_eq!(bench.until_dial().unwrap().2, SECOND);
}

#[test]
fn new_addresses_do_not_wait_for_a_denial_either() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed_by(
        dial,
        Failure::Denied {
            early: true,
            wait: Some(Duration::MAX),
        },
    );
    bench.pass(2 * SECOND);
    bench.add(peer, vec![address(2)]);
    assert_eq!(bench.dialled(), [peer]);
}

#[test]
fn an_address_at_which_another_peer_answers_is_left_out_of_the_next_dial() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![address(1), address(2)]);
    bench.peers.claimed(bench.now, &peer, address(3));
    let (dial, addresses) = dial(&mut bench);
    assert_eq!(addresses.len(), 2, "the claim came later");
    bench.peers.wrong(bench.now, &peer, &of(peer, 1));
    bench.failed_by(dial, Failure::Misled);
    let (_, dial, at) = bench.until_dial().unwrap();
    assert_eq!(at, SECOND);
    // And nothing is tried that is only claimed.
    let tried = bench.peers.peers[&peer].dialling.clone().unwrap();
    assert_eq!(tried, [of(peer, 2)]);
    bench.failed(dial);
    bench.until_dial().unwrap();
    let tried = bench.peers.peers[&peer].dialling.clone().unwrap();
    assert_eq!(tried, [of(peer, 3), of(peer, 2)], "the next one tries claims again");
}

/// The one dial there must be, and what it tries.
fn dial(bench: &mut Bench) -> (ConnectionId, Vec<Multiaddr>) {
    let mut dials = bench.dials();
    assert_eq!(dials.len(), 1, "{dials:?}");
    let (_, id, addresses) = dials.remove(0);
    (id, addresses)
}

#[test]
fn eight_silent_addresses_leave_the_ninth_its_turn() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, (1..=9).map(address).collect());
    let (first, addresses) = dial(&mut bench);
    assert_eq!(addresses, (1..=8).map(|port| of(peer, port)).collect::<Vec<_>>());
    bench.failed(first);
    bench.until_dial().unwrap();
    let tried = bench.peers.peers[&peer].dialling.clone().unwrap();
    assert_eq!(tried[0], of(peer, 9));
}

#[test]
fn every_other_dial_in_vain_leaves_room_for_what_others_know() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, (1..=16).map(address).collect());
    let mut tried = Vec::new();
    for _ in 0..4 {
        let (_, dial, _) = bench.until_dial().unwrap();
        tried.push(bench.peers.peers[&peer].dialling.clone().unwrap().len());
        bench.failed(dial);
    }
    assert_eq!(tried, [8, 4, 8, 4]);
}

/// The next dial, and when it is made.
fn next_plan(bench: &mut Bench) -> (ConnectionId, Plan, Duration) {
    loop {
        while let Some(action) = bench.peers.next_action() {
            if let Action::Dial { peer, plan } = action {
                let id = bench.id();
                bench.peers.dialling(peer, id);
                return (id, plan, bench.now - bench.start);
            }
        }
        bench.now = bench.peers.next_timeout().unwrap().max(bench.now);
        bench.peers.timeout(bench.now);
    }
}

#[test]
fn the_only_address_is_tried_again_though_another_peer_answered_there() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    // For two hours another peer has the address.
    let hours = Duration::from_secs(7_200);
    loop {
        let (dial, plan, at) = next_plan(&mut bench);
        let tries = plan.addresses == [of(peer, 1)];
        if at >= hours && tries {
            let late = at - hours;
            assert!(
                late <= 2 * Duration::from_secs(300),
                "{late:?} after it was right again"
            );
            return;
        }
        if tries {
            bench.peers.wrong(bench.now, &peer, &of(peer, 1));
            bench.failed_by(dial, Failure::Misled);
        } else {
            bench.failed(dial);
        }
    }
}

#[test]
fn a_claim_is_tried_alone_after_another_peer_answered_at_what_others_know() {
    let mut bench = Bench::new(Config::new());
    let peer = PeerId::random();
    bench.add(peer, vec![]);
    bench.peers.claimed(bench.now, &peer, address(1));
    let (dial, plan, _) = next_plan(&mut bench);
    assert!(plan.extend);
    // At an address of another behaviour's, which will be a part of every dial that it extends.
    bench.peers.wrong(bench.now, &peer, &of(peer, 2));
    bench.failed_by(dial, Failure::Misled);
    let (_, plan, _) = next_plan(&mut bench);
    assert_eq!((plan.addresses, plan.extend), (vec![of(peer, 1)], false));
}

#[test]
fn a_dial_that_was_not_needed_does_not_forget_that_the_last_one_was_misled() {
    let mut bench = Bench::new(Config::new());
    bench.want();
    let (dial, ..) = next_plan(&mut bench);
    bench.failed_by(dial, Failure::Misled);
    for _ in 0..2 {
        let (dial, plan, _) = next_plan(&mut bench);
        assert!(!plan.extend, "only what can be trusted");
        bench.failed_by(dial, Failure::NotNeeded);
    }
}

#[test]
fn a_denial_from_before_a_connection_does_not_delay_the_dial_after_it() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed_by(
        dial,
        Failure::Denied {
            early: true,
            wait: Some(3600 * SECOND),
        },
    );
    // The rule is lifted, and the peer comes by itself.
    let theirs = bench.id();
    bench.established(peer, theirs, false);
    bench.dials();
    bench.pass(60 * SECOND);
    bench.peers.closed(bench.now, &peer, theirs);
    assert_eq!(bench.dialled(), [peer]);
}

#[test]
fn a_denial_that_is_over_does_not_make_up_for_a_connection_that_was_lost_at_once() {
    let mut bench = Bench::new(Config::new());
    let peer = bench.want();
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed(dial);
    let (_, dial, _) = bench.until_dial().unwrap();
    bench.failed_by(
        dial,
        Failure::Denied {
            early: true,
            wait: Some(2 * SECOND),
        },
    );
    let theirs = bench.id();
    bench.established(peer, theirs, false);
    bench.dials();
    bench.pass(5 * SECOND);
    bench.peers.closed(bench.now, &peer, theirs);
    bench.dials();
    let retry_in = bench.events.iter().rev().find_map(|event| match event {
        Event::Disconnected { retry_in, .. } => Some(retry_in.as_secs()),
        _ => None,
    });
    assert_eq!(retry_in, Some(2), "the second failure");
}
