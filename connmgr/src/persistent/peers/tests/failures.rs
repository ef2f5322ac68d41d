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
