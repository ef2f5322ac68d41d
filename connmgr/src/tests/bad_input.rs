//! What makes no sense harms nobody.

use super::*;
use crate::{Bump, BumpError, Decay, RegisterError};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn absurd_durations_stand_for_very_long_ones() {
    let config = Config::new(1, 1)
        .unwrap()
        .with_grace_period(Duration::MAX)
        .with_silence_period(Duration::MAX)
        .unwrap()
        .with_close_deadline(Duration::MAX)
        .with_early_tags(Duration::MAX, 10)
        .with_retention(Duration::MAX, 10)
        .with_decay_resolution(Duration::MAX);
    let mut node = Node::new(config);
    let peers = node.connect_many(3);
    let tag = node
        .manager
        .register_decaying_tag("tag", Duration::ZERO, Decay::fixed(i64::MAX), Bump::sum_unbounded())
        .unwrap();
    tag.bump(&peers[0], 1).unwrap();
    node.advance(Duration::from_secs(1 << 33));
    assert_eq!(node.trim(), Trimmed::default(), "all are in grace");
    assert_eq!(node.force_trim(), Trimmed { closed: 2, stuck: 0 });
    let zero = Config::new(1, 1)
        .unwrap()
        .with_grace_period(Duration::ZERO)
        .with_close_deadline(Duration::ZERO)
        .with_early_tags(Duration::ZERO, 0)
        .with_retention(Duration::ZERO, 0)
        .with_decay_resolution(Duration::ZERO)
        .with_max_tags(0);
    let mut node = Node::new(zero).unwired();
    let tag = node
        .manager
        .register_decaying_tag("tag", Duration::ZERO, Decay::none(), Bump::overwrite())
        .unwrap();
    let peers = node.connect_many(3);
    node.manager.tag_peer(&peers[0], "tag", 1);
    node.manager.tag_peer(&PeerId::random(), "tag", 1);
    tag.bump(&peers[0], 1).unwrap();
    assert_eq!((node.value(peers[0]), node.manager.counts().early), (0, 0));
    assert_eq!(
        node.trim(),
        Trimmed { closed: 0, stuck: 2 },
        "a deadline of zero waits for nobody"
    );
}

#[test]
fn values_beyond_the_range_stay_at_its_end_and_come_back_exactly() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peer = node.connect_new();
    node.manager.tag_peer(&peer, "a", i64::MAX);
    node.manager.tag_peer(&peer, "b", i64::MAX);
    node.manager.tag_peer(&peer, "c", -3);
    assert_eq!(node.value(peer), i64::MAX);
    node.manager.untag_peer(&peer, "a");
    assert_eq!(node.value(peer), i64::MAX - 3);
    node.manager.tag_peer(&peer, "b", i64::MIN);
    assert_eq!(node.value(peer), i64::MIN);
    let tag = node
        .manager
        .register_decaying_tag("tag", SECOND, Decay::none(), Bump::sum_unbounded())
        .unwrap();
    tag.bump(&peer, i64::MAX).unwrap();
    tag.bump(&peer, i64::MAX).unwrap();
    assert_eq!(node.info(peer).decaying["tag"], i64::MAX);
    assert_eq!(node.value(peer), -4);
}

#[test]
fn a_million_tags_of_one_peer_are_a_thousand_and_some_that_are_ignored() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    let peer = node.connect_new();
    for at in 0..1_000_000 {
        node.manager.tag_peer(&peer, &at.to_string(), 1);
    }
    assert_eq!((node.info(peer).tags.len(), node.value(peer)), (1_024, 1_024));
    assert_eq!(node.manager.info().refused_tags, 1_000_000 - 1_024);
    node.manager.upsert_tag(&peer, "another", |_| 5);
    let tag = node
        .manager
        .register_decaying_tag("more", SECOND, Decay::none(), Bump::overwrite())
        .unwrap();
    tag.bump(&peer, 5).unwrap();
    assert_eq!(node.value(peer), 1_024);
    // Those that it has can be changed, and give their place up.
    node.manager.tag_peer(&peer, "0", 10);
    node.manager.untag_peer(&peer, "1");
    node.manager.tag_peer(&peer, "another", 100);
    assert_eq!(node.value(peer), 1_022 + 10 + 100);
}

