//! What is remembered of peers that are not connected, and for how long.

use super::*;
use crate::{Bump, Decay};

const GRACE: Duration = Duration::from_secs(60);

/// A node with one connection too many, as soon as the peer is past its grace.
fn node(config: Config) -> Node {
    let mut node = Node::new(config);
    let other = node.connect_new();
    node.manager.protect(&other, "other");
    let stays = node.connect_new();
    node.manager.tag_peer(&stays, "stays", 1_000);
    node.advance(GRACE);
    node
}

fn config() -> Config {
    quiet(1, 100, GRACE).unwrap()
}

/// Whether a trim would close the peer, which is connected: it would if it had no grace.
fn is_in_grace(node: &Node, peer: PeerId) -> bool {
    let explanation = node.manager.explain(&peer);
    assert_eq!(explanation.connections, 1);
    explanation.class == Some(crate::Class::InGrace)
}

/// A peer that has had its grace, and has left.
fn gone(node: &mut Node) -> PeerId {
    let peer = node.connect_new();
    node.advance(GRACE);
    node.disconnect_peer(peer);
    peer
}

#[test]
fn a_protected_peer_that_was_gone_for_longer_than_the_grace_period_has_a_new_grace() {
    for (away, in_grace) in [(59, false), (60, true), (3_600, true)] {
        let mut node = node(config());
        let peer = node.connect_new();
        node.manager.protect(&peer, "friend");
        node.advance(GRACE);
        node.disconnect_peer(peer);
        node.advance(away * SECOND);
        node.connect(peer);
        node.manager.unprotect(&peer, "friend");
        assert_eq!(is_in_grace(&node, peer), in_grace, "away for {away} s");
        let since = node.info(peer).first_seen.unwrap();
        assert_eq!(since == node.clock.now(), in_grace, "away for {away} s");
    }
}

#[test]
fn the_grace_of_a_protected_peer_counts_from_leaving_and_not_from_its_release() {
    for (away, in_grace) in [(29, false), (30, true)] {
        let mut node = node(config());
        let peer = node.connect_new();
        node.manager.protect(&peer, "friend");
        node.advance(GRACE);
        node.disconnect_peer(peer);
        node.advance(30 * SECOND);
        node.manager.unprotect(&peer, "friend");
        node.advance(away * SECOND);
        node.connect(peer);
        assert_eq!(is_in_grace(&node, peer), in_grace, "away for 30 + {away} s");
    }
    // Long gone at its release: nothing is left to be remembered.
    let mut node = node(config());
    let records = node.records();
    let peer = node.connect_new();
    node.manager.protect(&peer, "friend");
    node.disconnect_peer(peer);
    node.advance(HOUR);
    node.manager.unprotect(&peer, "friend");
    assert_eq!(node.records(), records);
}

#[test]
fn a_peer_that_is_protected_or_in_use_while_it_is_gone_has_a_new_grace_later() {
    for (away, in_grace) in [(9, false), (10, true)] {
        let mut node = node(config());
        let peer = gone(&mut node);
        node.advance(40 * SECOND);
        node.manager.protect(&peer, "friend");
        let guard = node.manager.in_use(&peer);
        node.advance(10 * SECOND);
        node.manager.unprotect(&peer, "friend");
        drop(guard);
        node.advance(away * SECOND);
        node.connect(peer);
        assert_eq!(is_in_grace(&node, peer), in_grace, "away for 50 + {away} s");
    }
}

#[test]
fn a_peer_that_is_tagged_while_it_is_gone_has_a_new_grace_later() {
    for (away, in_grace) in [(29, false), (30, true), (59, true)] {
        let mut node = node(config());
        let peer = gone(&mut node);
        node.advance(30 * SECOND);
        node.manager.tag_peer(&peer, "early", 1);
        node.advance(away * SECOND);
        assert_eq!(node.value(peer), 1);
        node.connect(peer);
        assert_eq!(is_in_grace(&node, peer), in_grace, "away for 30 + {away} s");
        // And what it leaves with is remembered as before.
        node.disconnect_peer(peer);
        node.advance(SECOND);
        let remembered = node.manager.counts().gone;
        assert_eq!(remembered, 1);
    }
}

#[test]
fn with_retention_grace_is_remembered_for_as_long_as_tags() {
    for (away, in_grace) in [(299, false), (300, true)] {
        let mut node = node(config().with_retention(300 * SECOND, 10));
        let peer = gone(&mut node);
        node.advance(away * SECOND);
        node.connect(peer);
        assert_eq!(is_in_grace(&node, peer), in_grace, "away for {away} s");
    }
}

