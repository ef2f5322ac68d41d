//! What the original has no test for, most of it where it is wrong.

use super::*;
use crate::{Skipped, TrimTarget};

#[test]
fn nt01_at_the_very_end_of_its_grace_a_peer_is_a_candidate() {
    let mut node = Node::with(1, 1, SECOND);
    node.connect_many(2);
    node.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(node.trim().closed, 0);
    node.advance(Duration::from_nanos(1));
    assert_eq!(node.trim().closed, 1);
}

#[test]
fn nt02_a_trim_on_demand_works_between_low_and_high() {
    let mut node = Node::with(5, 100, Duration::ZERO);
    node.connect_many(20);
    assert_eq!(node.trim().closed, 15);
}

#[test]
fn nt03_a_background_trim_begins_at_the_high_watermark_and_not_one_below() {
    for (connections, closed) in [(19, 0), (20, 10)] {
        let mut node = Node::new(Config::new(10, 20).unwrap().with_grace_period(Duration::ZERO));
        node.connect_many(connections);
        node.advance(60 * SECOND);
        assert_eq!(node.told.len(), closed);
        assert!(
            node.trimmed()
                .iter()
                .all(|(_, reason)| *reason == Reason::HighWatermark)
        );
    }
}

#[test]
fn nt04_all_connections_of_the_last_peer_are_closed_even_beyond_the_target() {
    let mut node = Node::with(2, 2, Duration::ZERO);
    let peer = node.connect_new();
    for _ in 0..4 {
        node.connect(peer);
    }
    let others = node.connect_many(2);
    for other in others {
        node.manager.tag_peer(&other, "tag", 1);
    }
    // 7 connections; 5 are too many, and the plain peer has exactly these; one more and it has to go as a whole.
    node.connect(peer);
    assert_eq!(node.trim(), Trimmed { closed: 6, stuck: 0 });
    assert_eq!(node.count(), 2);
}

#[test]
fn nt05_a_second_connection_of_an_old_peer_has_no_grace() {
    let mut node = Node::with(1, 1, SECOND);
    let old = node.connect_new();
    node.advance(SECOND);
    let newcomer = node.connect_new();
    node.connect(old);
    assert_eq!(node.trim(), Trimmed { closed: 2, stuck: 0 });
    assert!(!node.is_open(old) && node.is_open(newcomer));
}

#[test]
fn nt06_tags_go_with_the_last_connection_and_not_before() {
    let mut node = Node::with(1, 1, SECOND);
    let peer = PeerId::random();
    let (a, b) = (node.connect(peer), node.connect(peer));
    node.manager.tag_peer(&peer, "tag", 5);
    node.disconnect(a);
    assert_eq!(node.value(peer), 5);
    node.disconnect(b);
    assert_eq!(node.manager.tag_info(&peer), None);
    node.connect(peer);
    assert_eq!(node.value(peer), 0);
}

#[test]
fn nt07_protection_outlives_connections() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peer = node.connect_new();
    node.manager.protect(&peer, "tag");
    node.disconnect_peer(peer);
    assert!(node.manager.is_protected(&peer, "tag"));
    node.connect(peer);
    node.connect_many(3);
    node.trim();
    assert!(node.is_open(peer));
}

#[test]
fn nt08_early_tags_expire_without_a_trim() {
    let node = Node::new(quiet(1, 1, HOUR).unwrap().with_early_tags(60 * SECOND, 100));
    let (early, later) = (PeerId::random(), PeerId::random());
    node.manager.tag_peer(&early, "tag", 5);
    node.clock.advance(60 * SECOND - Duration::from_nanos(1));
    assert_eq!(node.value(early), 5);
    node.clock.advance(Duration::from_nanos(1));
    assert_eq!(node.manager.tag_info(&early), None);
    // What nobody asked for goes as well, when the next one comes.
    for _ in 0..10_000 {
        node.manager.tag_peer(&PeerId::random(), "tag", 1);
    }
    assert!(node.records() <= 100, "{} records", node.records());
    node.clock.advance(60 * SECOND);
    node.manager.tag_peer(&later, "tag", 1);
    assert_eq!(node.manager.counts().early, 1);
    assert_eq!(node.records(), 1);
}

