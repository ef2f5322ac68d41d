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