#[test]
fn retained_tags_of_a_protected_peer_expire_after_its_release() {
    let mut node = node(config().with_retention(300 * SECOND, 10));
    let peer = node.connect_new();
    node.manager.tag_peer(&peer, "score", 5);
    node.manager.protect(&peer, "friend");
    node.disconnect_peer(peer);
    node.advance(HOUR);
    node.manager.unprotect(&peer, "friend");
    node.advance(299 * SECOND);
    assert_eq!(node.value(peer), 5);
    node.connect(peer);
    assert!(is_in_grace(&node, peer), "it was gone for an hour");
    node.disconnect_peer(peer);
    node.advance(300 * SECOND);
    assert_eq!(node.manager.tag_info(&peer), None);
}

#[test]
fn with_no_grace_a_tag_that_is_set_in_the_instant_of_a_trim_stays() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let (before, after, bumped) = (PeerId::random(), PeerId::random(), PeerId::random());
    let tag = node
        .manager
        .register_decaying_tag("tag", HOUR, Decay::none(), Bump::sum_unbounded())
        .unwrap();
    let released = PeerId::random();
    node.manager.protect(&released, "friend");
    node.manager.tag_peer(&released, "early", 4);
    node.manager.tag_peer(&before, "early", 1);
    node.connect_many(2);
    assert_eq!(node.trim().closed, 1);
    // The clock stands still, as coarse ones do.
    node.manager.tag_peer(&after, "early", 2);
    node.manager.upsert_tag(&after, "more", |old| old + 1);
    tag.bump(&bumped, 5).unwrap();
    node.manager.unprotect(&released, "friend");
    assert_eq!(node.manager.tag_info(&before), None);
    assert_eq!([after, bumped, released].map(|peer| node.value(peer)), [3, 5, 4]);
    // The next trim takes them, in the same instant or not.
    node.connect_new();
    assert_eq!(node.trim().closed, 1);
    assert!(
        [after, bumped, released]
            .iter()
            .all(|peer| node.manager.tag_info(peer).is_none())
    );
}

#[test]
fn a_peer_that_is_not_connected_has_tag_info_exactly_while_it_has_a_tag() {
    for retention in [false, true] {
        let mut config = config().with_decay_resolution(SECOND).with_early_tags(HOUR, 100);
        if retention {
            config = config.with_retention(HOUR, 100);
        }
        let mut node = node(config);
        let tag = node
            .manager
            .register_decaying_tag("pop", SECOND, Decay::fixed(1), Bump::sum_unbounded())
            .unwrap();
        type Peer = fn(&mut Node) -> PeerId;
        let states: [(&str, Peer); 4] = [
            ("unknown", |_| PeerId::random()),
            ("gone", gone),
            ("protected", |node| {
                let peer = PeerId::random();
                node.manager.protect(&peer, "friend");
                peer
            }),
            ("protected and gone", |node| {
                let peer = node.connect_new();
                node.manager.protect(&peer, "friend");
                node.disconnect_peer(peer);
                peer
            }),
        ];
        for (state, peer) in states {
            let peer = peer(&mut node);
            let known = |node: &Node| node.manager.tag_info(&peer).is_some();
            assert!(!known(&node), "{state}");
            node.manager.untag_peer(&peer, "a");
            tag.remove(&peer).unwrap();
            assert!(!known(&node), "{state}, nothing removed");
            node.manager.tag_peer(&peer, "a", 0);
            assert!(known(&node), "{state}, tagged");
            node.manager.untag_peer(&peer, "a");
            assert!(!known(&node), "{state}, untagged");
            tag.bump(&peer, 1).unwrap();
            assert!(known(&node), "{state}, bumped");
            tag.remove(&peer).unwrap();
            assert!(!known(&node), "{state}, removed");
            tag.bump(&peer, 1).unwrap();
            node.advance(SECOND);
            assert!(!known(&node), "{state}, decayed");
        }
    }
}

#[test]
fn early_tags_of_a_protected_peer_stay_and_their_time_begins_with_its_release() {
    let mut node = node(config());
    let peer = PeerId::random();
    node.manager.tag_peer(&peer, "early", 5);
    node.manager.protect(&peer, "friend");
    node.advance(HOUR);
    node.connect_new();
    node.advance(GRACE);
    assert_eq!(node.trim().closed, 1, "a trim, which takes early tags");
    assert_eq!(node.value(peer), 5);
    node.manager.unprotect(&peer, "friend");
    node.advance(59 * SECOND);
    assert_eq!(node.value(peer), 5);
    node.advance(SECOND);
    assert_eq!(node.manager.tag_info(&peer), None);
}

#[test]
fn removing_a_decaying_tag_of_an_unknown_peer_leaves_it_unknown() {
    let node = Node::new(config());
    let tag = node
        .manager
        .register_decaying_tag("tag", HOUR, Decay::none(), Bump::sum_unbounded())
        .unwrap();
    tag.remove(&PeerId::random()).unwrap();
    assert_eq!(node.records(), 0);
}