#[test]
fn nt09_under_pressure_protected_peers_are_spared_if_others_suffice() {
    let mut node = Node::with(10, 100, HOUR);
    let peers = node.connect_many(100);
    for peer in &peers[..10] {
        node.manager.protect(peer, "tag");
        node.manager.tag_peer(peer, "tag", -100);
    }
    // In grace, all of them.
    assert_eq!(node.force_trim(), Trimmed { closed: 90, stuck: 0 });
    assert!(peers[..10].iter().all(|peer| node.is_open(*peer)));
}

#[test]
fn nt10_under_pressure_protected_peers_go_last_and_each_once() {
    for unprotected in [60, 40] {
        let mut node = Node::with(10, 100, HOUR);
        let peers = node.connect_many(100);
        for peer in &peers[unprotected..] {
            node.manager.protect(peer, "tag");
        }
        assert_eq!(node.force_trim(), Trimmed { closed: 90, stuck: 0 });
        let order: Vec<_> = node.trimmed().into_iter().map(|(peer, _)| peer).collect();
        assert!(
            order[..unprotected]
                .iter()
                .all(|peer| peers[..unprotected].contains(peer))
        );
        assert!(
            order[unprotected..]
                .iter()
                .all(|peer| peers[unprotected..].contains(peer))
        );
        let mut once = node.told.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((once.len(), node.told.len()), (90, 90));
    }
}

#[test]
fn nt11_trims_never_overlap_and_are_always_recorded() {
    let mut node = Node::new(
        Config::new(10, 20)
            .unwrap()
            .with_grace_period(Duration::ZERO)
            .with_close_deadline(HOUR),
    )
    .unwired();
    node.connect_many(30);
    node.advance(10 * SECOND);
    assert_eq!(node.told.len(), 20);
    // Many more come while the background trim waits; whoever asks gets what that one comes to.
    node.connect_many(30);
    let asked = node.manager.trim_open_conns();
    node.advance(60 * SECOND);
    assert_eq!(node.told.len(), 20);
    let end = node.clock.now();
    node.release();
    assert_eq!(asked.now_or_never(), Some(Ok(Trimmed { closed: 20, stuck: 0 })));
    assert_eq!(node.manager.info().last_trim, Some(end));
    // And the next background trim takes the rest.
    node.advance(10 * SECOND);
    assert_eq!(node.told.len(), 50);
}

#[test]
fn a_forced_trim_waits_for_the_one_that_runs() {
    let mut node = Node::with(10, 20, Duration::ZERO).unwired();
    let peers = node.connect_many(20);
    for peer in &peers[..5] {
        node.manager.protect(peer, "tag");
    }
    let normal = node.manager.trim_open_conns();
    node.run();
    let forced = node.manager.force_trim();
    node.run();
    assert_eq!(node.told.len(), 5, "15 candidates, 10 of which may stay");
    node.release();
    assert_eq!(normal.now_or_never(), Some(Ok(Trimmed { closed: 5, stuck: 0 })));
    node.release();
    assert_eq!(forced.now_or_never(), Some(Ok(Trimmed { closed: 5, stuck: 0 })));
    assert_eq!(node.count(), 10);
}

#[test]
fn nt12_two_trims_in_quick_succession_close_no_more_than_one() {
    let mut node = Node::new(quiet(10, 20, Duration::ZERO).unwrap().with_close_deadline(SECOND)).unwired();
    node.connect_many(30);
    let first = node.manager.trim_open_conns();
    node.run();
    node.advance(SECOND);
    assert_eq!(first.now_or_never(), Some(Ok(Trimmed { closed: 0, stuck: 20 })));
    // They are still there, and counted as closing: nobody else has to go for them.
    let second = node.manager.trim_open_conns();
    node.run();
    assert_eq!(second.now_or_never(), Some(Ok(Trimmed::default())));
    assert_eq!(
        (node.told.len(), node.count(), node.manager.info().closing),
        (20, 10, 20)
    );
    node.release();
    assert_eq!((node.count(), node.manager.info().closing), (10, 0));
}

