//! Code of the application's that a host calls: it panics, it is slow, it calls back.

use crate::common::{address, config, host, in_time, keypair, knock, peer, until, until_heard, wide};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use knock_host::discovery::{Discoverer, StaticList};
use knock_host::{Behaviour, BehaviourConfig, Handle, Hook, Host, HostConfig, MAX_PEERS_PER_HOST, Stream};
use libp2p_core::transport::MemoryTransport;
use libp2p_core::{Multiaddr, Transport as _};
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::{Identity, SignError};
use libp2p_swarm::{NetworkBehaviour as _, Swarm, SwarmEvent};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

type StartResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Closing = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;
type Asked = Arc<dyn Fn(&PeerId) + Send + Sync>;

/// A discoverer whose methods do what a test wants.
#[derive(Default, Clone)]
struct Mischief {
    list: StaticList,
    start: Option<fn(&Handle)>,
    find: Option<Asked>,
    close: Option<Closing>,
}

impl Mischief {
    fn finding(list: &StaticList, find: impl Fn(&PeerId) + Send + Sync + 'static) -> Self {
        Self {
            list: list.clone(),
            find: Some(Arc::new(find)),
            ..Self::default()
        }
    }
}

impl Discoverer for Mischief {
    fn start(&self, host: &Handle) -> StartResult {
        if let Some(start) = self.start {
            start(host);
        }
        Ok(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let close = self.close.as_ref();
        close.map_or_else(|| std::future::ready(()).boxed(), |close| close())
    }

    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        if let Some(find) = &self.find {
            find(peer);
        }
        self.list.addresses(peer)
    }
}

/// Runs `work` on a thread of its own. A thread that waits for a lock for ever is told by the time.
fn comes_back<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    let result = waiting.recv_timeout(Duration::from_secs(20));
    result.expect("it returns, and waits for no lock that it holds")
}

/// How often code of the application's has panicked at `hook`.
fn panics(host: &Handle, hook: Hook) -> u64 {
    host.counters().hook_panics.get(hook)
}

#[tokio::test]
async fn a_discoverer_that_panics_when_it_is_asked_does_not_end_the_host() {
    let list = StaticList::new();
    let wild = Mischief::finding(&list, |asked| assert_ne!(*asked, peer(3), "of all peers"));
    let one = Host::start(config(knock(1)), wild).await.unwrap();
    let (two, three) = (host(2, &list).await, host(3, &list).await);
    list.add(peer(1), address(&one));
    list.add(peer(2), address(&two));
    let to_three = one.open_stream(peer(3), "x", wide()).unwrap();
    until("it was asked twice", || panics(&one, Hook::FindPeer) >= 2).await;
    // It dials others, and lets in those that dial.
    let to_two = one.open_stream(peer(2), "x", wide()).unwrap();
    let from_one = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&to_two, &from_one).await;
    let at_three = three.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&to_three, &at_three).await;
    in_time(one.close()).await;
}

#[tokio::test]
async fn a_discoverer_that_panics_while_it_closes_does_not_keep_the_host_open() {
    let at_once: fn() -> BoxFuture<'static, ()> = || panic!("before there is a future");
    let later: fn() -> BoxFuture<'static, ()> = || async { panic!("in the future") }.boxed();
    let at_its_end: fn() -> BoxFuture<'static, ()> = || {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(std::thread::panicking(), "when the future is dropped");
            }
        }
        let bomb = Bomb;
        async move {
            let _bomb = bomb;
        }
        .boxed()
    };
    for close in [at_once, later, at_its_end] {
        let list = StaticList::new();
        let wild = Mischief {
            close: Some(Arc::new(close)),
            ..Mischief::default()
        };
        let one = Host::start(config(knock(1)), wild).await.unwrap();
        let two = host(2, &list).await;
        list.add(peer(1), address(&one));
        let there = one.open_stream(peer(2), "x", wide()).unwrap();
        let back = two.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&back, &there).await;
        in_time(one.close()).await;
        assert_eq!(in_time(there.recv()).await, None, "its streams are closed");
        until("and the connection", || !two.is_connected(&peer(1))).await;
        assert_eq!(panics(&one, Hook::CloseDiscoverer), 1);
        two.close().await;
    }
}