#[test]
fn impossible_parameters_of_tags_are_refused() {
    let node = Node::with(1, 1, Duration::ZERO);
    let register = |decay, bump| node.manager.register_decaying_tag("tag", SECOND, decay, bump).err();
    assert_eq!(
        register(Decay::none(), Bump::sum_bounded(2, 1)),
        Some(RegisterError::Bounds { min: 2, max: 1 })
    );
    node.manager.close();
    assert_eq!(register(Decay::none(), Bump::overwrite()), Some(RegisterError::Closed));
}

#[test]
fn a_decay_that_lets_the_value_grow_is_refused() {
    let node = Node::with(1, 1, Duration::ZERO);
    let register = |name, decay| {
        node.manager
            .register_decaying_tag(name, SECOND, decay, Bump::overwrite())
    };
    for by in [f64::NAN, f64::INFINITY, -0.5, 1.000_001, 1.5] {
        let refused = register("tag", Decay::linear(by)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("invalid coefficient {by} of a linear decay: expected 0 to 1")
        );
    }
    for by in [-1, i64::MIN] {
        let refused = register("tag", Decay::fixed(by)).unwrap_err();
        assert_eq!(refused, RegisterError::Amount(by));
    }
    for (name, decay) in [
        ("0", Decay::linear(0.0)),
        ("1", Decay::linear(1.0)),
        ("none", Decay::fixed(0)),
    ] {
        assert!(register(name, decay).is_ok(), "{name}");
    }
}

#[test]
fn closures_that_panic_poison_nothing() {
    let mut node = Node::new(quiet(1, 1, Duration::ZERO).unwrap().with_decay_resolution(ms(50)));
    let peers = node.connect_many(3);
    let upsert = catch_unwind(AssertUnwindSafe(|| {
        node.manager.upsert_tag(&peers[0], "tag", |_| panic!("upsert"))
    }));
    assert!(upsert.is_err());
    assert_eq!(node.value(peers[0]), 0);
    let decay = Decay::custom(|_| panic!("decay"));
    let tag = node
        .manager
        .register_decaying_tag("decay", ms(50), decay, Bump::overwrite())
        .unwrap();
    tag.bump(&peers[0], 5).unwrap();
    node.clock.advance(ms(100));
    assert_eq!(node.value(peers[0]), 5);
    let bump = Bump::custom(|_, _| panic!("bump"));
    let tag = node
        .manager
        .register_decaying_tag("bump", ms(50), Decay::none(), bump)
        .unwrap();
    assert_eq!(tag.bump(&peers[0], 5), Err(BumpError::Panicked));
    assert_eq!(node.value(peers[0]), 5);
    assert_eq!(node.trim(), Trimmed { closed: 2, stuck: 0 });
    assert!(node.is_open(peers[0]));
}

#[test]
fn a_closer_that_panics_is_done_without() {
    let config = quiet(1, 1, Duration::ZERO)
        .unwrap()
        .with_closer(|_, _, _| panic!("closer"));
    let mut node = Node::new(config);
    node.connect_many(3);
    assert_eq!(node.trim(), Trimmed { closed: 2, stuck: 0 });
}

#[test]
fn an_upsert_may_change_what_it_upserts() {
    let node = Node::with(1, 1, Duration::ZERO);
    let peer = PeerId::random();
    let mut calls = 0;
    node.manager.upsert_tag(&peer, "tag", |old| {
        calls += 1;
        if calls == 1 {
            node.manager.tag_peer(&peer, "tag", 10);
        }
        old + 1
    });
    assert_eq!((node.value(peer), calls), (11, 2));
}

#[test]
fn names_of_any_kind_are_names() {
    let node = Node::with(1, 1, Duration::ZERO);
    let peer = PeerId::random();
    let long = "x".repeat(100_000);
    for name in ["", "\0", "ü\u{202e}", &long] {
        node.manager.tag_peer(&peer, name, 1);
        node.manager.protect(&peer, name);
        assert!(node.manager.is_protected(&peer, name));
    }
    assert_eq!(node.value(peer), 4);
}