#[test]
fn nt19_the_empty_tag_asks_for_any_protection() {
    let node = Node::with(1, 1, Duration::ZERO);
    let (peer, stranger) = (PeerId::random(), PeerId::random());
    node.manager.protect(&peer, "tag");
    assert!(node.manager.is_protected(&peer, "") && node.manager.is_protected(&peer, "tag"));
    assert!(!node.manager.is_protected(&peer, "other"));
    assert!(!node.manager.is_protected(&stranger, ""));
    assert!(!node.manager.unprotect(&stranger, "tag"));
    assert_eq!(node.records(), 1);
}

#[test]
fn nt23_watermarks_that_contradict_each_other_are_refused() {
    assert_eq!(
        Config::new(3, 2).err(),
        Some(ConfigError::LowAboveHigh { low: 3, high: 2 })
    );
    assert_eq!(
        Config::new(0, 0).err(),
        Some(ConfigError::ZeroWatermark { low: 0, high: 0 })
    );
    assert!(Config::new(2, 2).is_ok());
    let limit = Config::new(2, 5).unwrap().with_hard_limit(4).err();
    assert_eq!(
        limit,
        Some(ConfigError::HardLimit {
            connections: 4,
            high: 5
        })
    );
    assert_eq!(
        Config::disabled().with_hard_limit(0).err(),
        Some(ConfigError::HardLimit {
            connections: 0,
            high: 0
        })
    );
    assert_eq!(
        Config::disabled().with_silence_period(Duration::ZERO).err(),
        Some(ConfigError::ZeroSilence)
    );
}

#[test]
fn a_peer_that_reconnects_every_50_seconds_has_no_grace_for_ever() {
    let mut node = Node::with(1, 10, 60 * SECOND);
    let other = node.connect_new();
    node.manager.tag_peer(&other, "tag", 1);
    let flapping = PeerId::random();
    for round in 0..10 {
        node.connect(flapping);
        node.trim();
        assert_eq!(node.is_open(flapping), round < 2, "round {round}");
        node.advance(50 * SECOND);
        node.disconnect_peer(flapping);
    }
    // Who stays away for longer than the grace period begins anew.
    node.advance(61 * SECOND);
    node.connect(flapping);
    node.trim();
    assert!(node.is_open(flapping));
}

#[test]
fn with_retention_tags_outlive_a_short_disconnect() {
    let mut node = Node::new(quiet(1, 1, SECOND).unwrap().with_retention(60 * SECOND, 2));
    let peer = node.connect_new();
    node.manager.tag_peer(&peer, "tag", 5);
    let first_seen = node.info(peer).first_seen;
    node.disconnect_peer(peer);
    node.advance(59 * SECOND);
    assert_eq!((node.value(peer), node.info(peer).connections.len()), (5, 0));
    node.manager.tag_peer(&peer, "tag", 6);
    node.connect(peer);
    assert_eq!((node.value(peer), node.info(peer).first_seen), (6, first_seen));
    node.disconnect_peer(peer);
    node.advance(60 * SECOND);
    assert_eq!(node.manager.tag_info(&peer), None);
    // And for no more peers than it was said.
    for peer in node.connect_many(10) {
        node.manager.tag_peer(&peer, "tag", 1);
        node.disconnect_peer(peer);
    }
    assert_eq!((node.manager.counts().gone, node.records()), (2, 2));
}