#[tokio::test]
async fn a_discoverer_that_does_not_close_delays_the_close_by_five_seconds_and_may_call_its_host() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "given up");
        }
    }
    let closing = Arc::new(Mutex::new(None::<Arc<Host>>));
    let wild = Mischief {
        close: Some({
            let closing = closing.clone();
            Arc::new(move || {
                let host = closing.lock().unwrap().take();
                async move {
                    let _bomb = Bomb;
                    let host = host.expect("it closes once");
                    // Its streams still work, and it waits for what waits for it.
                    host.open_stream(peer(2), "from the discoverer", wide()).unwrap();
                    host.close().await;
                }
                .boxed()
            })
        }),
        ..Mischief::default()
    };
    let one = Arc::new(Host::start(config(knock(1)), wild).await.unwrap());
    *closing.lock().unwrap() = Some(one.clone());
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    one.close().await;
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(10)).contains(&took),
        "{took:?}"
    );
    assert_eq!(panics(&one, Hook::CloseDiscoverer), 1);
}

#[tokio::test]
async fn a_panic_of_a_discoverer_at_the_start_reaches_the_caller_and_leaves_nothing_running() {
    let first = host(1, &StaticList::new()).await;
    let taken = address(&first);
    first.close().await;
    let at = |seed| HostConfig::new(knock(seed)).with_listen_address(taken.clone());
    static KEPT: Mutex<Option<Handle>> = Mutex::new(None);
    let wild = Mischief {
        start: Some(|host| {
            *KEPT.lock().unwrap() = Some(host.clone());
            panic!("at the start");
        }),
        ..Mischief::default()
    };
    let started = AssertUnwindSafe(Host::start(at(1), wild)).catch_unwind().await;
    assert!(started.is_err(), "the caller sees the panic");
    let kept = KEPT.lock().unwrap().take().unwrap();
    let opened = kept.open_stream(peer(2), "x", wide()).map(|_| ());
    assert_eq!(opened, Err(knock_host::OpenError::HostClosed));
    // The port is free, and a host with the same key starts there.
    let again = Host::start(at(1), StaticList::new()).await.unwrap();
    again.close().await;
}

#[tokio::test]
async fn a_slow_discoverer_delays_the_peer_that_it_is_asked_about_and_no_other() {
    let list = StaticList::new();
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let asked = Arc::new(AtomicUsize::new(0));
    let slow = {
        let asked = asked.clone();
        Mischief::finding(&list, move |about| {
            if *about == peer(3) {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = held.lock().unwrap().recv();
            }
        })
    };
    let one = Host::start(config(knock(1)), slow).await.unwrap();
    let (two, three) = (host(2, &StaticList::new()).await, host(3, &StaticList::new()).await);
    list.add(peer(2), address(&two));
    list.add(peer(3), address(&three));
    let to_three = one.open_stream(peer(3), "x", wide()).unwrap();
    until("it was asked", || asked.load(Ordering::SeqCst) == 1).await;
    let to_two = one.open_stream(peer(2), "x", wide()).unwrap();
    let from_one = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&to_two, &from_one).await;
    // A stream to the same peer that is opened anew does not ask a second time while the first call
    // runs.
    to_three.close();
    let to_three = one.open_stream(peer(3), "x", wide()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    drop(let_go);
    let at_three = three.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&to_three, &at_three).await;
    in_time(one.close()).await;
}

#[tokio::test]
async fn a_discoverer_that_never_answers_is_asked_256_times_and_the_host_goes_on() {
    let list = StaticList::new();
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let asked = Arc::new(AtomicUsize::new(0));
    let stuck = {
        let asked = asked.clone();
        Mischief::finding(&StaticList::new(), move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
        })
    };
    let one = Host::start(config(knock(1)), stuck).await.unwrap();
    list.add(peer(1), address(&one));
    let random = || Keypair::generate_ed25519().public().to_peer_id();
    let streams: Vec<_> = (0..MAX_PEERS_PER_HOST)
        .map(|_| one.open_stream(random(), "x", wide()).unwrap())
        .collect();
    until("about all of them", || {
        asked.load(Ordering::SeqCst) == MAX_PEERS_PER_HOST
    })
    .await;
    drop(streams);
    let back = one.open_stream(peer(2), "x", wide()).unwrap();
    let two = host(2, &list).await;
    let there = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    // Dials begin again when it answers.
    two.close().await;
    until("the connection is gone", || !one.is_connected(&peer(2))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked.load(Ordering::SeqCst), MAX_PEERS_PER_HOST);
    drop(let_go);
    until("it is asked again", || {
        asked.load(Ordering::SeqCst) > MAX_PEERS_PER_HOST
    })
    .await;
    in_time(one.close()).await;
}

