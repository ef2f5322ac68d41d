//! What is set holds, however large it is and wherever it is set.

use crate::attacker::{HOSTILE, VICTIM, dial, message};
use crate::common::{address, config, host, in_time, knock, pair, peer, until, until_heard, wide};
use futures::AsyncWriteExt as _;
use knock_host::discovery::StaticList;
use knock_host::{Host, Inbound, Limits, Priority, ResponsePolicy, StartError};
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use libp2p_knock::{Mode, Network, Version};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_host_asks_the_admission_hook_of_its_knock_and_its_own_and_both_must_allow() {
    let list = StaticList::new();
    // The knock's hook denies 4, the host's first one 3 and its second one 6. 5 has no stream.
    let asked = Arc::new(Mutex::new(Vec::<(&str, PeerId)>::new()));
    let rule = |name: &'static str, denied: u8| {
        let asked = asked.clone();
        move |caller: &PeerId, point: &ConnectedPoint| {
            assert!(point.is_listener());
            asked.lock().unwrap().push((name, *caller));
            if *caller == peer(denied) {
                Err("not you".into())
            } else {
                Ok(())
            }
        }
    };
    let strict = knock(1).with_admission(rule("knock", 4));
    let strict = config(strict)
        .with_admission(rule("host", 3))
        .with_admission(rule("host again", 6));
    let one = Host::start(strict, StaticList::new()).await.unwrap();
    list.add(peer(1), address(&one));
    let mut callers = Vec::new();
    for seed in [2, 3, 4, 5, 6] {
        // Those that are denied meet silence.
        let impatient = config(knock(seed)).with_dial_timeout(Duration::from_millis(500));
        let caller = Host::start(impatient, list.clone()).await.unwrap();
        let there = caller.open_stream(peer(1), "x", wide()).unwrap();
        let back = (seed != 5).then(|| one.open_stream(peer(seed), "x", wide()).unwrap());
        callers.push((seed, caller, there, back));
    }
    let (_, _, there, back) = &callers[0];
    until_heard(there, back.as_ref().unwrap()).await;
    let was_asked = |name: &str, seed: u8| asked.lock().unwrap().contains(&(name, peer(seed)));
    until("all were asked about", || {
        was_asked("host", 3)
            && was_asked("knock", 4)
            && was_asked("host again", 6)
            && one.counters().inbound_dials.get() >= 8
    })
    .await;
    for (seed, ..) in &callers {
        assert_eq!(one.is_connected(&peer(*seed)), *seed == 2, "{seed}");
    }
    assert!(was_asked("knock", 2) && was_asked("host", 2) && was_asked("knock", 3));
    assert!(!was_asked("host", 4), "the knock's hook has denied it");
    assert!(!was_asked("host", 5), "there is no stream to it");
}

#[tokio::test]
async fn a_host_asks_the_secured_hook_of_its_knock_about_callers_and_those_it_calls() {
    let list = StaticList::new();
    let asked = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let checked = {
        let asked = asked.clone();
        knock(1).with_secured_hook(move |other, point| {
            asked[usize::from(point.is_dialer())].fetch_add(1, Ordering::SeqCst);
            if *other == peer(3) {
                Err("not you".into())
            } else {
                Ok(())
            }
        })
    };
    let one = Host::start(config(checked), list.clone()).await.unwrap();
    let to_one = StaticList::from_iter([(peer(1), address(&one))]);
    let (calling, called) = (host(2, &to_one).await, host(4, &StaticList::new()).await);
    let (bad, bad_too) = (host(3, &to_one).await, host(5, &StaticList::new()).await);
    list.add(peer(4), address(&called));
    list.add(peer(3), address(&bad));
    for other in [&calling, &called] {
        let there = one.open_stream(other.local_peer_id(), "x", wide()).unwrap();
        let back = other.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&there, &back).await;
    }
    assert!(asked[0].load(Ordering::SeqCst) > 0 && asked[1].load(Ordering::SeqCst) > 0);
    let before: Vec<usize> = asked.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    let _there = one.open_stream(peer(3), "x", wide()).unwrap();
    let _back = bad.open_stream(peer(1), "x", wide()).unwrap();
    until("it was asked about both ways", || {
        (0..2).all(|way| asked[way].load(Ordering::SeqCst) > before[way])
    })
    .await;
    assert!(!one.is_connected(&peer(3)));
    drop(bad_too);
}

