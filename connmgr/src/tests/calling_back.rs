//! Code of the user's that calls the manager back, that takes its time, and that is dropped.

use super::user_code::{PATIENCE, TICK, config, panics, returns};
use super::*;
use crate::{Bump, BumpError, Decay, DecayingTag};
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Everything that a handle can do, about one peer.
fn everything(manager: &Manager, peer: &PeerId) {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let name = format!("own {}", SERIAL.fetch_add(1, Ordering::Relaxed));
    manager.tag_peer(peer, "reentrant", 1);
    manager.upsert_tag(peer, "reentrant", |old| old + 1);
    manager.untag_peer(peer, "reentrant");
    let _ = manager.tag_info(peer);
    manager.protect(peer, &name);
    assert!(manager.is_protected(peer, &name));
    let _ = manager.protected_peers();
    manager.unprotect(peer, &name);
    drop(manager.in_use(peer));
    let _ = (manager.info(), manager.counts(), manager.explain(peer));
    let _ = (manager.check_limit(1_000_000), manager.hard_cap()(peer, &inbound()));
    let tag = manager
        .register_decaying_tag(
            &name,
            TICK,
            Decay::custom(|seen| Some(seen.value - 1)),
            Bump::overwrite(),
        )
        .unwrap();
    tag.bump(peer, 5).unwrap();
    tag.remove(peer).unwrap();
    tag.close();
}

/// For closures that a configuration takes before there is a manager.
type Late = Arc<OnceLock<Manager>>;

fn call_back(late: &Late, peer: &PeerId) {
    if let Some(manager) = late.get() {
        everything(manager, peer);
    }
}

/// One manager with a closure of each kind, all of which do everything that a handle can.
#[test]
fn every_closure_may_call_the_manager_back() {
    returns("closures that call back", || {
        let late = Late::default();
        let peer = PeerId::random();
        let clock = Clock::new();
        let (order, closer, time) = (late.clone(), late.clone(), late.clone());
        let (now, asked) = (clock.clone(), AtomicUsize::new(0));
        let config = Config::new(2, 100)
            .unwrap()
            .with_grace_period(Duration::ZERO)
            .with_decay_resolution(TICK)
            .with_hard_limit(100)
            .unwrap()
            .with_order(move |candidate| {
                call_back(&order, &candidate.peer);
                (candidate.value, 0)
            })
            .with_closer(move |peer, _, _| {
                call_back(&closer, &peer);
                if let Some(manager) = closer.get() {
                    drop((manager.trim_open_conns(), manager.force_trim()));
                }
            })
            .with_clock(move || {
                // Not always: what it changes wakes the manager, which asks for the time.
                if asked.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
                    call_back(&time, &peer);
                }
                now.now()
            });
        let mut node = Node::of(crate::new(config), clock);
        node.connect(peer);
        let others = node.connect_many(5);
        assert!(late.set(node.manager.clone()).is_ok());

        let manager = node.manager.clone();
        node.manager.upsert_tag(&peer, "tag", |old| {
            everything(&manager, &peer);
            old + 5
        });
        assert_eq!(node.value(peer), 5);

        let own: Arc<OnceLock<DecayingTag>> = Arc::default();
        let (decaying, bumping) = (late.clone(), late.clone());
        let itself = own.clone();
        let decay = Decay::custom(move |seen| {
            call_back(&decaying, &seen.peer);
            Some(seen.value - 1)
        });
        let bump = Bump::custom(move |seen, by| {
            call_back(&bumping, &seen.peer);
            let again = itself.get().unwrap().bump(&seen.peer, by);
            assert_eq!(again, Err(BumpError::Recursive));
            seen.value + by
        });
        let tag = node
            .manager
            .register_decaying_tag("decaying", TICK, decay, bump)
            .unwrap();
        assert!(own.set(tag.clone()).is_ok());
        tag.bump(&peer, 10).unwrap();
        assert_eq!(node.value(peer), 15);
        node.clock.advance(2 * TICK);
        assert_eq!(node.value(peer), 13);
        for other in &others {
            tag.bump(other, 1).unwrap();
        }
        node.clock.advance(TICK);
        let trimming = node.manager.trim_open_conns();
        node.run();
        // The closer has told the manager much and closed nothing.
        node.advance(2 * SECOND);
        assert!(trimming.now_or_never().unwrap().unwrap().closed > 0);
        assert_eq!(panics(&node), []);
    });
}

#[test]
fn an_upsert_that_always_changes_what_it_upserts_has_the_last_word() {
    returns("an upsert that changes its own tag", || {
        let node = Node::new(config());
        let (peer, manager) = (PeerId::random(), node.manager.clone());
        node.manager.upsert_tag(&peer, "tag", |old| {
            manager.tag_peer(&peer, "tag", old + 1);
            -7
        });
        assert_eq!(node.value(peer), -7);
        let own: Arc<OnceLock<DecayingTag>> = Arc::default();
        let other = own.clone();
        let tag = node
            .manager
            .register_decaying_tag(
                "decaying",
                TICK,
                Decay::none(),
                Bump::custom(move |seen, by| {
                    // A removal is no bump: it changes the value each time.
                    other.get().unwrap().remove(&seen.peer).unwrap();
                    by
                }),
            )
            .unwrap();
        assert!(own.set(tag.clone()).is_ok());
        tag.bump(&peer, 5).unwrap();
        tag.bump(&peer, 6).unwrap();
        assert_eq!(node.value(peer), -1);
    });
}

