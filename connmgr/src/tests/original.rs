//! The tests of go-libp2p's BasicConnMgr, ported. The name of each begins with its number in the list of the README.

use super::*;

/// A trim that cannot finish: the connections that it told to close do not.
fn stuck_node() -> Node {
    let mut node = Node::with(200, 300, Duration::ZERO).unwired();
    node.connect_many(201);
    node
}

fn is_over(trimming: &mut Trimming) -> bool {
    trimming.now_or_never().is_some()
}

#[test]
fn cm01_a_trim_lasts_until_its_connections_are_closed() {
    let mut node = stuck_node();
    let mut trims = [node.manager.trim_open_conns(), node.manager.trim_open_conns()];
    node.advance(ms(1));
    assert!(trims.iter_mut().all(|trim| !is_over(trim)));
    node.release();
    assert!(trims.iter_mut().all(is_over));
}

#[test]
fn cm02_a_trim_of_a_closed_manager_returns() {
    let mut node = stuck_node();
    node.manager.close();
    assert_eq!(node.trim(), Trimmed::default());
    assert!(node.told.is_empty());
}

#[test]
fn cm03_whoever_asks_while_a_trim_runs_gets_its_outcome() {
    let mut node = stuck_node();
    let mut first = node.manager.trim_open_conns();
    node.run();
    let mut later = [node.manager.trim_open_conns(), node.manager.trim_open_conns()];
    node.run();
    assert!(!is_over(&mut first) && later.iter_mut().all(|trim| !is_over(trim)));
    node.release();
    let expected = Some(Ok(Trimmed { closed: 1, stuck: 0 }));
    assert_eq!(first.now_or_never(), expected);
    assert!(later.into_iter().all(|trim| trim.now_or_never() == expected));
    assert_eq!(node.told.len(), 1, "there was one trim, not three");
}

#[test]
fn cm04_the_least_valuable_connections_are_closed() {
    let mut node = Node::with(200, 300, Duration::ZERO).unwired();
    let peers = node.connect_many(300);
    // (a)
    assert!(node.told.is_empty());
    for peer in &peers[..100] {
        node.manager.tag_peer(peer, "foo", 10);
    }
    let worst = peers[299];
    node.manager.tag_peer(&worst, "badfoo", -5);
    let _trim = node.manager.trim_open_conns();
    node.run();
    // (b), (c), and what the original does not check.
    assert!(peers[..100].iter().all(|peer| node.is_open(*peer)));
    assert!(!node.is_open(worst));
    assert_eq!(node.told.len(), 100);
    assert_eq!(node.trimmed()[0], (worst, Reason::OnDemand));
}

#[test]
fn cm05_nothing_is_closed_at_the_low_watermark_in_grace_or_when_disabled() {
    // (a), (b): zero is an error here, and never trimming has a name.
    for (low, high) in [(0, 10), (10, 0)] {
        assert_eq!(
            Config::new(low, high).err(),
            Some(ConfigError::ZeroWatermark { low, high })
        );
    }
    let mut disabled = Node::new(Config::disabled().with_grace_period(Duration::ZERO));
    disabled.connect_many(5);
    assert_eq!(disabled.trim(), Trimmed::default());
    assert_eq!(disabled.force_trim(), Trimmed::default());
    disabled.advance(HOUR);
    assert!(disabled.told.is_empty());
    // (c)
    let mut at_low = Node::with(1, 1, Duration::ZERO);
    at_low.connect_new();
    assert_eq!(at_low.trim(), Trimmed::default());
    // (d)
    let mut in_grace = Node::with(1, 1, ms(600_000));
    in_grace.connect_new();
    assert_eq!(in_grace.trim(), Trimmed::default());
    assert!(at_low.told.is_empty() && in_grace.told.is_empty());
}

#[test]
fn cm06_tag_info_tells_what_is_known() {
    let mut node = Node::with(1, 1, ms(600_000));
    // (a)
    assert_eq!(node.manager.tag_info(&PeerId::random()), None);
    let start = node.clock.now();
    node.clock.advance(SECOND);
    let peer = node.connect_new();
    node.clock.advance(SECOND);
    let end = node.clock.now();
    let info = node.info(peer);
    // (b)
    let first_seen = info.first_seen.unwrap();
    assert!(start < first_seen && first_seen < end);
    // (c)
    assert_eq!(info.value, 0);
    assert!(info.tags.is_empty() && info.decaying.is_empty());
    // (d)
    assert_eq!(info.connections.len(), 1);
    assert_eq!(info.connections[0].remote_address, address());
    assert!(start < info.connections[0].opened && info.connections[0].opened < end);
    node.manager.tag_peer(&peer, "tag", 5);
    let tagged = node.info(peer);
    // (e)
    assert_eq!(tagged.value, 5);
    assert_eq!(tagged.tags, BTreeMap::from([("tag".to_owned(), 5)]));
    // (f)
    assert_eq!(tagged.first_seen, info.first_seen);
    assert_eq!(tagged.connections, info.connections);
}

