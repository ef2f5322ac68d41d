//! Decaying tags: the original's tests, ported, and those that it lacks.

use super::*;
use crate::{Bump, BumpError, Decay, DecayingTag, RegisterError};
use std::sync::atomic::AtomicUsize;

const ROUND: Duration = Duration::from_millis(50);

/// A manager whose tags tick every 50 ms.
fn node() -> Node {
    Node::new(
        quiet(10, 10, SECOND)
            .unwrap()
            .with_decay_resolution(ROUND)
            .with_early_tags(HOUR, 1_000),
    )
}

fn register(node: &Node, name: &str, interval: Duration, decay: Decay, bump: Bump) -> DecayingTag {
    node.manager.register_decaying_tag(name, interval, decay, bump).unwrap()
}

fn decaying(node: &Node, peer: PeerId, tag: &str) -> Option<i64> {
    node.manager.tag_info(&peer)?.decaying.get(tag).copied()
}

#[test]
fn dc01_a_tag_expires_when_it_is_inactive_and_not_before() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(
        &node,
        "pop",
        ms(250),
        Decay::expire_when_inactive(SECOND),
        Bump::sum_unbounded(),
    );
    tag.bump(&peer, 10).unwrap();
    assert_eq!(node.value(peer), 10);
    for _ in 0..3 {
        node.clock.advance(ms(250));
        assert_eq!(decaying(&node, peer, "pop"), Some(10));
    }
    node.clock.advance(ms(250));
    assert_eq!(decaying(&node, peer, "pop"), None);
    assert_eq!(node.value(peer), 0);
}

#[test]
fn a_bump_puts_the_expiry_off() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(
        &node,
        "pop",
        ms(250),
        Decay::expire_when_inactive(SECOND),
        Bump::sum_unbounded(),
    );
    tag.bump(&peer, 10).unwrap();
    node.clock.advance(ms(900));
    tag.bump(&peer, 1).unwrap();
    node.clock.advance(ms(900));
    assert_eq!(node.value(peer), 11);
    node.clock.advance(ms(200));
    assert_eq!(node.value(peer), 0);
}

#[test]
fn dc02_a_bounded_sum_is_clamped_at_both_ends() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(&node, "pop", ms(250), Decay::none(), Bump::sum_bounded(10, 20));
    tag.bump(&peer, 5).unwrap();
    assert_eq!(node.value(peer), 10);
    tag.bump(&peer, 100).unwrap();
    assert_eq!(node.value(peer), 20);
}

#[test]
fn dc03_several_tags_without_decay_add_up() {
    let mut node = node();
    let peer = node.connect_new();
    let names = ["beep", "bop", "foo"];
    for name in names {
        let tag = register(&node, name, ms(250), Decay::none(), Bump::sum_bounded(0, 100));
        tag.bump(&peer, 100).unwrap();
        tag.bump(&peer, 100).unwrap();
    }
    assert_eq!(node.value(peer), 300);
    assert!(names.iter().all(|name| decaying(&node, peer, name) == Some(100)));
}

fn three(node: &Node) -> [DecayingTag; 3] {
    [("beep", 250, 10), ("bop", 100, 5), ("foo", 50, 1)]
        .map(|(name, interval, by)| register(node, name, ms(interval), Decay::fixed(by), Bump::sum_unbounded()))
}

#[test]
fn dc04_each_tag_decays_by_its_own_interval_and_function() {
    let mut node = node();
    let peer = node.connect_new();
    for tag in three(&node) {
        tag.bump(&peer, 1000).unwrap();
    }
    assert_eq!(node.value(peer), 3000);
    node.clock.advance(ms(50));
    assert_eq!(node.value(peer), 2999);
    node.clock.advance(ms(150));
    assert_eq!(node.value(peer), 2986);
    node.clock.advance(ms(50));
    assert_eq!(node.value(peer), 2975);
}

#[test]
fn dc05_each_peer_decays_by_itself() {
    let mut node = node();
    let tags = three(&node);
    let peers = node.connect_many(3);
    for (peer, delta) in peers.iter().zip([1000, 500, 100]) {
        for tag in &tags {
            tag.bump(peer, delta).unwrap();
        }
    }
    let values = |node: &Node| peers.iter().map(|peer| node.value(*peer)).collect::<Vec<_>>();
    assert_eq!(values(&node), [3000, 1500, 300]);
    node.clock.advance(ms(3_000));
    assert_eq!(values(&node), [2670, 1170, 40]);
    // Two of the third peer's tags are gone, not merely zero.
    assert_eq!(node.info(peers[2]).decaying, BTreeMap::from([("foo".to_owned(), 40)]));
}

#[test]
fn dc06_linear_decay_multiplies_and_overwriting_starts_again() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(&node, "beep", ms(250), Decay::linear(0.5), Bump::overwrite());
    tag.bump(&peer, 1000).unwrap();
    assert_eq!(node.value(peer), 1000);
    node.clock.advance(ms(250));
    assert_eq!(node.value(peer), 500);
    node.clock.advance(ms(250));
    assert_eq!(node.value(peer), 250);
    tag.bump(&peer, 1000).unwrap();
    assert_eq!(node.value(peer), 1000);
}

