//! Who goes first.

use super::*;
use std::cmp::Reverse;
use std::collections::HashSet;

/// In which order a trim for memory closes what is connected, all but the last, which stays.
fn forced_order(node: &mut Node) -> Vec<PeerId> {
    node.force_trim();
    node.trimmed().into_iter().map(|(peer, _)| peer).collect()
}

#[test]
fn cm21a_early_records_go_before_connections() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let early = PeerId::random();
    node.manager.tag_peer(&early, "tag", i64::MAX);
    let peers = node.connect_many(2);
    node.trim();
    assert_eq!(node.manager.tag_info(&early), None);
    assert!(node.is_open(peers[0]) && !node.is_open(peers[1]));
}

#[test]
fn cm21b_a_lower_value_goes_before_a_higher_one() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peers = node.connect_many(2);
    node.manager.tag_peer(&peers[0], "tag", 20);
    node.manager.tag_peer(&peers[1], "tag", 40);
    node.trim();
    assert_eq!(node.trimmed(), [(peers[0], Reason::OnDemand)]);
}

#[test]
fn cm21c_a_peer_without_streams_goes_before_one_with_a_stream() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (idle, _a) = node.connect_counted(&[(outbound(), 0)]);
    let (busy, _b) = node.connect_counted(&[(outbound(), 1)]);
    node.trim();
    assert!(!node.is_open(idle) && node.is_open(busy));
}

#[test]
fn cm21d_under_pressure_idle_peers_go_then_inbound_ones_then_those_with_most_streams() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (p1, _a) = node.connect_counted(&[(outbound(), 1)]);
    let (p2, _b) = node.connect_counted(&[(outbound(), 1), (inbound(), 0)]);
    let (p3, _c) = node.connect_counted(&[(outbound(), 0), (inbound(), 0)]);
    let (p4, _d) = node.connect_counted(&[(outbound(), 2), (inbound(), 0)]);
    assert_eq!(forced_order(&mut node), [p3, p4, p2]);
    assert!(node.is_open(p1));
}

#[test]
fn cm21e_under_pressure_streams_are_summed_over_connections() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (one, _a) = node.connect_counted(&[(outbound(), 100)]);
    let (two, _b) = node.connect_counted(&[(outbound(), 80), (outbound(), 40)]);
    assert_eq!(forced_order(&mut node), [two]);
    assert!(node.is_open(one));
}

#[test]
fn nt13_inbound_goes_before_outbound_and_fewer_streams_before_more() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (dialled, _a) = node.connect_counted(&[(outbound(), 1)]);
    let (both, _b) = node.connect_counted(&[(outbound(), 3), (inbound(), 0)]);
    let (accepted, _c) = node.connect_counted(&[(inbound(), 2)]);
    node.trim();
    let order: Vec<_> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(order, [accepted, both]);
    assert!(node.is_open(dialled));
}

#[test]
fn among_equals_the_longest_idle_goes_first_and_then_the_youngest() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (quiet, _a) = node.connect_counted(&[(outbound(), 1)]);
    node.advance(5 * SECOND);
    let (lively, activity) = node.connect_counted(&[(outbound(), 1)]);
    node.advance(5 * SECOND);
    activity[0].touch(node.clock.now());
    let (young, _c) = node.connect_counted(&[(outbound(), 1)]);
    node.trim();
    let order: Vec<_> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(order, [quiet, young]);
    assert!(node.is_open(lively));
}

#[test]
fn without_counted_streams_value_direction_and_age_decide() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let mut peers = Vec::new();
    for endpoint in [outbound(), inbound(), outbound(), inbound()] {
        let peer = PeerId::random();
        node.connect_as(peer, endpoint).unwrap();
        node.advance(SECOND);
        peers.push(peer);
    }
    node.trim();
    let order: Vec<_> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(order, [peers[3], peers[1], peers[2]]);
}

#[test]
fn the_order_is_the_same_each_time_however_many_are_equal() {
    let orders: Vec<Vec<usize>> = (0..3)
        .map(|_| {
            let mut node = Node::with(1, 1, Duration::ZERO);
            let peers = node.connect_many(50);
            node.trim();
            let place = |peer| peers.iter().position(|known| *known == peer).unwrap();
            node.trimmed().into_iter().map(|(peer, _)| place(peer)).collect()
        })
        .collect();
    assert_eq!(orders[0], (1..50).rev().collect::<Vec<_>>());
    assert!(orders.iter().all(|order| *order == orders[0]));
}

