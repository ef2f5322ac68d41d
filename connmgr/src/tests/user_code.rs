//! Code of the user's that panics. The README has a table of it.

use super::*;
use crate::{Bump, BumpError, Decay, HardLimitReached};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::sync::{Barrier, OnceLock};
use std::thread;

pub(super) const TICK: Duration = Duration::from_millis(50);
/// Far more than anything here takes, for machines that are busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs on a thread of its own: what waits for itself would wait for ever.
pub(super) fn returns<T: Send + 'static>(what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    thread::spawn(move || done.send(call()));
    result
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|error| panic!("{what}: {error}"))
}

pub(super) fn config() -> Config {
    quiet(1, 100, Duration::ZERO).unwrap().with_decay_resolution(TICK)
}

pub(super) fn panics(node: &Node) -> Vec<(&'static str, u64)> {
    let panics = node.behaviour.hook_panics();
    panics.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn an_upsert_that_panics_reaches_its_caller_and_leaves_everything_as_it_was() {
    let mut node = Node::new(config());
    let (connected, stranger) = (node.connect_new(), PeerId::random());
    node.manager.tag_peer(&connected, "tag", 7);
    let records = node.records();
    for peer in [connected, stranger] {
        let before = node.manager.tag_info(&peer);
        let manager = node.manager.clone();
        let upsert = catch_unwind(AssertUnwindSafe(|| {
            manager.upsert_tag(&peer, "tag", |_| panic!("upsert"));
        }));
        assert_eq!(*upsert.unwrap_err().downcast::<&str>().unwrap(), "upsert");
        assert_eq!(node.manager.tag_info(&peer), before);
        // No lock is poisoned or held.
        returns("an upsert after one that panicked", move || {
            manager.upsert_tag(&peer, "tag", |old| old + 1);
            manager.untag_peer(&peer, "another");
        });
    }
    assert_eq!((node.value(connected), node.value(stranger)), (8, 1));
    assert_eq!(node.records(), records + 1);
    assert_eq!(panics(&node), [], "it was the caller's own");
}

#[test]
fn a_bump_function_that_panics_is_an_error_and_leaves_everything_as_it_was() {
    let mut node = Node::new(config());
    let (connected, stranger) = (node.connect_new(), PeerId::random());
    let bump = Bump::custom(|seen, by| if by == 0 { panic!("bump") } else { seen.value + by });
    let tag = node
        .manager
        .register_decaying_tag("tag", TICK, Decay::none(), bump)
        .unwrap();
    tag.bump(&connected, 3).unwrap();
    let records = node.records();
    for peer in [connected, stranger] {
        assert_eq!(tag.bump(&peer, 0), Err(BumpError::Panicked));
    }
    assert_eq!(node.records(), records);
    assert_eq!(node.value(connected), 3);
    tag.bump(&connected, 1).unwrap();
    assert_eq!(node.value(connected), 4);
    assert_eq!(panics(&node), [("bump", 2)]);
}

#[test]
fn a_decay_function_that_panics_leaves_the_value_and_is_asked_once_for_each_tick() {
    let mut node = Node::new(config());
    let peers = node.connect_many(3);
    let asked = Arc::new(AtomicUsize::new(0));
    let own = asked.clone();
    let decay = Decay::custom(move |_| {
        own.fetch_add(1, Ordering::Relaxed);
        panic!("decay")
    });
    let tag = node
        .manager
        .register_decaying_tag("tag", TICK, decay, Bump::overwrite())
        .unwrap();
    tag.bump(&peers[0], 5).unwrap();
    node.clock.advance(3 * TICK);
    // Asked by a reader and by a trim, and not again for the same ticks.
    assert_eq!(node.value(peers[0]), 5);
    assert_eq!(node.value(peers[0]), 5);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    node.clock.advance(TICK);
    assert_eq!(node.trim().closed, 2);
    assert!(node.is_open(peers[0]), "its value stays");
    assert_eq!(panics(&node), [("decay", 4)]);
}

#[test]
fn an_order_that_panics_ranks_the_peer_in_the_middle_and_the_trim_goes_on() {
    let wanted: Arc<OnceLock<PeerId>> = Arc::default();
    let own = wanted.clone();
    let config = config().with_order(move |candidate| {
        assert_eq!(Some(&candidate.peer), own.get(), "order");
        (1, 0)
    });
    let mut node = Node::new(config);
    let peers = node.connect_many(3);
    wanted.set(peers[2]).unwrap();
    assert_eq!(node.trim(), Trimmed { closed: 2, stuck: 0 });
    assert!(node.is_open(peers[2]));
    assert_eq!(panics(&node), [("order", 2)]);
    // In a caller's own call, and about a newcomer.
    assert!(!node.manager.explain(&peers[2]).would_be_closed());
}

#[test]
fn an_order_that_panics_about_a_newcomer_denies_it_like_any_other() {
    let config = quiet(1, 2, HOUR).unwrap().with_hard_limit(2).unwrap();
    let mut node = Node::new(config.with_order(|candidate| match candidate.age {
        Duration::ZERO => panic!("a newcomer"),
        _ => (0, 0),
    }));
    node.connect_many(2);
    node.clock.advance(SECOND);
    let denied = node.connect_as(PeerId::random(), inbound()).unwrap_err();
    assert!(denied.downcast::<HardLimitReached>().is_ok());
}

#[test]
fn a_closer_that_panics_is_done_without_in_every_kind_of_trim() {
    let config = Config::new(1, 3).unwrap().with_grace_period(Duration::ZERO);
    let config = config
        .with_hard_limit(3)
        .unwrap()
        .with_closer(|_, _, _| panic!("closer"));
    let mut node = Node::new(config);
    node.connect_many(3);
    node.advance(10 * SECOND);
    assert_eq!(node.count(), 1, "in the background");
    node.connect_many(1);
    assert_eq!(node.trim(), Trimmed { closed: 1, stuck: 0 });
    let friend = node.connect_new();
    node.manager.protect(&friend, "friend");
    assert_eq!(node.force_trim().closed, 1);
    node.connect(friend);
    node.connect(friend);
    let newcomer = PeerId::random();
    node.manager.protect(&newcomer, "friend");
    node.manager.unprotect(&friend, "friend");
    node.connect(newcomer);
    assert!(node.is_open(newcomer) && !node.is_open(friend), "at the hard limit");
    assert_eq!(panics(&node), [("closer", 5)]);
}

#[test]
fn a_clock_that_panics_stands_still_and_then_goes_on() {
    let broken = Arc::new(AtomicBool::new(false));
    let (own, clock) = (broken.clone(), Clock::new());
    let time = clock.clone();
    let config = Config::new(1, 2).unwrap().with_grace_period(SECOND);
    let config = config.with_clock(move || {
        assert!(!own.load(Ordering::Relaxed), "clock");
        time.now()
    });
    let mut node = Node::of(crate::new(config), clock);
    let peers = node.connect_many(3);
    node.advance(SECOND / 2);
    broken.store(true, Ordering::Relaxed);
    // In calls, in events and in polls.
    node.manager.tag_peer(&peers[0], "tag", 1);
    node.connect(peers[1]);
    node.advance(60 * SECOND);
    assert_eq!((node.count(), node.value(peers[0])), (4, 1), "no time has passed");
    let [(hook, count)] = panics(&node)[..] else { panic!() };
    assert!(hook == "clock" && count > 3);
    broken.store(false, Ordering::Relaxed);
    node.advance(10 * SECOND);
    assert_eq!(node.count(), 1);
}

#[test]
fn a_clock_that_goes_back_stands_still_until_it_has_caught_up() {
    let mut node = Node::new(Config::new(1, 2).unwrap().with_grace_period(60 * SECOND));
    node.connect_many(2);
    node.advance(HOUR);
    node.connect_many(2);
    let stood = node.clock.now();
    node.clock.set(stood - HOUR / 2);
    let peer = node.connect_new();
    assert_eq!(node.info(peer).first_seen, Some(stood));
    node.run();
    node.clock.set(stood + 70 * SECOND);
    node.run();
    assert_eq!(node.count(), 1);
}

/// Levels of what is logged of hooks, with their names.
#[derive(Default)]
struct Log(Mutex<Vec<(tracing::Level, String)>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Hook(Option<String>);
        impl tracing::field::Visit for Hook {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "hook" {
                    self.0 = Some(value.to_owned());
                }
            }
            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        let mut hook = Hook(None);
        event.record(&mut hook);
        if let Some(hook) = hook.0 {
            self.0.lock().unwrap().push((*event.metadata().level(), hook));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_hook_that_panics_is_logged_once_as_an_error() {
    let log = Arc::new(Log::default());
    tracing::subscriber::with_default(log.clone(), || {
        let config = config().with_closer(|_, _, _| panic!("closer"));
        let mut node = Node::new(config.with_order(|_| panic!("order")));
        node.connect_many(3);
        node.trim();
    });
    let logged = log.0.lock().unwrap();
    for (hook, panics) in [("closer", 2), ("order", 3)] {
        let levels: Vec<_> = logged
            .iter()
            .filter(|(_, of)| of == hook)
            .map(|(level, _)| *level)
            .collect();
        let mut expected = vec![tracing::Level::DEBUG; panics];
        expected[0] = tracing::Level::ERROR;
        assert_eq!(levels, expected, "{hook}");
    }
}

#[test]
fn who_waits_for_a_trim_may_panic_when_it_is_woken() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker")
        }
    }
    let mut node = Node::new(config());
    node.connect_many(3);
    let mut trimming = node.manager.trim_open_conns();
    let waker = Waker::from(Arc::new(Panics));
    assert!(trimming.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    let other = node.manager.trim_open_conns();
    assert_eq!(node.finish(other), Trimmed { closed: 2, stuck: 0 });
    assert_eq!(trimming.now_or_never(), Some(Ok(Trimmed { closed: 2, stuck: 0 })));
    assert_eq!(panics(&node), [("waker", 1)]);
    // When the manager goes, too.
    node.connect_many(3);
    let mut trimming = node.manager.trim_open_conns();
    assert!(trimming.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    node.manager.close();
    assert_eq!(trimming.now_or_never(), Some(Ok(Trimmed::default())));
    // And when the behaviour does.
    let mut node = Node::new(config()).unwired();
    node.connect_many(3);
    let mut trimming = node.manager.trim_open_conns();
    node.run();
    assert!(trimming.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    drop(node.behaviour);
    assert_eq!(trimming.now_or_never(), Some(Ok(Trimmed::default())));
}

#[test]
fn many_threads_meet_panics_and_lose_nothing() {
    let mut node = Node::new(config());
    let peer = node.connect_new();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            let (manager, start) = (node.manager.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for at in 0..200 {
                    let upsert = catch_unwind(AssertUnwindSafe(|| {
                        manager.upsert_tag(&peer, "sum", |old| match at % 2 {
                            0 => old + 1,
                            _ => panic!("odd"),
                        });
                    }));
                    assert_eq!(upsert.is_ok(), at % 2 == 0);
                }
            });
        }
    });
    assert_eq!(node.value(peer), 800);
}