#[test]
fn the_total_target_counts_what_cannot_be_closed() {
    let config = quiet(10, 20, HOUR).unwrap().with_trim_target(TrimTarget::Total);
    let mut node = Node::new(config);
    node.connect_many(12);
    node.advance(HOUR);
    let protected = node.connect_many(4);
    for peer in &protected {
        node.manager.protect(peer, "tag");
    }
    node.connect_many(3); // in grace
    // 19 connections, 4 protected, 3 in grace: 9 of 12 candidates go.
    assert_eq!(node.trim(), Trimmed { closed: 9, stuck: 0 });
    assert_eq!(node.count(), 10);
    node.connect_many(9); // in grace
    assert_eq!(node.trim(), Trimmed { closed: 3, stuck: 0 });
    assert_eq!(node.count(), 16, "what is protected or in grace stays");
    assert_eq!(node.trim(), Trimmed::default());
}

#[test]
fn whoever_is_protected_while_a_trim_runs_is_spared() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peers = node.connect_many(40);
    let trim = node.manager.trim_open_conns();
    while node.told.is_empty() {
        assert!(node.poll_once());
    }
    for peer in &peers {
        node.manager.protect(peer, "late");
    }
    assert_eq!(node.finish(trim), Trimmed { closed: 1, stuck: 0 });
}

#[test]
fn a_dial_in_flight_spares_the_peer_until_it_is_over() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peers = node.connect_many(2);
    node.manager.tag_peer(&peers[0], "tag", -5);
    let dial = ConnectionId::new_unchecked(1_000);
    node.behaviour
        .handle_pending_outbound_connection(dial, Some(peers[0]), &[], Endpoint::Listener)
        .unwrap();
    assert_eq!(node.trim().closed, 0);
    assert!(node.manager.explain(&peers[0]).dialing);
    node.behaviour
        .on_swarm_event(FromSwarm::DialFailure(libp2p_swarm::DialFailure {
            peer_id: Some(peers[0]),
            error: &libp2p_swarm::DialError::Aborted,
            connection_id: dial,
        }));
    assert_eq!(node.trim().closed, 1);
    assert!(!node.is_open(peers[0]));
}

#[test]
fn a_trim_that_cannot_close_anything_is_not_tried_again_before_it_can() {
    let mut node = Node::new(Config::new(2, 5).unwrap().with_grace_period(60 * SECOND));
    let peers = node.connect_many(10);
    for peer in &peers[..8] {
        node.manager.protect(peer, "tag");
    }
    for _ in 0..59 {
        node.advance(SECOND);
    }
    let skipped = |node: &Node| {
        let of = |event: &&Event| {
            matches!(
                event,
                Event::TrimSkipped {
                    skipped: Skipped::TooFewCandidates,
                    ..
                }
            )
        };
        node.events.iter().filter(of).count()
    };
    assert_eq!(skipped(&node), 1);
    node.advance(SECOND);
    assert_eq!(
        skipped(&node),
        2,
        "two are past grace, and that is no more than may stay"
    );
    node.advance(600 * SECOND);
    assert_eq!(skipped(&node), 2);
    node.manager.unprotect(&peers[0], "tag");
    node.run();
    node.advance(10 * SECOND);
    assert_eq!(node.told.len(), 1);
}

