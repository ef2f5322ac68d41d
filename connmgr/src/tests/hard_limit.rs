//! Evict to admit.

use super::*;
use crate::HardLimitReached;

fn node(limit: usize) -> Node {
    Node::new(quiet(1, limit, HOUR).unwrap().with_hard_limit(limit).unwrap())
}

fn denied(result: Result<ConnectionId, ConnectionDenied>) -> usize {
    result.unwrap_err().downcast::<HardLimitReached>().unwrap().limit
}

#[test]
fn a_stranger_finds_no_room_at_the_hard_limit() {
    let mut node = node(3);
    node.connect_many(3);
    let stranger = PeerId::random();
    assert_eq!(denied(node.connect_as(stranger, inbound())), 3);
    node.run();
    assert_eq!(node.events, [Event::Denied { peer: stranger }]);
    assert!(node.told.is_empty());
}

#[test]
fn the_least_valuable_goes_for_a_more_valuable_newcomer() {
    let mut node = node(3);
    let peers = node.connect_many(3);
    for (peer, value) in peers.iter().zip([5, 3, 8]) {
        node.manager.tag_peer(peer, "tag", value);
    }
    let newcomer = PeerId::random();
    node.manager.tag_peer(&newcomer, "tag", 3);
    assert_eq!(
        denied(node.connect_as(newcomer, outbound())),
        3,
        "worth as much is not worth more"
    );
    node.manager.tag_peer(&newcomer, "tag", 4);
    node.connect_as(newcomer, inbound()).unwrap();
    assert_eq!(node.trimmed(), [(peers[1], Reason::HardLimit)]);
    assert_eq!(node.count(), 3);
}

#[test]
fn a_protected_newcomer_takes_anybodys_place_but_a_protected_peers() {
    let mut node = node(2);
    let peers = node.connect_many(2);
    node.manager.tag_peer(&peers[0], "tag", i64::MAX);
    node.manager.protect(&peers[1], "tag");
    let friend = PeerId::random();
    node.manager.protect(&friend, "tag");
    node.connect_as(friend, inbound()).unwrap();
    assert_eq!(node.trimmed(), [(peers[0], Reason::HardLimit)]);
    let another = PeerId::random();
    node.manager.protect(&another, "tag");
    assert_eq!(denied(node.connect_as(another, inbound())), 2);
}

#[test]
fn a_dialled_newcomer_takes_an_accepted_ones_place() {
    let mut node = node(2);
    let accepted = PeerId::random();
    node.connect_new();
    node.connect_as(accepted, inbound()).unwrap();
    node.connect_new();
    assert_eq!(node.trimmed(), [(accepted, Reason::HardLimit)]);
    assert_eq!(denied(node.connect_as(PeerId::random(), outbound())), 2);
}

#[test]
fn many_newcomers_leave_exactly_as_many_as_the_limit() {
    let mut node = node(200);
    node.connect_many(200);
    for value in 1..=500 {
        let peer = PeerId::random();
        node.manager.tag_peer(&peer, "tag", value);
        node.connect_as(peer, inbound()).unwrap();
        assert_eq!(node.count(), 200);
    }
    // The 200 most valuable are left.
    let mut left: Vec<_> = node.connections.values().map(|(peer, _)| node.value(*peer)).collect();
    left.sort_unstable();
    assert_eq!(left, (301..=500).collect::<Vec<_>>());
}

#[test]
fn an_order_of_the_users_decides_who_is_worth_more() {
    let config = quiet(1, 2, HOUR).unwrap().with_hard_limit(2).unwrap();
    let mut node = Node::new(config.with_order(|candidate| (-candidate.value, 0)));
    let peers = node.connect_many(2);
    node.manager.tag_peer(&peers[0], "tag", 9);
    node.manager.tag_peer(&peers[1], "tag", 5);
    node.connect_as(PeerId::random(), inbound()).unwrap();
    assert_eq!(node.trimmed(), [(peers[0], Reason::HardLimit)]);
}

