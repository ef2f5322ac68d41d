//! What it costs when nothing is to be done.

use super::*;

#[test]
fn with_a_hundred_thousand_peers_and_nothing_to_do_a_poll_looks_at_none_of_them() {
    let mut node = Node::new(Config::new(100_000, 150_000).unwrap());
    let peers: Vec<_> = (0..100_000).map(|_| PeerId::random()).collect();
    for peer in &peers {
        node.connect(*peer);
        node.manager.tag_peer(peer, "tag", 1);
    }
    node.advance(HOUR);
    assert_eq!(node.behaviour.next_timer(), None, "no timer fires");
    // Every part of the book is locked: a poll that looked at one record would never return.
    node.behaviour.poll_under_all_locks();
    // And so would the clock, if it were asked.
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let own = asked.clone();
    let start = Instant::now();
    let config = Config::new(100, 150).unwrap().with_clock(move || {
        own.fetch_add(1, Ordering::Relaxed);
        start
    });
    let (mut behaviour, _manager) = crate::new(config);
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        assert!(behaviour.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[test]
fn a_timer_runs_only_at_the_high_watermark() {
    let mut node = Node::new(Config::new(5, 10).unwrap().with_grace_period(Duration::ZERO));
    let peers = node.connect_many(9);
    assert_eq!(node.behaviour.next_timer(), None);
    let tenth = node.connect_new();
    assert!(node.behaviour.next_timer().is_some());
    node.disconnect_peer(tenth);
    // It may fire once more, and then no longer.
    node.advance(10 * SECOND);
    assert_eq!((node.behaviour.next_timer(), node.told.len()), (None, 0));
    assert!(peers.iter().all(|peer| node.is_open(*peer)));
}

#[test]
fn an_event_that_comes_just_before_a_due_trim_is_polled_does_not_put_it_off() {
    let mut node = Node::new(Config::new(5, 10).unwrap().with_grace_period(60 * SECOND));
    let returning = node.connect_new();
    node.connect_many(10);
    // In grace, all of them: looked at in vain, and then again once that is over.
    node.advance(10 * SECOND);
    node.disconnect_peer(returning);
    node.clock.advance(50 * SECOND);
    // Past its grace when it comes: somebody to be reconsidered, as the tick is due.
    node.connect(returning);
    assert_eq!(node.told.len(), 6);
}

#[test]
fn under_constant_churn_there_is_one_trim_for_each_silence_period() {
    let mut node = Node::new(Config::new(20, 40).unwrap().with_grace_period(2 * SECOND));
    for second in 0..600_u64 {
        for _ in 0..10 {
            node.connect_new();
        }
        let leaving: Vec<_> = node.connections.values().map(|(peer, _)| *peer).take(3).collect();
        for peer in leaving {
            node.disconnect_peer(peer);
        }
        node.advance(SECOND);
        let trims = node
            .events
            .iter()
            .filter(|event| !matches!(event, Event::Trimmed { .. }))
            .count();
        assert!(trims as u64 <= second / 10 + 1, "{trims} trims in {second} s");
    }
    // Low, what came in a silence period, and what is in grace.
    assert!(node.count() <= 20 + 100 + 20, "{} connections", node.count());
}

#[test]
fn a_trim_gives_the_swarm_its_turn() {
    let mut node = Node::with(1_000, 100_000, Duration::ZERO);
    for _ in 0..50_000 {
        node.connect_new();
    }
    let trim = node.manager.trim_open_conns();
    let (mut turns, mut row, mut longest) = (0, 0, 0);
    while node.count() > 1_000 || node.manager.info().closing > 0 {
        let told = node.told.len();
        // A turn ends when the behaviour is pending.
        if node.poll_until_pending_or_one() {
            row += node.told.len() - told;
        } else {
            turns += 1;
            row = 0;
        }
        longest = longest.max(row);
    }
    assert_eq!(
        node.finish(trim),
        Trimmed {
            closed: 49_000,
            stuck: 0
        }
    );
    assert!(longest <= 32, "{longest} closes in a row");
    assert!(turns >= 49_000 / 32, "{turns} turns");
}