#[test]
fn an_order_of_the_users_replaces_ours() {
    let config = quiet(2, 2, Duration::ZERO).unwrap();
    // Whoever has fewest connections goes first, and of those the oldest.
    let config = config.with_order(|candidate| {
        let age = i64::try_from(candidate.age.as_secs()).unwrap();
        (i64::try_from(candidate.connections).unwrap(), -age)
    });
    let mut node = Node::new(config);
    let two = node.connect_new();
    node.connect(two);
    node.advance(SECOND);
    let old = node.connect_new();
    node.advance(SECOND);
    let young = node.connect_new();
    node.manager.tag_peer(&old, "tag", 100);
    node.trim();
    let order: Vec<_> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(order, [old, young]);
    assert!(node.is_open(two));
}

#[test]
fn an_order_that_panics_puts_the_peer_in_the_middle_and_harms_nobody() {
    let config = quiet(1, 1, Duration::ZERO).unwrap().with_order(|candidate| {
        assert!(candidate.value != 7, "seven");
        (candidate.value, 0)
    });
    let mut node = Node::new(config);
    let peers = node.connect_many(3);
    for (peer, value) in peers.iter().zip([-1, 7, 1]) {
        node.manager.tag_peer(peer, "tag", value);
    }
    assert_eq!(node.trim(), Trimmed { closed: 2, stuck: 0 });
    assert_eq!(
        node.trimmed(),
        [(peers[0], Reason::OnDemand), (peers[1], Reason::OnDemand)]
    );
    node.manager.tag_peer(&peers[2], "tag", 2);
    assert_eq!(node.value(peers[2]), 2);
}

#[test]
fn an_order_of_the_users_may_call_the_manager() {
    let handle: Arc<Mutex<Option<Manager>>> = Arc::default();
    let own = handle.clone();
    let config = quiet(1, 1, Duration::ZERO).unwrap().with_order(move |candidate| {
        let manager = own.lock().unwrap().clone().unwrap();
        manager.tag_peer(&candidate.peer, "seen", 1);
        (manager.tag_info(&candidate.peer).map_or(0, |info| info.value), 0)
    });
    let mut node = Node::new(config);
    *handle.lock().unwrap() = Some(node.manager.clone());
    let peers = node.connect_many(2);
    node.manager.tag_peer(&peers[1], "tag", 3);
    node.trim();
    assert_eq!(node.trimmed(), [(peers[0], Reason::OnDemand)]);
    assert_eq!(node.value(peers[1]), 4);
}

/// More than make a sample, of which an eighth has to go. Some have two connections.
fn crowd() -> (Node, Vec<PeerId>) {
    let mut node = Node::with(35_000, 50_000, Duration::ZERO);
    let peers = node.connect_many(39_000);
    for peer in peers.iter().step_by(39) {
        node.connect(*peer);
    }
    (node, peers)
}

fn tag_all(node: &Node, peers: &[PeerId], value: impl Fn(usize) -> i64) {
    for (at, peer) in peers.iter().enumerate() {
        node.manager.tag_peer(peer, "value", value(at));
    }
}

/// Whom a trim of [`crowd`] has to close, one look at everybody and a sort: the least valuable, of those the youngest.
fn least(peers: &[PeerId], value: impl Fn(usize) -> i64) -> HashSet<PeerId> {
    let age = |at: usize| if at.is_multiple_of(39) { peers.len() + at } else { at };
    let mut order: Vec<usize> = (0..peers.len()).collect();
    order.sort_by_key(|&at| (value(at), Reverse(age(at))));
    let mut excess = 5_000_usize;
    let going = order.into_iter().take_while(|at| {
        let goes = excess > 0;
        excess = excess.saturating_sub(if at.is_multiple_of(39) { 2 } else { 1 });
        goes
    });
    going.map(|at| peers[at]).collect()
}

#[test]
fn of_many_exactly_those_go_that_a_look_at_all_of_them_finds() {
    for value in [|at: usize| (at * 7 % 101) as i64, |_| 0, |at| at as i64] {
        let (mut node, peers) = crowd();
        tag_all(&node, &peers, value);
        assert!((5_000..5_002).contains(&node.trim().closed));
        let closed: HashSet<PeerId> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(closed, least(&peers, value));
    }
}

#[test]
fn of_many_enough_go_even_if_all_of_them_gain_after_the_first_were_looked_at() {
    let (mut node, peers) = crowd();
    tag_all(&node, &peers, |at| (at % 50) as i64);
    let trim = node.manager.trim_open_conns();
    // The first steps look at a sixteenth of them each, and some at the sample.
    for _ in 0..14 {
        assert!(node.poll_once());
    }
    assert!(node.told.is_empty());
    tag_all(&node, &peers, |at| 100 + (at * 7 % 101) as i64);
    assert!((5_000..5_002).contains(&node.finish(trim).closed));
    let closed: HashSet<PeerId> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(closed, least(&peers, |at| (at * 7 % 101) as i64));
}