#[test]
fn the_hard_cap_hook_lets_in_whom_the_behaviour_may_find_room_for() {
    let mut node = node(2);
    let cap = node.manager.hard_cap();
    let stranger = PeerId::random();
    assert!(cap(&stranger, &inbound()).is_ok());
    node.connect_many(2);
    let error = cap(&stranger, &inbound()).unwrap_err();
    assert_eq!(error.downcast_ref::<HardLimitReached>().unwrap().limit, 2);
    node.manager.tag_peer(&stranger, "tag", 1);
    assert!(cap(&stranger, &inbound()).is_ok());
    node.manager.untag_peer(&stranger, "tag");
    node.manager.protect(&stranger, "tag");
    assert!(cap(&stranger, &inbound()).is_ok());
    let (_, unlimited) = crate::new(Config::disabled());
    assert!(unlimited.hard_cap()(&PeerId::random(), &inbound()).is_ok());
}

#[test]
fn a_flood_of_strangers_costs_a_bounded_number_of_looks() {
    let looks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let own = looks.clone();
    let config = quiet(1, 500, HOUR).unwrap().with_hard_limit(500).unwrap();
    let mut node = Node::new(config.with_order(move |candidate| {
        own.fetch_add(1, Ordering::Relaxed);
        (candidate.value, 0)
    }));
    node.connect_many(500);
    for _ in 0..10_000 {
        assert_eq!(denied(node.connect_as(PeerId::random(), inbound())), 500);
    }
    // The clock stands still: the first looked at 500 peers, and the others at none but themselves.
    assert!(looks.load(Ordering::Relaxed) <= 10_000 + 500);
}

/// As a Swarm does when another behaviour denies what the manager has let pass.
fn deny_afterwards(node: &mut Node, peer: PeerId, endpoint: &ConnectedPoint) {
    let id = ConnectionId::new_unchecked(node.next);
    node.next += 1;
    node.handle_established(id, peer, endpoint).unwrap();
    let cause = ConnectionDenied::new(std::io::Error::other("a gate"));
    match endpoint {
        ConnectedPoint::Dialer { .. } => {
            let error = &libp2p_swarm::DialError::Denied { cause };
            node.behaviour
                .on_swarm_event(FromSwarm::DialFailure(libp2p_swarm::DialFailure {
                    peer_id: Some(peer),
                    error,
                    connection_id: id,
                }));
        }
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => {
            let error = &libp2p_swarm::ListenError::Denied { cause };
            node.behaviour
                .on_swarm_event(FromSwarm::ListenFailure(libp2p_swarm::ListenFailure {
                    local_addr,
                    send_back_addr,
                    error,
                    connection_id: id,
                    peer_id: Some(peer),
                }));
        }
    }
    node.run();
}

#[test]
fn a_newcomer_that_another_behaviour_denies_costs_nobody_a_place() {
    for endpoint in [inbound(), outbound()] {
        let mut node = node(2);
        let friends: Vec<_> = (0..2)
            .map(|_| {
                let friend = PeerId::random();
                node.connect_as(friend, inbound()).unwrap();
                friend
            })
            .collect();
        let newcomer = PeerId::random();
        node.manager.tag_peer(&newcomer, "tag", 100);
        for _ in 0..10 {
            deny_afterwards(&mut node, newcomer, &endpoint);
        }
        assert_eq!((node.told.len(), node.events.len()), (0, 0), "{endpoint:?}");
        assert!(friends.iter().all(|friend| node.is_open(*friend)));
        // And once it is in, one of them goes.
        node.connect_as(newcomer, endpoint).unwrap();
        assert_eq!((node.told.len(), node.count()), (1, 2));
    }
}

/// A full node on which nothing that is told to close does, and one of whose newcomers is worth
/// more than anybody.
fn slow(limit: usize) -> (Node, impl Fn(&Node) -> PeerId) {
    let mut node = node(limit).unwired();
    node.connect_many(limit);
    let friend = |node: &Node| {
        let friend = PeerId::random();
        node.manager.protect(&friend, "friend");
        friend
    };
    (node, friend)
}