#[tokio::test]
async fn a_discoverer_may_call_the_host_that_asks_it() {
    let list = StaticList::new();
    let handle = Arc::new(Mutex::new(None::<Handle>));
    let busy = {
        let handle = handle.clone();
        Mischief::finding(&list, move |about| {
            let Some(host) = handle.lock().unwrap().clone() else {
                return;
            };
            let name = "from the discoverer";
            let opened = host.open_stream(peer(4), name, wide()).unwrap();
            opened.send("?");
            host.is_connected(about);
            host.counters().peers();
            host.listen_addresses();
            opened.close();
        })
    };
    let one = Host::start(config(knock(1)), busy).await.unwrap();
    *handle.lock().unwrap() = Some(one.handle().clone());
    let two = host(2, &StaticList::new()).await;
    list.add(peer(2), address(&two));
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    assert_eq!(panics(&one, Hook::FindPeer), 0);
    in_time(one.close()).await;
}

#[tokio::test]
async fn an_admission_rule_that_panics_denies_and_others_are_let_in() {
    let list = StaticList::new();
    let calling = Arc::new(OnceLock::<Handle>::new());
    let strict = {
        let calling = calling.clone();
        config(knock(1)).with_admission(move |caller, _| {
            assert_ne!(*caller, peer(3), "of all peers");
            // It may call the host that asks it.
            let host = calling.get().expect("no caller comes before it is there");
            drop(host.open_stream(*caller, "from the hook", wide()));
            Ok(())
        })
    };
    let one = Host::start(strict, StaticList::new()).await.unwrap();
    calling.set(one.handle().clone()).unwrap();
    list.add(peer(1), address(&one));
    let (two, three) = (host(2, &list).await, host(3, &list).await);
    let _denied = one.open_stream(peer(3), "x", wide()).unwrap();
    let _deny = three.open_stream(peer(1), "x", wide()).unwrap();
    until("it was asked", || panics(&one, Hook::Admission) >= 1).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&back, &there).await;
    assert!(!one.is_connected(&peer(3)));
}

/// Signs, and panics while it is told to.
struct Signer {
    keypair: Keypair,
    panics: Arc<AtomicBool>,
}

impl Identity for Signer {
    fn public_key(&self) -> [u8; 32] {
        self.keypair.public().try_into_ed25519().unwrap().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        assert!(!self.panics.load(Ordering::SeqCst), "the signer is gone");
        Ok(self.keypair.sign(message).unwrap().try_into().unwrap())
    }
}

#[tokio::test]
async fn an_identity_that_panics_costs_the_dial_at_hand_and_no_later_one() {
    let list = StaticList::new();
    let panicking = Arc::new(AtomicBool::new(false));
    let signer = Signer {
        keypair: keypair(1),
        panics: panicking.clone(),
    };
    let signing = libp2p_knock::Config::with_signer(Arc::new(signer)).unwrap();
    let one = Host::start(config(signing), list.clone()).await.unwrap();
    let two = Host::start(config(knock(2).ragep2p_compatible()), StaticList::new())
        .await
        .unwrap();
    list.add(peer(2), address(&two));
    panicking.store(true, Ordering::SeqCst);
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until("some dials were made", || two.counters().inbound_dials.get() >= 2).await;
    // In the caller's own call it reaches the caller.
    let signed = std::panic::catch_unwind(AssertUnwindSafe(|| one.sign(b"message")));
    assert!(signed.is_err());
    panicking.store(false, Ordering::SeqCst);
    assert!(one.sign(b"message").is_ok());
    until_heard(&there, &back).await;
}

/// Calls `work` when it is woken.
struct Waking<F>(F);

