//! Trims that no Swarm carries out.

use super::*;
use crate::{ConnManager, NullConnMgr, PersistentPeers, TrimError, persistent};
use std::thread;
use std::time::Instant as Now;

#[test]
fn a_trim_before_the_swarm_runs_has_nothing_to_do_and_resolves_at_once() {
    let (_behaviour, manager) = crate::new(Config::new(1, 1).unwrap());
    assert_eq!(manager.trim_open_conns().now_or_never(), Some(Ok(Trimmed::default())));
    assert_eq!(manager.force_trim().now_or_never(), Some(Ok(Trimmed::default())));
}

#[test]
fn a_trim_of_a_swarm_that_is_polled_no_more_ends_with_an_error_and_is_done_when_it_is_polled_again() {
    let mut node = Node::with(1, 1, Duration::ZERO);
    node.connect_many(3);
    node.run();
    let waited = ms(50);
    for trimming in [node.manager.trim_open_conns(), node.manager.force_trim()] {
        let ended = futures::executor::block_on(trimming.impatient(waited));
        assert_eq!(ended, Err(TrimError::NotPolled { waited }));
    }
    assert!(node.told.is_empty());
    node.run();
    assert_eq!(node.told.len(), 2);
}

#[test]
fn a_trim_of_a_swarm_that_is_polled_waits_for_its_connections_however_long_they_take() {
    let mut node = Node::with(1, 1, Duration::ZERO).unwired();
    node.connect_many(3);
    node.run();
    let trimming = node.manager.trim_open_conns().impatient(ms(20));
    let waiting = thread::spawn(|| futures::executor::block_on(trimming));
    // A Swarm that is idle but for being woken: ten times as long as it may be left alone.
    let start = Now::now();
    while start.elapsed() < ms(200) {
        if node.flag.0.swap(false, Ordering::SeqCst) {
            node.run();
        }
        thread::yield_now();
    }
    assert!(!waiting.is_finished());
    node.release();
    node.run();
    assert_eq!(waiting.join().unwrap(), Ok(Trimmed { closed: 2, stuck: 0 }));
}

#[test]
fn a_manager_is_taken_as_it_is_or_behind_a_pointer() {
    let (_behaviour, manager) = crate::new(Config::new(1, 1).unwrap());
    let shared: Arc<dyn ConnManager> = Arc::new(manager.clone());
    let persistent = || PersistentPeers::new(PeerId::random(), persistent::Config::new());
    let peers = [(); 3].map(|()| PeerId::random());
    for (mut persistent, peer) in [
        persistent().with_manager(manager.clone()),
        persistent().with_manager(shared),
        persistent().with_manager(Box::new(manager.clone())),
    ]
    .into_iter()
    .zip(peers)
    {
        persistent.add_peer(peer, []).unwrap();
        assert!(manager.is_protected(&peer, "persistent"));
        persistent.remove_peer(&peer);
        assert!(!manager.is_protected(&peer, ""));
    }
    drop(persistent().with_manager(NullConnMgr));
}

#[test]
fn an_upsert_takes_a_closure_from_a_manager_and_from_a_trait_object() {
    let (_behaviour, manager) = crate::new(Config::new(1, 1).unwrap());
    let (peer, mut calls) = (PeerId::random(), 0);
    manager.upsert_tag(&peer, "tag", |old| {
        calls += 1;
        old + 2
    });
    let shared: Arc<dyn ConnManager> = Arc::new(manager.clone());
    shared.upsert_tag(&peer, "tag", &mut |old| old + 3);
    assert_eq!((manager.tag_info(&peer).unwrap().value, calls), (5, 1));
}
