//! The background looks again whenever there may be a peer to close.

use super::*;
use crate::TrimTarget;

/// Trims in the background every 3 s.
fn node(low: usize, high: usize, grace: Duration) -> Node {
    let config = Config::new(low, high).unwrap().with_grace_period(grace);
    Node::new(config.with_silence_period(3 * SECOND).unwrap())
}

fn accept(node: &mut Node, peer: PeerId) -> ConnectionId {
    node.connect_as(peer, inbound()).unwrap()
}

fn accept_new(node: &mut Node) -> PeerId {
    let peer = PeerId::random();
    accept(node, peer);
    peer
}

/// Second by second, as a Swarm's timer would have it.
fn wait(node: &mut Node, seconds: u64) {
    for _ in 0..seconds {
        node.advance(SECOND);
    }
}

/// Two connections of a protected peer and one of another, all past grace: a trim finds too few
/// candidates.
fn fruitless() -> (Node, PeerId) {
    let mut node = node(1, 3, 20 * SECOND);
    let friend = PeerId::random();
    node.manager.protect(&friend, "friend");
    accept(&mut node, friend);
    accept(&mut node, friend);
    accept_new(&mut node);
    wait(&mut node, 65);
    assert_eq!(node.count(), 3);
    (node, friend)
}

#[test]
fn newcomers_are_trimmed_after_a_trim_that_found_too_few_candidates() {
    let (mut node, _) = fruitless();
    for _ in 0..7 {
        accept_new(&mut node);
    }
    wait(&mut node, 3_600);
    assert_eq!(node.count(), 3);
}

#[test]
fn newcomers_are_trimmed_after_a_trim_on_demand_that_found_too_few_candidates() {
    let (mut node, _) = fruitless();
    for _ in 0..7 {
        accept_new(&mut node);
        assert_eq!(node.trim(), Trimmed::default());
    }
    wait(&mut node, 3_600);
    assert_eq!(node.count(), 3);
}

#[test]
fn thousands_of_newcomers_are_trimmed_with_the_defaults() {
    let mut node = Node::new(Config::new(160, 192).unwrap());
    for at in 0..195 {
        let peer = accept_new(&mut node);
        if at < 40 {
            node.manager.protect(&peer, "friend");
        }
    }
    wait(&mut node, 80);
    for _ in 0..3_800 {
        accept_new(&mut node);
    }
    assert_eq!(node.count(), 3_995);
    for _ in 0..24 * 60 {
        node.advance(60 * SECOND);
    }
    assert_eq!(node.count(), 200, "160 candidates and 40 protected peers");
}

/// A trim that has begun and will find no candidate, and peers in parts that it has looked at
/// already.
fn trim_that_has_passed(node: &mut Node) -> (Trimming, Vec<PeerId>) {
    let passed: Vec<_> = std::iter::repeat_with(PeerId::random)
        .filter(|peer| node.behaviour.shard_of(peer) < 16)
        .take(10)
        .collect();
    // More records than one slice looks at, so that a trim takes several.
    for _ in 0..6_000 {
        node.manager.tag_peer(&PeerId::random(), "tag", 1);
    }
    let trimming = node.manager.trim_open_conns();
    assert!(node.poll_once(), "a first slice, of several");
    (trimming, passed)
}

#[test]
fn newcomers_that_arrive_behind_a_trim_that_runs_are_looked_at() {
    let mut node = node(1, 3, 20 * SECOND);
    for _ in 0..3 {
        let friend = accept_new(&mut node);
        node.manager.protect(&friend, "friend");
    }
    wait(&mut node, 30);
    let (trimming, newcomers) = trim_that_has_passed(&mut node);
    for newcomer in newcomers {
        node.enter(newcomer, inbound()).unwrap();
    }
    assert_eq!(node.finish(trimming), Trimmed::default());
    wait(&mut node, 60);
    assert_eq!(node.count(), 3 + 1);
}

#[test]
fn peers_that_are_released_behind_a_trim_that_runs_are_looked_at() {
    let mut node = node(1, 3, Duration::ZERO);
    node.run();
    let (trimming, friends) = trim_that_has_passed(&mut node);
    node.finish(trimming);
    for friend in &friends {
        node.manager.protect(friend, "friend");
        accept(&mut node, *friend);
    }
    wait(&mut node, 30);
    let trimming = node.manager.trim_open_conns();
    assert!(node.poll_once(), "a first slice, of several");
    for friend in &friends {
        node.manager.unprotect(friend, "friend");
    }
    assert_eq!(node.finish(trimming), Trimmed::default());
    wait(&mut node, 60);
    assert_eq!(node.count(), 1);
}

#[test]
fn whatever_makes_a_candidate_makes_the_background_look_again() {
    // Each of these when only protected peers are past grace, and no peer is in it.
    type Make = fn(&mut Node, PeerId);
    let cases: [(&str, Make); 5] = [
        ("protection ends", |node, peer| {
            node.manager.unprotect(&peer, "friend");
        }),
        ("a newcomer's grace ends", |node, _| {
            for _ in 0..3 {
                accept_new(node);
            }
        }),
        ("an old peer connects again", |node, _| {
            let old = accept_new(node);
            node.advance(20 * SECOND);
            accept(node, old);
            accept(node, old);
        }),
        ("a use ends", |node, peer| {
            let guard = node.manager.in_use(&peer);
            node.manager.unprotect(&peer, "friend");
            node.advance(10 * SECOND);
            drop(guard);
        }),
        ("a dial ends", |node, peer| {
            let dial = ConnectionId::new_unchecked(1_000);
            node.behaviour
                .handle_pending_outbound_connection(dial, Some(peer), &[], Endpoint::Listener)
                .unwrap();
            node.manager.unprotect(&peer, "friend");
            node.advance(10 * SECOND);
            node.behaviour
                .on_swarm_event(FromSwarm::DialFailure(libp2p_swarm::DialFailure {
                    peer_id: Some(peer),
                    error: &libp2p_swarm::DialError::Aborted,
                    connection_id: dial,
                }));
        }),
    ];
    for target in [TrimTarget::Eligible, TrimTarget::Total] {
        for (what, make) in &cases {
            let config = Config::new(1, 3).unwrap().with_grace_period(20 * SECOND);
            let config = config.with_silence_period(3 * SECOND).unwrap().with_trim_target(target);
            let mut node = Node::new(config);
            let friend = PeerId::random();
            node.manager.protect(&friend, "friend");
            for _ in 0..3 {
                accept(&mut node, friend);
            }
            wait(&mut node, 65);
            assert!(node.told.is_empty(), "{what}");
            make(&mut node, friend);
            node.run();
            wait(&mut node, 3_600);
            assert!(!node.told.is_empty(), "{what} and no trim, target {target:?}");
        }
    }
}

#[test]
fn churn_of_newcomers_does_not_put_the_next_look_off() {
    let (mut node, _) = fruitless();
    // One a second; each has 20 s of grace.
    for _ in 0..40 {
        accept_new(&mut node);
        node.advance(SECOND);
    }
    // At most those in grace, those that came since the last tick, and what may stay.
    assert!(node.count() <= 20 + 3 + 3, "{} connections", node.count());
}