/// Says that it was reached, and waits until it may go on.
#[derive(Clone)]
struct Gate {
    reached: Sender<()>,
    open: Arc<Mutex<Receiver<()>>>,
}

impl Gate {
    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let ((reached, was_reached), (open, opened)) = (channel(), channel());
        let open_gate = open;
        let gate = Self {
            reached,
            open: Arc::new(Mutex::new(opened)),
        };
        (gate, was_reached, open_gate)
    }

    fn pass(&self) {
        let _ = self.reached.send(());
        // Once the other end is gone it stands open.
        let _ = self.open.lock().unwrap().recv();
    }
}

/// While `slow` stands in its closure, everything else goes on: about the same peer, and from
/// another thread.
fn meanwhile(
    what: &str,
    manager: &Manager,
    peer: PeerId,
    gate: (Receiver<()>, Sender<()>),
    slow: impl FnOnce() + Send,
) {
    let (reached, open) = gate;
    thread::scope(|scope| {
        let slow = scope.spawn(slow);
        reached.recv_timeout(PATIENCE).expect(what);
        let manager = manager.clone();
        returns(what, move || {
            manager.tag_peer(&peer, "other", 1);
            manager.upsert_tag(&peer, "another", |old| old + 1);
            manager.protect(&peer, "meanwhile");
            manager.unprotect(&peer, "meanwhile");
            drop(manager.in_use(&peer));
            let _ = (manager.info(), manager.counts(), manager.protected_peers());
            drop(manager.trim_open_conns());
        });
        assert!(!slow.is_finished(), "{what}");
        drop(open);
    });
}

#[test]
fn a_slow_closure_holds_up_nothing_but_what_asked_it() {
    // In a caller's own call.
    let mut node = Node::new(config());
    let peer = node.connect_new();
    let (gate, reached, open) = Gate::new();
    let manager = node.manager.clone();
    meanwhile("an upsert", &node.manager, peer, (reached, open), || {
        manager.upsert_tag(&peer, "tag", |old| {
            gate.pass();
            old + 1
        });
    });
    let (gate, reached, open) = Gate::new();
    let bump = Bump::custom(move |_, by| {
        gate.pass();
        by
    });
    let tag = node
        .manager
        .register_decaying_tag("bump", TICK, Decay::none(), bump)
        .unwrap();
    meanwhile("a bump", &node.manager, peer, (reached, open), || {
        tag.bump(&peer, 1).unwrap()
    });
    let (gate, reached, open) = Gate::new();
    let decay = Decay::custom(move |seen| {
        gate.pass();
        Some(seen.value)
    });
    let tag = node
        .manager
        .register_decaying_tag("decay", TICK, decay, Bump::overwrite())
        .unwrap();
    tag.bump(&peer, 1).unwrap();
    node.clock.advance(TICK);
    let manager = node.manager.clone();
    meanwhile(
        "a decay function, by a reader",
        &node.manager,
        peer,
        (reached, open),
        || {
            let _ = manager.tag_info(&peer);
        },
    );
    // In a poll of the manager's.
    let (gate, reached, open) = Gate::new();
    let mut node = Node::new(config().with_closer(move |_, _, _| gate.pass()));
    let peers = node.connect_many(2);
    let manager = node.manager.clone();
    meanwhile("a closer", &manager, peers[0], (reached, open), move || {
        drop(node.manager.trim_open_conns());
        node.run();
    });
    let (gate, reached, open) = Gate::new();
    let mut node = Node::new(config().with_order(move |_| {
        gate.pass();
        (0, 0)
    }));
    let peers = node.connect_many(2);
    let manager = node.manager.clone();
    meanwhile("an order", &manager, peers[0], (reached, open), move || {
        drop(node.manager.trim_open_conns());
        node.run();
    });
}

#[test]
fn what_a_closure_holds_is_dropped_under_no_lock() {
    returns("a closure's drop that calls the manager", || {
        let mut node = Node::new(config());
        let peer = node.connect_new();
        let manager = node.manager.clone();
        // Released when the closure is dropped: a guard of the very peer that has the tag.
        let guard = node.manager.in_use(&peer);
        let decay = Decay::custom(move |seen| {
            let _ = &guard;
            Some(seen.value)
        });
        let tag = manager
            .register_decaying_tag("tag", TICK, decay, Bump::overwrite())
            .unwrap();
        tag.bump(&peer, 5).unwrap();
        tag.close();
        drop(tag);
        // Its value goes from the record now.
        assert_eq!(node.value(peer), 0);
        // And what the closure held, at the latest when another tag ends.
        let other = manager
            .register_decaying_tag("other", TICK, Decay::none(), Bump::overwrite())
            .unwrap();
        other.close();
        assert_eq!(node.manager.explain(&peer).in_use, 0);
    });
}