#[test]
fn dc07_an_interval_off_the_grid_ticks_in_the_next_round() {
    let mut node = node();
    let peer = node.connect_new();
    for (name, interval) in [("beep", 70), ("bop", 120)] {
        let tag = register(&node, name, ms(interval), Decay::fixed(1), Bump::overwrite());
        tag.bump(&peer, 1000).unwrap();
    }
    for expected in [(1000, 1000), (999, 1000), (998, 999)] {
        node.clock.advance(ROUND);
        let values = (decaying(&node, peer, "beep"), decaying(&node, peer, "bop"));
        assert_eq!(values, (Some(expected.0), Some(expected.1)));
    }
    assert_eq!(node.value(peer), 1997);
}

#[test]
fn dc08_a_tag_is_removed_from_one_peer_and_stays_with_others() {
    let mut node = node();
    let (id1, id2) = (node.connect_new(), node.connect_new());
    let [tag1, tag2] = ["beep", "bop"].map(|name| register(&node, name, ROUND, Decay::fixed(1), Bump::overwrite()));
    tag1.bump(&id1, 1000).unwrap();
    tag2.bump(&id1, 1000).unwrap();
    tag1.bump(&id2, 1000).unwrap();
    node.clock.advance(ROUND);
    // (a)
    for (peer, tag) in [(id1, "beep"), (id1, "bop"), (id2, "beep")] {
        assert_eq!(decaying(&node, peer, tag), Some(999));
    }
    assert_eq!((node.value(id1), node.value(id2)), (1998, 999)); // (b)
    tag1.remove(&id1).unwrap();
    node.clock.advance(ROUND);
    // (c)
    assert_eq!(decaying(&node, id1, "beep"), None);
    assert_eq!(
        (decaying(&node, id1, "bop"), node.value(id1), node.value(id2)),
        (Some(998), 998, 998)
    );
    // (d)
    assert_eq!(tag1.remove(&id1), Ok(()));
}

#[test]
fn dc09_closing_a_tag_voids_its_values() {
    let mut node = node();
    let peer = node.connect_new();
    let [tag1, tag2] = ["beep", "bop"].map(|name| register(&node, name, ROUND, Decay::fixed(1), Bump::overwrite()));
    tag1.bump(&peer, 1000).unwrap();
    tag2.bump(&peer, 1000).unwrap();
    node.clock.advance(ROUND);
    assert_eq!(node.value(peer), 999 + 999); // (a)
    node.clock.advance(ROUND);
    assert_eq!(node.value(peer), 998 + 998); // (b)
    tag1.close();
    assert_eq!(node.value(peer), 998); // (c)
    tag1.close(); // (d)
    assert_eq!(tag1.bump(&peer, 5), Err(BumpError::Closed)); // (e)
    assert_eq!(tag1.remove(&peer), Err(BumpError::Closed));
    assert_eq!(node.value(peer), 998);
}

#[test]
fn nt14_a_jump_of_the_clock_is_caught_up_at_once() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(&node, "beep", ms(100), Decay::fixed(1), Bump::sum_unbounded());
    tag.bump(&peer, 1_000_000).unwrap();
    node.clock.advance(ms(100) * 999_999);
    assert_eq!(node.value(peer), 1);
    node.clock.advance(ms(100));
    assert_eq!(decaying(&node, peer, "beep"), None);
}

#[test]
fn nt15_a_name_is_taken_once_and_free_after_close() {
    let node = node();
    let tag = register(&node, "beep", ms(1), Decay::none(), Bump::overwrite());
    assert_eq!(
        (tag.name(), tag.interval()),
        ("beep", ROUND),
        "raised to the resolution"
    );
    let again = || {
        node.manager
            .register_decaying_tag("beep", SECOND, Decay::none(), Bump::overwrite())
    };
    assert_eq!(again().err(), Some(RegisterError::Taken("beep".to_owned())));
    tag.close();
    let new = again().unwrap();
    assert_eq!(new.interval(), SECOND);
    // The old handle does nothing to the new tag of that name.
    tag.close();
    let peer = PeerId::random();
    new.bump(&peer, 3).unwrap();
    assert_eq!(node.value(peer), 3);
}

#[test]
fn nt16_bump_remove_and_close_take_effect_in_order() {
    let node = node();
    let peer = PeerId::random();
    for _ in 0..1_000 {
        let tag = register(&node, "beep", ROUND, Decay::none(), Bump::sum_unbounded());
        tag.bump(&peer, 1).unwrap();
        tag.remove(&peer).unwrap();
        assert_eq!(decaying(&node, peer, "beep"), None);
        tag.bump(&peer, 1).unwrap();
        assert_eq!(decaying(&node, peer, "beep"), Some(1));
        tag.close();
        assert_eq!(decaying(&node, peer, "beep"), None);
    }
}

