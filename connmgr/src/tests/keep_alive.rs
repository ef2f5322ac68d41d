//! Who outlives the Swarm's idle timeout, as far as the behaviour decides it.

use super::*;
use crate::KeepAlive;

fn node(keep_alive: KeepAlive) -> Node {
    Node::new(Config::disabled().with_keep_alive(keep_alive))
}

/// What a connection's handler believes.
fn kept(node: &Node, id: ConnectionId) -> bool {
    let last = node.notified.iter().rev().find(|(of, _)| *of == id);
    last.expect("every connection has a handler").1
}

#[test]
fn protected_peers_are_kept_alive_while_they_are() {
    let mut node = node(KeepAlive::Protected);
    let (early, late) = (PeerId::random(), PeerId::random());
    node.manager.protect(&early, "tag");
    let ids = [node.connect(early), node.connect(late), node.connect(late)];
    assert_eq!(ids.map(|id| kept(&node, id)), [true, false, false]);
    node.manager.protect(&late, "one");
    node.manager.protect(&late, "two");
    node.run();
    assert_eq!(ids.map(|id| kept(&node, id)), [true, true, true]);
    node.manager.unprotect(&late, "one");
    node.manager.unprotect(&early, "tag");
    node.run();
    assert_eq!(ids.map(|id| kept(&node, id)), [false, true, true]);
    // Each connection was told once for each change.
    assert_eq!(node.notified.len(), 3 + 2 + 1);
}

#[test]
fn protection_that_comes_between_handler_and_connection_is_not_lost() {
    let mut node = node(KeepAlive::Protected);
    let peer = PeerId::random();
    for protect in [true, false] {
        let id = ConnectionId::new_unchecked(node.next);
        node.next += 1;
        node.handle_established(id, peer, &outbound()).unwrap();
        if protect {
            node.manager.protect(&peer, "tag");
        } else {
            node.manager.unprotect(&peer, "tag");
        }
        node.established(id, peer, &outbound());
        node.run();
        assert_eq!(kept(&node, id), protect);
    }
}

#[test]
fn a_guard_protects_while_it_or_a_clone_of_it_lives() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peer = PeerId::random();
    let guard = node.manager.in_use(&peer);
    let id = node.connect(peer);
    node.connect_many(3);
    assert!(kept(&node, id));
    let clone = guard.clone();
    assert_eq!(clone.peer(), &peer);
    drop(guard);
    node.trim();
    assert!(node.is_open(peer) && kept(&node, id));
    assert!(
        !node.manager.is_protected(&peer, ""),
        "in use is not protected under a tag"
    );
    assert!(node.manager.explain(&peer).to_string().contains("in use by 1"));
    drop(clone);
    node.connect_many(3);
    node.manager.tag_peer(&peer, "tag", -1);
    node.trim();
    assert!(!node.is_open(peer));
}

#[test]
fn guards_of_unconnected_peers_leave_nothing_behind() {
    let node = node(KeepAlive::Protected);
    let peer = PeerId::random();
    let guards: Vec<_> = (0..10).map(|_| node.manager.in_use(&peer)).collect();
    assert_eq!(node.records(), 1);
    drop(guards);
    assert_eq!(node.records(), 0);
}

#[test]
fn all_keeps_everybody_and_none_nobody() {
    for (mode, expected) in [(KeepAlive::All, true), (KeepAlive::None, false)] {
        let mut node = node(mode);
        let peer = PeerId::random();
        let id = node.connect(peer);
        assert_eq!(kept(&node, id), expected);
        node.manager.protect(&peer, "tag");
        node.run();
        node.manager.unprotect(&peer, "tag");
        node.run();
        assert_eq!(node.notified, [(id, expected)], "protection changes nothing");
    }
}