#[tokio::test]
async fn a_host_knocks_in_the_network_of_its_knock() {
    let network = || Network::private(b"testnet", &[7; 32]).unwrap();
    let list = StaticList::new();
    let one = Host::start(config(knock(1).with_network(network()).unwrap()), list.clone())
        .await
        .unwrap();
    let inside = Host::start(config(knock(2).with_network(network()).unwrap()), StaticList::new())
        .await
        .unwrap();
    let outside = host(3, &StaticList::new()).await;
    for (seed, other) in [(2, &inside), (3, &outside)] {
        list.add(peer(seed), address(other));
        other
            .open_stream(peer(1), "kept open", wide())
            .map(std::mem::forget)
            .unwrap();
    }
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = inside.open_stream(peer(1), "x", wide()).unwrap();
    let _never = one.open_stream(peer(3), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    until("the other was dialled", || outside.counters().inbound_dials.get() >= 1).await;
    assert!(!one.is_connected(&peer(3)));
}

#[tokio::test]
async fn a_peer_that_is_configured_for_a_muxer_is_refused_at_the_start() {
    let muxed = knock(1)
        .with_peer(peer(3), Version::V3, Mode::Frames)
        .and_then(|knock| knock.with_peer(peer(2), Version::V3, Mode::Yamux))
        .unwrap();
    match Host::start(config(muxed), StaticList::new()).await {
        Err(StartError::Mode { peer: named, mode }) => assert_eq!((named, mode), (peer(2), Mode::Yamux)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_may_expect_an_answer_of_any_size() {
    let (one, two, _) = pair().await;
    let ask = one.open_stream2(peer(2), "x", Priority::Default, wide()).unwrap();
    let answer = two.open_stream2(peer(1), "x", Priority::Default, wide()).unwrap();
    for round in 0..3 {
        let policy = ResponsePolicy {
            max_size: usize::MAX,
            expires: Instant::now() + Duration::from_secs(3600),
        };
        ask.request("what?", policy);
        let Some(Inbound::Request { handle, .. }) = in_time(answer.recv()).await else {
            panic!("round {round}")
        };
        answer.respond(handle, vec![7; 200_000]);
        let answered = in_time(ask.recv()).await.unwrap();
        assert_eq!(answered.payload().len(), 200_000);
    }
    let counters = one.counters().peer(&peer(2)).unwrap();
    assert_eq!(counters.conn_established.get(), 1, "on one connection");
}

#[tokio::test]
async fn an_answer_that_was_asked_for_may_be_larger_than_all_that_the_streams_allow() {
    let (one, two, _) = pair().await;
    let narrow = Limits::default().with_outgoing_buffer(10);
    let ask = one.open_stream2(peer(2), "x", Priority::Default, narrow).unwrap();
    let answer = two.open_stream2(peer(1), "x", Priority::Default, wide()).unwrap();
    for round in 0..2 {
        let policy = ResponsePolicy {
            max_size: 20 << 20,
            expires: Instant::now() + Duration::from_secs(3600),
        };
        ask.request("what?", policy);
        let Some(Inbound::Request { handle, .. }) = in_time(answer.recv()).await else {
            panic!("round {round}")
        };
        answer.respond(handle, vec![7; 20 << 20]);
        let answered = in_time(ask.recv()).await.unwrap();
        assert_eq!(answered.payload().len(), 20 << 20);
    }
    let counters = one.counters().peer(&peer(2)).unwrap();
    assert_eq!(counters.conn_established.get(), 1, "on one connection");
}

#[tokio::test]
async fn intervals_and_timeouts_without_end_end_no_host() {
    let list = StaticList::new();
    let endless = |seed| {
        config(knock(seed))
            .with_dial_interval(Duration::MAX)
            .with_dial_timeout(Duration::MAX)
    };
    let one = Host::start(endless(1), list.clone()).await.unwrap();
    let two = Host::start(endless(2), StaticList::new()).await.unwrap();
    list.add(peer(2), address(&two));
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    // Lost, and not dialled again: but the host lives.
    two.close().await;
    until("the loss is noticed", || !one.is_connected(&peer(2))).await;
    let to_one = StaticList::from_iter([(peer(1), address(&one))]);
    let three = host(3, &to_one).await;
    let there = one.open_stream(peer(3), "x", wide()).unwrap();
    let back = three.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&back, &there).await;
}

#[tokio::test]
async fn two_thousand_streams_have_a_limit_over_the_wire_and_closing_them_gives_it_back() {
    let victim = Host::start(config(knock(VICTIM)), StaticList::new()).await.unwrap();
    let first = victim.open_stream(peer(HOSTILE), "x", Limits::default()).unwrap();
    let counters = victim.counters().peer(&peer(HOSTILE)).unwrap();
    let limit = || {
        (
            counters.rawconn_rate_limit_rate.get(),
            counters.rawconn_rate_limit_capacity.get(),
        )
    };
    let rates = || {
        (
            counters.bytes_rate_limit_rate.get(),
            counters.messages_rate_limit_capacity.get(),
        )
    };
    let (alone, sums) = (limit(), rates());
    let many: Vec<_> = (1..2000)
        .map(|n| {
            victim
                .open_stream(peer(HOSTILE), &n.to_string(), Limits::default())
                .unwrap()
        })
        .collect();
    let all = limit();
    assert!(all.0.is_finite() && all.1.is_finite(), "{all:?}");
    assert!(
        all.0 > 1500.0 * alone.0 / 2.0 && all.1 > 1500.0 * alone.1 / 2.0,
        "{all:?} of {alone:?}"
    );
    // Whatever one can ask for, and back.
    let huge = Limits::default()
        .with_bytes(f64::MAX, u32::MAX)
        .with_messages(f64::MAX, u32::MAX);
    let wild = victim
        .open_stream2(peer(HOSTILE), "wild", Priority::Default, Limits::default())
        .unwrap_err();
    assert_eq!(wild, knock_host::OpenError::TooManyStreams(peer(HOSTILE)));
    drop(many);
    let wild = victim
        .open_stream2(peer(HOSTILE), "wild", Priority::Default, Limits::default())
        .unwrap();
    wild.update_limits(huge).unwrap();
    assert!(limit().1.is_finite());
    wild.update_limits(Limits::default()).unwrap();
    drop(wild);
    assert_eq!((limit(), rates()), (alone, sums), "as if they had never been");
    // It is a limit: a flood ends the connection.
    let mut connection = in_time(dial(HOSTILE, &address(&victim))).await.unwrap();
    until("it is in", || victim.is_connected(&peer(HOSTILE))).await;
    let frame = message(&[0; 1000]).repeat(1000);
    let flood = async { while connection.write_all(&frame).await.is_ok() && connection.flush().await.is_ok() {} };
    in_time(flood).await;
    until("it is thrown out", || !victim.is_connected(&peer(HOSTILE))).await;
    drop(first);
}

/// A program that depends on this crate alone can name what its signatures name.
mod foreign {
    use knock_host::discovery::Discoverer;
    #[cfg(feature = "metrics")]
    use knock_host::prometheus_client::registry::Registry;
    use knock_host::{BoxFuture, Bytes, Handle, HostConfig, Keypair, Multiaddr, Payload, PeerId, libp2p_knock};

    struct Nothing;

    impl Discoverer for Nothing {
        fn start(&self, _: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Ok(())
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }

        fn find_peer(&self, _: &PeerId) -> Vec<Multiaddr> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn types_of_other_crates_in_public_signatures_have_names_here() {
        let key = Keypair::generate_ed25519();
        let anywhere: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let config = HostConfig::new(libp2p_knock::Config::new(&key).unwrap()).with_listen_address(anywhere);
        let host = knock_host::Host::start(config, Nothing).await.unwrap();
        let own: PeerId = host.local_peer_id();
        assert_eq!(own, key.public().to_peer_id());
        assert_eq!(Bytes::from(Payload::from("text")), Bytes::from_static(b"text"));
        #[cfg(feature = "metrics")]
        knock_host::metrics::register(&mut Registry::default(), &host).unwrap();
        host.close().await;
    }
}