#[test]
fn cm07_tagging_an_unknown_peer_makes_an_early_record() {
    let node = Node::with(1, 1, Duration::ZERO);
    node.manager.tag_peer(&PeerId::random(), "test", 1);
    assert_eq!(node.manager.counts().early, 1);
    assert_eq!(node.manager.counts().peers(), 0);
}

#[test]
fn cm08_untagging_removes_only_what_was_set() {
    let mut node = Node::with(1, 1, ms(600_000));
    let peer = node.connect_new();
    node.manager.tag_peer(&peer, "tag", 5);
    node.manager.tag_peer(&peer, "tag two", 5);
    // (a)
    let stranger = PeerId::random();
    node.manager.untag_peer(&stranger, "test");
    assert_eq!(node.info(peer).tags.len(), 2);
    assert_eq!(node.manager.tag_info(&stranger), None);
    // (b)
    node.manager.untag_peer(&peer, "test");
    assert_eq!(node.info(peer).tags.len(), 2);
    // (c)
    node.manager.untag_peer(&peer, "tag");
    assert_eq!(node.info(peer).tags.len(), 1);
    assert_eq!(node.value(peer), 5);
}

#[test]
fn cm09_info_tells_settings_and_the_last_trim() {
    let grace = ms(600_000);
    let mut node = Node::with(1, 5, grace);
    node.connect_new();
    assert_eq!(node.manager.info().last_trim, None);
    node.clock.advance(SECOND);
    let start = node.clock.now();
    assert_eq!(node.trim(), Trimmed::default());
    node.clock.advance(SECOND);
    let info = node.manager.info();
    assert_eq!((info.high, info.low), (5, 1)); // (a), (b)
    assert_eq!(info.last_trim, Some(start)); // (c)
    assert_eq!(info.grace, grace); // (d)
    assert_eq!(info.connections, 1); // (e)
}

#[test]
fn cm10_a_connection_that_is_announced_twice_counts_once() {
    let mut node = Node::with(1, 5, ms(600_000));
    let peer = PeerId::random();
    let id = node.connect(peer);
    node.manager.tag_peer(&peer, "foo", 10);
    node.established(id, peer, &outbound());
    node.run();
    assert_eq!(node.count(), 1); // (a)
    assert_eq!(node.value(peer), 10); // (b)
}

#[test]
fn cm11_only_a_known_connection_can_close() {
    let mut node = Node::with(1, 5, Duration::ZERO);
    let peer = PeerId::random();
    let id = node.connect(peer);
    node.manager.tag_peer(&peer, "foo", 10);
    // (a)
    node.closed(ConnectionId::new_unchecked(77), PeerId::random(), &outbound());
    assert_eq!((node.count(), node.value(peer)), (1, 10));
    // (b)
    node.closed(ConnectionId::new_unchecked(77), peer, &outbound());
    assert_eq!((node.count(), node.value(peer)), (1, 10));
    // (c)
    node.disconnect(id);
    assert_eq!((node.count(), node.records()), (0, 0));
    assert_eq!(node.manager.tag_info(&peer), None);
}

#[test]
fn cm12_grace_spares_newcomers() {
    let mut node = Node::with(10, 20, ms(100));
    let first = node.connect_new();
    node.advance(ms(200));
    assert!(node.is_open(first)); // (a)
    node.connect_many(30);
    node.trim();
    assert!(node.told.is_empty()); // (b)
    node.advance(ms(200));
    assert_eq!(node.trim(), Trimmed { closed: 21, stuck: 0 }); // (c)
    assert_eq!(node.told.len(), 21);
}

#[test]
fn cm13_a_burst_is_not_trimmed_before_the_silence_period_is_over() {
    let mut node = Node::new(Config::new(10, 20).unwrap().with_grace_period(Duration::ZERO));
    node.connect_many(30);
    node.advance(3 * SECOND);
    assert_eq!(node.told.len(), 0); // (a): at most 20
    assert_eq!(node.told.len() + node.count(), 30); // (b)
    node.advance(7 * SECOND);
    assert_eq!(node.told.len(), 20);
    assert_eq!(node.told.len() + node.count(), 30);
}

/// 20 peers of value 20; the first 5 protected under `tags` and worth −100.
fn protected_node(tags: &[&str]) -> (Node, Vec<PeerId>) {
    let mut node = Node::with(19, 20, Duration::ZERO);
    let peers = node.connect_many(20);
    for peer in &peers {
        node.manager.tag_peer(peer, "test", 20);
    }
    for peer in &peers[..5] {
        for tag in tags {
            node.manager.protect(peer, tag);
        }
        node.manager.tag_peer(peer, "test", -100);
    }
    (node, peers[..5].to_vec())
}

