//! A number of connections, from the peers that are known.

use super::*;

#[test]
fn the_target_is_filled_from_known_peers_and_regained_after_losses() {
    let config = Config::new().with_target_connections(5).with_max_dials(at_most(4));
    let mut bench = Bench::new(config);
    for port in 1..=8 {
        bench.peers.add_known(bench.now, PeerId::random(), vec![address(port)]);
    }
    let mut connections = HashMap::new();
    while let Some((peer, dial, _)) = bench.dials().pop() {
        bench.established(peer, dial, true);
        connections.insert(peer, dial);
        if bench.peers.connected() == 5 {
            break;
        }
        // Those that the line above has left under way.
        let under_way: Vec<_> = bench.peers.dials.iter().map(|(id, peer)| (*id, *peer)).collect();
        for (dial, peer) in under_way {
            bench.established(peer, dial, true);
            connections.insert(peer, dial);
        }
    }
    assert_eq!(bench.peers.connected(), 5);
    assert!(bench.dialled().is_empty());
    assert_eq!(bench.peers.next_timeout(), None);

    bench.pass(60 * SECOND);
    let lost: Vec<PeerId> = connections.keys().copied().take(2).collect();
    for peer in &lost {
        bench.peers.closed(bench.now, peer, connections[peer]);
    }
    let dials = bench.dials();
    assert_eq!(dials.len(), 2);
    for (peer, dial, _) in dials {
        bench.established(peer, dial, true);
    }
    assert_eq!(bench.peers.connected(), 5);
    assert!(bench.dialled().is_empty());
    let edges = bench
        .events
        .iter()
        .filter(|event| matches!(event, Event::TargetMissed { .. } | Event::TargetReached { .. }));
    let edges: Vec<_> = edges.cloned().collect();
    assert_eq!(
        edges,
        [
            Event::TargetMissed { connected: 0 },
            Event::TargetReached { connected: 5 },
            Event::TargetMissed { connected: 4 },
            Event::TargetReached { connected: 5 },
        ]
    );
}

#[test]
fn known_peers_that_do_not_answer_are_tried_less_and_less_often() {
    let mut bench = Bench::new(Config::new().with_target_connections(1));
    bench.peers.add_known(bench.now, PeerId::random(), vec![address(1)]);
    let mut times = Vec::new();
    for _ in 0..5 {
        let (_, dial, at) = bench.until_dial().unwrap();
        times.push(at.as_secs());
        bench.failed(dial);
    }
    assert_eq!(times, [0, 1, 3, 7, 15]);
}

#[test]
fn a_peer_that_was_connected_is_known_if_it_can_be_found() {
    let mut bench = Bench::new(Config::new());
    let (found, lost) = (PeerId::random(), PeerId::random());
    for peer in [found, lost] {
        let id = bench.id();
        bench.established(peer, id, false);
    }
    bench.peers.set_target(bench.now, 2);
    bench.peers.claimed(bench.now, &found, address(1));
    bench.pass(60 * SECOND);
    for (peer, id) in [(found, 1), (lost, 2)] {
        bench.peers.closed(bench.now, &peer, ConnectionId::new_unchecked(id));
    }
    assert_eq!(bench.dialled(), [found]);
    assert!(!bench.peers.peers.contains_key(&lost));
}

#[test]
fn no_more_are_known_than_allowed_and_the_longest_known_go_first() {
    let config = Config::new().with_target_connections(1).with_max_known(3);
    let mut bench = Bench::new(config.with_max_dials(at_most(1)));
    let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
    for (peer, port) in peers.iter().zip(1..) {
        bench.peers.add_known(bench.now, *peer, vec![address(port)]);
    }
    // The first is being dialled; of the others the last three are left.
    assert_eq!(bench.dialled(), [peers[0]]);
    let known: Vec<PeerId> = bench.peers.known.values().copied().collect();
    assert_eq!(known, peers[3..]);
    assert_eq!(bench.peers.peers.len(), 4);
}