#[test]
fn what_is_closing_counts_and_its_places_are_given_away_once_and_an_eighth_of_them_ahead() {
    for (limit, ahead) in [(1, 1), (2, 1), (8, 1), (24, 3)] {
        let (mut node, friend) = slow(limit);
        for _ in 0..ahead {
            let newcomer = friend(&node);
            node.connect_as(newcomer, inbound()).unwrap();
            assert_eq!(node.count(), limit);
        }
        // However valuable a newcomer is: nothing has closed yet.
        for _ in 0..10 {
            let newcomer = friend(&node);
            assert_eq!(denied(node.connect_as(newcomer, inbound())), limit);
            let cap = node.manager.hard_cap();
            assert!(cap(&newcomer, &inbound()).is_err());
        }
        let info = node.manager.info();
        assert_eq!((info.connections, info.closing), (limit, ahead));
        assert_eq!(node.told.len(), ahead);
        node.release();
        if limit > ahead {
            let newcomer = friend(&node);
            node.connect_as(newcomer, inbound()).unwrap();
        }
        assert!(node.connections.len() <= limit + ahead);
    }
}

#[test]
fn connections_that_a_trim_closes_hold_their_places_until_they_are_gone() {
    let (mut node, friend) = slow(16);
    node.clock.advance(2 * HOUR);
    let _trim = node.manager.trim_open_conns();
    node.run();
    assert_eq!((node.told.len(), node.manager.info().closing), (15, 15));
    // A stranger has to wait; two friends have the eighth, and no peer has to go for them.
    assert_eq!(denied(node.connect_as(PeerId::random(), inbound())), 16);
    for _ in 0..2 {
        let newcomer = friend(&node);
        node.connect_as(newcomer, inbound()).unwrap();
    }
    let newcomer = friend(&node);
    assert_eq!(denied(node.connect_as(newcomer, inbound())), 16);
    assert_eq!(node.told.len(), 15);
    node.release();
    for _ in 0..13 {
        node.connect_as(PeerId::random(), inbound()).unwrap();
    }
    assert_eq!(denied(node.connect_as(PeerId::random(), inbound())), 16);
    assert_eq!(node.connections.len(), 16);
}

#[test]
fn if_nobody_can_go_any_more_the_newcomer_does() {
    let mut node = node(2);
    let peers = node.connect_many(2);
    let (newcomer, id) = (PeerId::random(), ConnectionId::new_unchecked(77));
    node.manager.protect(&newcomer, "friend");
    node.handle_established(id, newcomer, &inbound()).unwrap();
    // Another thread protects them before the newcomer is in.
    for peer in &peers {
        node.manager.protect(peer, "friend");
    }
    node.connections.insert(id, (newcomer, inbound()));
    node.by_peer.entry(newcomer).or_default().push(id);
    node.established(id, newcomer, &inbound());
    node.run();
    assert_eq!(node.trimmed(), [(newcomer, Reason::HardLimit)]);
    assert_eq!((node.told.clone(), node.count()), (vec![id], 2));
    assert!(peers.iter().all(|peer| node.is_open(*peer)));
}

#[test]
fn whoever_has_gained_value_since_the_last_look_does_not_have_to_go() {
    let mut node = node(4);
    let peers = node.connect_many(4);
    for (peer, value) in peers.iter().zip([1, 2, 3, 4]) {
        node.manager.tag_peer(peer, "tag", value);
    }
    // A look at everybody.
    assert_eq!(denied(node.connect_as(PeerId::random(), inbound())), 4);
    node.manager.tag_peer(&peers[0], "tag", 100);
    let newcomer = PeerId::random();
    node.manager.tag_peer(&newcomer, "tag", 50);
    node.connect_as(newcomer, inbound()).unwrap();
    assert_eq!(node.trimmed(), [(peers[1], Reason::HardLimit)]);
    // A peer that came since the last look does not stay for that, once time has passed.
    node.clock.advance(SECOND);
    let poor = PeerId::random();
    node.disconnect_peer(peers[2]);
    node.connect_as(poor, inbound()).unwrap();
    let another = PeerId::random();
    node.manager.tag_peer(&another, "tag", 50);
    node.connect_as(another, inbound()).unwrap();
    assert_eq!(node.trimmed()[1..], [(poor, Reason::HardLimit)]);
}
