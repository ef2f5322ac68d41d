//! Many threads at once.

use super::*;
use std::sync::Barrier;
use std::thread;

#[test]
fn cm20_tagging_from_many_threads_while_the_background_trims() {
    let config = Config::new(1, 1).unwrap().with_grace_period(Duration::ZERO);
    let mut node = Node::new(config.with_silence_period(ms(1)).unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let taggers: Vec<_> = (0..4)
            .map(|_| {
                let manager = node.manager.clone();
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        manager.tag_peer(&PeerId::random(), "test", 1);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for tagger in taggers {
                tagger.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) || rounds < 100 {
            node.connect_many(2);
            node.advance(ms(1));
            rounds += 1;
        }
    });
    assert_eq!(node.count(), 1);
    assert!(!node.trimmed().is_empty());
}

#[test]
fn cm22_changes_and_trims_at_once_lose_nothing() {
    let mut node = Node::with(5, 5, Duration::ZERO);
    let peers = node.connect_many(2);
    for peer in &peers {
        node.manager.protect(peer, "base");
    }
    let start = Barrier::new(11);
    thread::scope(|scope| {
        for thread in 0..10 {
            let (manager, peers, start) = (node.manager.clone(), &peers, &start);
            scope.spawn(move || {
                start.wait();
                for at in 0..1_000 {
                    let peer = &peers[at % 2];
                    manager.upsert_tag(peer, "sum", |old| old + 1);
                    manager.tag_peer(peer, &thread.to_string(), 1);
                    let guard = manager.in_use(peer);
                    assert!(manager.tag_info(peer).is_some());
                    drop(guard);
                }
            });
        }
        start.wait();
        for _ in 0..100 {
            node.connect_many(20);
            node.trim();
        }
    });
    node.run();
    assert!(peers.iter().all(|peer| node.is_open(*peer)));
    let sum: i64 = peers.iter().map(|peer| node.info(*peer).tags["sum"]).sum();
    assert_eq!(sum, 10_000, "every upsert counts");
    assert_eq!(node.count(), 5 + 2);
}

#[test]
fn bumps_from_many_threads_add_up_even_through_a_closure() {
    let node = Node::with(1, 1, Duration::ZERO);
    let peer = PeerId::random();
    let tag = node
        .manager
        .register_decaying_tag(
            "tag",
            HOUR,
            crate::Decay::none(),
            crate::Bump::custom(|seen, by| seen.value + by),
        )
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            let tag = tag.clone();
            scope.spawn(move || (0..1_000).for_each(|_| tag.bump(&peer, 1).unwrap()));
        }
    });
    assert_eq!(node.value(peer), 8_000);
}

#[test]
fn handles_and_trims_in_flight_are_send_and_sync() {
    fn is<T: Send + Sync + 'static>() {}
    is::<Manager>();
    is::<crate::InUse>();
    is::<crate::DecayingTag>();
    is::<Trimming>();
    is::<Config>();
    let (_, manager) = crate::new(Config::disabled());
    let boxed: Box<dyn crate::ConnManager> = Box::new(manager);
    let null: Arc<dyn crate::ConnManager> = Arc::new(crate::NullConnMgr);
    let peer = PeerId::random();
    for manager in [&*boxed, &*null] {
        manager.tag_peer(&peer, "tag", 1);
        manager.upsert_tag(&peer, "tag", &mut |old| old + 1);
        manager.protect(&peer, "tag");
    }
    assert_eq!(
        (boxed.tag_info(&peer).unwrap().value, boxed.is_protected(&peer, "tag")),
        (2, true)
    );
    assert_eq!(
        (null.tag_info(&peer), null.is_protected(&peer, "tag")),
        (Some(TagInfo::default()), false)
    );
    assert!(!null.unprotect(&peer, "tag"));
    assert_eq!(null.trim_open_conns().now_or_never(), Some(Ok(Trimmed::default())));
}