impl<F: Fn() + Send + Sync> Wake for Waking<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[tokio::test]
async fn a_task_that_is_woken_for_a_message_may_call_its_stream_and_a_waker_may_panic() {
    let (one, two, _) = crate::common::pair().await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = Arc::new(two.open_stream(peer(1), "x", wide()).unwrap());
    until_heard(&there, &back).await;
    while futures::poll!(std::pin::pin!(back.recv())).is_ready() {}
    let woken = Arc::new(AtomicUsize::new(0));
    let waker = {
        let (woken, stream, host) = (woken.clone(), back.clone(), two.handle().clone());
        Waker::from(Arc::new(Waking(move || {
            stream.send("from the waker");
            assert!(stream.is_open() && host.is_connected(&peer(1)));
            woken.fetch_add(1, Ordering::SeqCst);
        })))
    };
    assert!(back.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    there.send("!");
    until("it is woken", || woken.load(Ordering::SeqCst) == 1).await;
    // Two that wait, of whom the first panics when it is woken: the second is woken all the same,
    // and nothing is lost.
    let order = Arc::new(AtomicUsize::new(0));
    let bad = Waker::from(Arc::new(Waking(|| panic!("woken"))));
    let good = {
        let order = order.clone();
        Waker::from(Arc::new(Waking(move || _ = order.fetch_add(1, Ordering::SeqCst))))
    };
    while futures::poll!(std::pin::pin!(back.recv())).is_ready() {}
    for waker in [&bad, &good] {
        assert!(back.poll_recv(&mut Context::from_waker(waker)).is_pending());
    }
    let before = two.counters().peer(&peer(1)).unwrap().conn_established.get();
    there.send("!");
    until("the second is woken", || order.load(Ordering::SeqCst) == 1).await;
    until_heard(&there, &back).await;
    assert_eq!(panics(&two, Hook::Waker), 1);
    let counters = two.counters().peer(&peer(1)).unwrap();
    assert_eq!(counters.conn_established.get(), before, "on the same connection");
}

/// A Swarm that runs on no executor: its own poll polls its connections.
fn swarm(seed: u8) -> Swarm<Behaviour> {
    let keypair = keypair(seed);
    let noise = libp2p::noise::Config::new(&keypair).unwrap();
    let transport = MemoryTransport::new()
        .upgrade(libp2p_core::upgrade::Version::V1Lazy)
        .authenticate(noise)
        .multiplex(libp2p::yamux::Config::default())
        .boxed();
    let behaviour = Behaviour::new(peer(seed), BehaviourConfig::default());
    Swarm::new(
        transport,
        behaviour,
        peer(seed),
        libp2p_swarm::Config::without_executor(),
    )
}

#[test]
fn an_executor_may_call_the_streams_of_its_swarm_when_it_is_woken() {
    comes_back(|| {
        let (mut one, mut two) = (swarm(1), swarm(2));
        two.listen_on("/memory/0".parse().unwrap()).unwrap();
        let at = futures::executor::block_on(async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = two.select_next_some().await {
                    return address;
                }
            }
        });
        one.dial(at.with_p2p(peer(2)).unwrap()).unwrap();
        let (here, there) = (one.behaviour().handle(), two.behaviour().handle());
        let (woken, connected) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let waker = {
            let (here, there, woken, connected) = (here.clone(), there.clone(), woken.clone(), connected.clone());
            Waker::from(Arc::new(Waking(move || {
                woken.fetch_add(1, Ordering::SeqCst);
                // Takes the lock of all peers, and that of this one.
                let both = here.is_connected(&peer(2)) && there.is_connected(&peer(1));
                connected.fetch_add(usize::from(both), Ordering::SeqCst);
            })))
        };
        let mut cx = Context::from_waker(&waker);
        // Until no task has anything to do, so that the next send wakes one.
        let mut rest = || loop {
            let before = woken.load(Ordering::SeqCst);
            while one.poll_next_unpin(&mut cx).is_ready() || two.poll_next_unpin(&mut cx).is_ready() {}
            if before == woken.load(Ordering::SeqCst) {
                break;
            }
        };
        let stream = here.open_stream(peer(2), "x", wide()).unwrap();
        let back = there.open_stream(peer(1), "x", wide()).unwrap();
        let mut heard = 0;
        while heard < 10 {
            rest();
            stream.send("!");
            rest();
            while back.poll_recv(&mut Context::from_waker(&waker)).is_ready() {
                heard += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(connected.load(Ordering::SeqCst) > 0);
        stream.close();
    });
}

/// What a message is made of. Calls a function when it is dropped.
struct Owned<F: FnMut()>(Vec<u8>, F);

impl<F: FnMut()> AsRef<[u8]> for Owned<F> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<F: FnMut()> Drop for Owned<F> {
    fn drop(&mut self) {
        (self.1)();
    }
}

#[tokio::test]
async fn what_owns_a_message_may_call_the_stream_when_it_is_dropped_and_may_panic_then() {
    let (one, two, _) = crate::common::pair().await;
    let limits = wide().with_outgoing_buffer(2).with_max_message(100_000);
    let there = Arc::new(one.open_stream(peer(2), "x", limits).unwrap());
    let dropped = Arc::new(AtomicUsize::new(0));
    let message = |length: usize, panics: bool| {
        let (stream, dropped) = (there.clone(), dropped.clone());
        Bytes::from_owner(Owned(vec![1; length], move || {
            dropped.fetch_add(1, Ordering::SeqCst);
            assert!(stream.is_open());
            assert!(!panics, "dropped");
        }))
    };
    // No peer is there: of a buffer of two the oldest go. One that is too long goes at once.
    let (sending, messages) = (
        there.clone(),
        [10, 10, 10, 5_000, 200_000].map(|length| message(length, false)),
    );
    comes_back(move || messages.into_iter().for_each(|message| _ = sending.send(message)));
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    // What is left goes out, and so do messages whose owners panic, small ones and large ones: on
    // one connection.
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    for length in [10, 5_000] {
        assert_eq!(in_time(back.recv()).await.unwrap().len(), length);
    }
    for length in [20, 6_000] {
        there.send(message(length, true));
        assert_eq!(in_time(back.recv()).await.unwrap().len(), length);
    }
    until("all are dropped", || dropped.load(Ordering::SeqCst) == 7).await;
    until("and counted", || panics(&one, Hook::Payload) == 2).await;
    until_heard(&there, &back).await;
    let counters = one.counters().peer(&peer(2)).unwrap();
    assert_eq!(counters.conn_established.get(), 1);
    // What waits when a stream is closed.
    let alone = Arc::new(one.open_stream(peer(2), "only we have this one", limits).unwrap());
    alone.send(message(10, false));
    comes_back(move || alone.close());
    assert_eq!(dropped.load(Ordering::SeqCst), 8);
}

/// A subscriber of `tracing` that ships every line over a stream.
struct Shipping(Arc<Stream>);

impl tracing::Subscriber for Shipping {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.send("a line");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn lines_of_the_log_may_be_sent_over_a_stream_that_they_are_about() {
    let one = host(1, &StaticList::new()).await;
    let there = Arc::new(one.open_stream(peer(2), "x", wide().with_max_message(10)).unwrap());
    let counters = one.counters().peer(&peer(2)).unwrap();
    comes_back(move || {
        tracing::subscriber::with_default(Shipping(there.clone()), || there.send("longer than ten bytes"));
    });
    assert_eq!(counters.dropped_oversize.get(), 1);
}

#[tokio::test]
async fn a_discoverer_of_a_swarm_that_panics_finds_nothing_and_the_swarm_goes_on() {
    let wild = Mischief::finding(&StaticList::new(), |_| panic!("asked by a Swarm"));
    let mut behaviour = Behaviour::new(peer(1), BehaviourConfig::default()).with_discoverer(Arc::new(wild));
    let streams = behaviour.handle();
    let _stream = streams.open_stream(peer(2), "x", wide()).unwrap();
    let id = libp2p_swarm::ConnectionId::new_unchecked(1);
    let found = behaviour
        .handle_pending_outbound_connection(id, Some(peer(2)), &[], libp2p_core::Endpoint::Dialer)
        .unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(panics(&streams, Hook::FindPeer), 1);
    // And in a poll of the Swarm's, which asks before it dials.
    let mut cx = Context::from_waker(Waker::noop());
    assert!(behaviour.poll(&mut cx).is_ready(), "a dial");
    assert_eq!(panics(&streams, Hook::FindPeer), 2);
}