fn connect_valued(node: &mut Node, count: usize) {
    for peer in node.connect_many(count) {
        node.manager.tag_peer(&peer, "test", 20);
    }
}

#[test]
fn cm14_a_protected_peer_is_spared_until_it_no_longer_is() {
    let (mut node, protected) = protected_node(&["global"]);
    connect_valued(&mut node, 1);
    node.trim();
    assert!(node.told.is_empty()); // (a)
    connect_valued(&mut node, 5);
    node.trim();
    assert_eq!(node.told.len(), 2); // (b)
    assert!(protected.iter().all(|peer| node.is_open(*peer))); // (c)
    node.manager.unprotect(&protected[0], "global");
    connect_valued(&mut node, 2);
    node.trim();
    assert!(!node.is_open(protected[0])); // (d)
    assert!(protected[1..].iter().all(|peer| node.is_open(*peer))); // (e)
}

#[test]
fn cm15_a_peer_stays_protected_until_its_last_protection_goes() {
    let (mut node, protected) = protected_node(&["tag1", "tag2"]);
    connect_valued(&mut node, 1);
    node.trim();
    assert!(protected.iter().all(|peer| node.is_open(*peer))); // (a)
    assert!(protected.iter().all(|peer| node.manager.unprotect(peer, "tag1"))); // (b)
    connect_valued(&mut node, 2);
    node.trim();
    assert!(protected.iter().all(|peer| node.is_open(*peer))); // (c)
    node.manager.unprotect(&protected[0], "tag2");
    connect_valued(&mut node, 2);
    node.trim();
    assert!(!node.is_open(protected[0])); // (d)
    assert!(protected[1..].iter().all(|peer| node.is_open(*peer))); // (e)
}

#[test]
fn cm16_protecting_four_times_is_protecting_once() {
    let node = Node::with(10, 20, Duration::ZERO);
    let peer = PeerId::random();
    for _ in 0..4 {
        node.manager.protect(&peer, "global");
    }
    assert_eq!(node.manager.protected_peers(), [(peer, vec!["global".to_owned()])]); // (a)
    assert!(node.manager.unprotect(&peer, "unused")); // (b)
    assert!(node.manager.unprotect(&peer, "unused2")); // (c)
    assert!(!node.manager.unprotect(&peer, "global")); // (d)
    assert_eq!(node.manager.protected_peers(), []); // (e)
    assert_eq!(node.records(), 0);
}

#[test]
fn cm17_upserting_changes_what_is_there_or_zero() {
    let mut node = Node::with(1, 1, ms(600_000));
    let peer = PeerId::random();
    node.manager.upsert_tag(&peer, "tag", |old| old + 1);
    assert_eq!((node.info(peer).tags.len(), node.value(peer)), (1, 1)); // (a)
    node.connect(peer);
    node.manager.upsert_tag(&peer, "tag", |old| old + 1);
    assert_eq!((node.info(peer).tags.len(), node.value(peer)), (1, 2)); // (b)
    node.manager.upsert_tag(&peer, "tag", |old| old - 1);
    assert_eq!((node.info(peer).tags.len(), node.value(peer)), (1, 1)); // (c)
}

#[test]
fn cm18_a_trim_clears_early_tags_past_grace_first() {
    let mut node = Node::with(1, 1, Duration::ZERO).unwired();
    let early = PeerId::random();
    node.manager.tag_peer(&early, "test", 20);
    node.connect_many(2);
    assert_eq!(node.value(early), 20); // (a)
    let _trim = node.manager.trim_open_conns();
    node.run();
    assert_eq!(node.manager.tag_info(&early), None); // (b)
}

#[test]
fn cm19_an_early_record_becomes_a_full_one_on_connection() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peer = PeerId::random();
    node.manager.tag_peer(&peer, "test", 20);
    assert_eq!((node.value(peer), node.manager.counts().early), (20, 1)); // (a)
    node.connect(peer);
    let counts = node.manager.counts();
    assert_eq!(
        (node.value(peer), counts.early, counts.tagged.peers, node.records()),
        (20, 0, 1, 1)
    ); // (b)
}

#[test]
fn cm23_a_limit_of_the_system_must_not_be_below_the_high_watermark() {
    let node = Node::with(1, 2, Duration::ZERO);
    assert_eq!(node.manager.check_limit(3), Ok(()));
    assert_eq!(node.manager.check_limit(2), Ok(()));
    let error = node.manager.check_limit(1).unwrap_err();
    assert_eq!((error.manager, error.system), (2, 1));
}