#[test]
fn a_closer_closes_and_has_two_seconds_for_it() {
    type Asked = Vec<(PeerId, ConnectionId, &'static str)>;
    let asked: Arc<Mutex<Asked>> = Arc::default();
    let own = asked.clone();
    let config = quiet(1, 1, Duration::ZERO).unwrap();
    let config = config.with_closer(move |peer, id, reason| own.lock().unwrap().push((peer, id, reason)));
    let mut node = Node::new(config);
    node.connect_many(1);
    let peer = PeerId::random();
    let ids = [node.connect(peer), node.connect(peer)];
    let trim = node.manager.trim_open_conns();
    node.run();
    assert_eq!(*asked.lock().unwrap(), ids.map(|id| (peer, id, "on_demand")));
    assert!(node.told.is_empty());
    node.disconnect(ids[0]);
    node.advance(2 * SECOND - ms(1));
    assert!(node.told.is_empty());
    node.advance(ms(1));
    assert_eq!(node.told, [ids[1]]);
    assert_eq!(trim.now_or_never(), Some(Ok(Trimmed { closed: 2, stuck: 0 })));
}

#[test]
fn counts_tell_the_classes_apart() {
    let mut node = Node::with(1, 100, SECOND);
    let old = node.connect_many(6);
    node.advance(SECOND);
    node.connect_many(4);
    node.manager.protect(&old[0], "tag");
    let _in_use = node.manager.in_use(&old[1]);
    node.manager.tag_peer(&old[2], "tag", 0);
    node.connect(old[3]);
    node.manager.tag_peer(&PeerId::random(), "tag", 1);
    let counts = node.manager.counts();
    let of = |count: crate::Count| (count.peers, count.connections);
    assert_eq!(of(counts.protected), (2, 2));
    assert_eq!(of(counts.in_grace), (4, 4));
    assert_eq!(of(counts.tagged), (1, 1));
    assert_eq!(of(counts.plain), (3, 4));
    assert_eq!((counts.early, counts.closing), (1, 0));
    assert_eq!((counts.peers(), counts.connections()), (10, 11));
}

#[test]
fn an_explanation_agrees_with_what_the_next_trim_does() {
    let mut node = Node::with(5, 100, SECOND);
    let peers = node.connect_many(20);
    node.advance(SECOND);
    for (at, peer) in peers.iter().enumerate() {
        node.manager.tag_peer(peer, "tag", i64::try_from(at * 7 % 20).unwrap());
    }
    node.manager.protect(&peers[0], "friend");
    let newcomer = node.connect_new();
    let expected: Vec<_> = peers
        .iter()
        .map(|peer| node.manager.explain(peer).would_be_closed())
        .collect();
    assert_eq!(expected.iter().filter(|closed| **closed).count(), 14);
    assert!(
        node.manager
            .explain(&peers[0])
            .to_string()
            .contains("stays: protected as friend")
    );
    assert!(
        node.manager
            .explain(&newcomer)
            .to_string()
            .contains("in grace for another 1.0s")
    );
    assert!(
        node.manager
            .explain(&PeerId::random())
            .to_string()
            .contains("not connected")
    );
    node.trim();
    for (peer, closed) in peers.iter().zip(expected) {
        assert_eq!(node.is_open(*peer), !closed);
    }
}

#[test]
fn a_handle_outlives_its_behaviour() {
    let mut node = Node::with(1, 1, Duration::ZERO).unwired();
    let peers = node.connect_many(3);
    let running = node.manager.trim_open_conns();
    node.run();
    let Node {
        behaviour,
        manager,
        clock,
        ..
    } = node;
    drop(behaviour);
    clock.advance(SECOND);
    assert_eq!(running.now_or_never(), Some(Ok(Trimmed::default())));
    assert_eq!(manager.trim_open_conns().now_or_never(), Some(Ok(Trimmed::default())));
    let info = manager.info();
    assert_eq!((info.connections, info.closing), (0, 0));
    manager.tag_peer(&peers[0], "tag", 3);
    assert_eq!(manager.tag_info(&peers[0]).unwrap().value, 3);
}

#[test]
fn a_closed_manager_changes_nothing_and_tells_what_was() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peers = node.connect_many(3);
    node.manager.tag_peer(&peers[0], "tag", 5);
    node.manager.protect(&peers[0], "tag");
    let tag = node
        .manager
        .register_decaying_tag("pop", SECOND, crate::Decay::none(), crate::Bump::overwrite())
        .unwrap();
    node.manager.close();
    node.manager.close();
    node.manager.tag_peer(&peers[0], "tag", 6);
    node.manager.upsert_tag(&peers[0], "tag", |_| 7);
    node.manager.untag_peer(&peers[0], "tag");
    node.manager.protect(&peers[1], "tag");
    assert!(node.manager.unprotect(&peers[0], "tag"), "it still is");
    assert_eq!(tag.bump(&peers[0], 1), Err(crate::BumpError::Closed));
    assert_eq!(node.value(peers[0]), 5);
    assert!(!node.manager.is_protected(&peers[1], ""));
    node.advance(HOUR);
    assert!(node.told.is_empty(), "no trim begins any more");
}