#[test]
fn nt17_there_is_no_queue_that_could_be_full() {
    let node = node();
    let peer = PeerId::random();
    let tag = register(&node, "beep", ROUND, Decay::none(), Bump::sum_unbounded());
    for _ in 0..100_000 {
        tag.bump(&peer, 1).unwrap();
    }
    assert_eq!(node.value(peer), 100_000);
}

#[test]
fn nt18_a_plain_and_a_decaying_tag_of_one_name_are_two() {
    let mut node = node();
    let peer = node.connect_new();
    let tag = register(&node, "beep", ROUND, Decay::fixed(1), Bump::overwrite());
    node.manager.tag_peer(&peer, "beep", 5);
    tag.bump(&peer, 10).unwrap();
    let info = node.info(peer);
    assert_eq!((info.value, info.tags["beep"], info.decaying["beep"]), (15, 5, 10));
    node.manager.untag_peer(&peer, "beep");
    assert_eq!(node.value(peer), 10);
}

#[test]
fn removing_a_tag_from_an_unknown_peer_leaves_no_record() {
    let node = node();
    let tag = register(&node, "beep", ROUND, Decay::none(), Bump::overwrite());
    tag.remove(&PeerId::random()).unwrap();
    assert_eq!(node.records(), 0);
}

#[test]
fn closures_decay_and_bump_and_may_call_the_manager() {
    let mut node = node();
    let peer = node.connect_new();
    let manager = node.manager.clone();
    let decay = Decay::custom(move |seen| {
        manager.tag_peer(&seen.peer, "visited", 1);
        assert_eq!(seen.tag, "mine");
        (seen.value > 4).then_some(seen.value - 4)
    });
    let bump = Bump::custom(|seen, delta| seen.value.max(delta));
    let tag = register(&node, "mine", ROUND, decay, bump);
    tag.bump(&peer, 10).unwrap();
    tag.bump(&peer, 7).unwrap();
    assert_eq!(decaying(&node, peer, "mine"), Some(10));
    node.clock.advance(ROUND);
    assert_eq!(decaying(&node, peer, "mine"), Some(6));
    node.clock.advance(ROUND);
    assert_eq!(decaying(&node, peer, "mine"), Some(2));
    node.clock.advance(ROUND);
    assert_eq!(decaying(&node, peer, "mine"), None);
    assert_eq!(node.info(peer).tags["visited"], 1);
}

#[test]
fn a_trim_sees_values_as_closures_have_decayed_them() {
    let mut node = Node::new(quiet(1, 1, Duration::ZERO).unwrap().with_decay_resolution(ROUND));
    let peers = node.connect_many(2);
    let tag = register(&node, "mine", ROUND, Decay::custom(|_| None), Bump::overwrite());
    tag.bump(&peers[0], 10).unwrap();
    node.manager.tag_peer(&peers[1], "tag", 5);
    node.clock.advance(ROUND);
    node.trim();
    assert_eq!(node.trimmed(), [(peers[0], Reason::OnDemand)]);
}

#[test]
fn closures_are_asked_for_what_was_missed_and_not_without_end() {
    let node = node();
    let peer = PeerId::random();
    let calls = Arc::new(AtomicUsize::new(0));
    let own = calls.clone();
    let decay = Decay::custom(move |seen| {
        own.fetch_add(1, Ordering::Relaxed);
        Some(seen.value - 1)
    });
    let tag = register(&node, "mine", ROUND, decay, Bump::overwrite());
    tag.bump(&peer, 1_000).unwrap();
    node.clock.advance(ROUND * 3);
    assert_eq!(node.value(peer), 997);
    assert_eq!((node.value(peer), calls.load(Ordering::Relaxed)), (997, 3));
    node.manager.protect(&peer, "so that it does not expire");
    node.clock.advance(ROUND * 1_000_000);
    assert_eq!(node.value(peer), 997 - 4_096);
    assert_eq!(node.value(peer), 997 - 4_096, "what is beyond is left out, not put off");
}

#[test]
fn a_hundred_thousand_decaying_tags_cost_nothing_between_reads() {
    let mut node = Node::new(quiet(200_000, 200_000, SECOND).unwrap().with_decay_resolution(ROUND));
    let calls = Arc::new(AtomicUsize::new(0));
    let own = calls.clone();
    let decay = Decay::custom(move |seen| {
        own.fetch_add(1, Ordering::Relaxed);
        Some(seen.value)
    });
    let tag = register(&node, "mine", ROUND, decay, Bump::overwrite());
    let peers: Vec<_> = (0..100_000).map(|_| PeerId::random()).collect();
    for peer in &peers {
        node.connect(*peer);
        tag.bump(peer, 1).unwrap();
    }
    node.advance(ROUND * 100);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(node.behaviour.next_timer(), None);
    node.value(peers[0]);
    assert_eq!(calls.load(Ordering::Relaxed), 100);
}
