//! Hosts with each other.

use crate::common::{address, config, host, in_time, knock, pair, peer, until, until_heard, wide};
use bytes::Bytes;
use futures::future::join_all;
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Inbound, Limits, OpenError, Priority, ResponsePolicy, Sent, StartError};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_knock::{Mode, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_both_ways_in_order() {
    let (one, two, _) = pair().await;
    let there = Arc::new(one.open_stream(peer(2), "x", wide()).unwrap());
    let back = Arc::new(two.open_stream(peer(1), "x", wide()).unwrap());
    assert_eq!((there.peer(), there.name()), (peer(2), "x"));
    const COUNT: u32 = 20_000;
    for n in 0..COUNT {
        let mut message = n.to_be_bytes().to_vec();
        message.resize(4 + (n as usize * 37) % 700, 7);
        there.send(message.clone());
        back.send(message);
    }
    let receive = |stream: Arc<knock_host::Stream>| async move {
        for n in 0..COUNT {
            let message = stream.recv().await.unwrap();
            assert_eq!(message[..4], n.to_be_bytes());
            assert_eq!(message.len(), 4 + (n as usize * 37) % 700);
        }
    };
    in_time(futures::future::join(receive(there), receive(back))).await;
}

#[tokio::test]
async fn a_megabyte_arrives_unmodified() {
    let (one, two, _) = pair().await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    let message: Vec<u8> = (0..1 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let message = Bytes::from(message);
    for _ in 0..5 {
        there.send(message.clone());
    }
    for _ in 0..5 {
        assert!(in_time(back.recv()).await == Some(message.clone()));
    }
}

#[tokio::test]
async fn version_2_of_the_knock_carries_the_same() {
    let list = StaticList::new();
    let as_go = |seed| config(knock(seed).ragep2p_compatible());
    let one = Host::start(as_go(1), list.clone()).await.unwrap();
    let two = Host::start(as_go(2), StaticList::new()).await.unwrap();
    list.add(peer(2), address(&two));
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    there.send("hello");
    assert_eq!(in_time(back.recv()).await.unwrap(), "hello");
}

#[tokio::test]
async fn one_peer_with_version_2_and_the_rest_sealed() {
    let list = StaticList::new();
    let mixed = knock(1).with_peer(peer(2), Version::V2, Mode::Frames).unwrap();
    let one = Host::start(config(mixed), list.clone()).await.unwrap();
    let old = Host::start(config(knock(2).ragep2p_compatible()), list.clone())
        .await
        .unwrap();
    let new = host(3, &list).await;
    for other in [&old, &new] {
        list.add(other.local_peer_id(), address(other));
        let there = one.open_stream(other.local_peer_id(), "x", wide()).unwrap();
        let back = other.open_stream(peer(1), "x", wide()).unwrap();
        there.send("hello");
        assert_eq!(in_time(back.recv()).await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_the_other_host_comes_back() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    for round in 0..3 {
        let two = host(2, &StaticList::new()).await;
        list.remove(&peer(2));
        list.add(peer(2), address(&two));
        let back = two.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&there, &back).await;
        until_heard(&back, &there).await;
        let begun = Instant::now();
        two.close().await;
        assert!(begun.elapsed() < Duration::from_secs(30), "round {round}");
        assert!(!back.is_open());
        assert_eq!(in_time(back.recv()).await, None);
        until("the loss is noticed", || !one.is_connected(&peer(2))).await;
    }
}

#[tokio::test]
async fn what_waits_while_the_peer_is_away_goes_out_when_it_returns() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    for n in 0..10 {
        there.send(vec![n]);
    }
    let two = host(2, &StaticList::new()).await;
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    list.add(peer(2), address(&two));
    for n in 0..10 {
        assert_eq!(in_time(back.recv()).await.unwrap(), [n].as_slice());
    }
}

#[tokio::test]
async fn two_that_dial_each_other_settle_on_one_connection_each_time() {
    // W1: newest wins on both ends kills both, now and then.
    let list = StaticList::new();
    let one = host(1, &list).await;
    let two = host(2, &list).await;
    list.add(peer(1), address(&one));
    list.add(peer(2), address(&two));
    for round in 0..50 {
        let there = one.open_stream(peer(2), "x", wide()).unwrap();
        let back = two.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&there, &back).await;
        until_heard(&back, &there).await;
        let both = [(&one, 2), (&two, 1)];
        assert!(
            both.iter().all(|(host, other)| host.is_connected(&peer(*other))),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn peers_without_a_stream_are_not_let_in() {
    let (one, two, _) = pair().await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until("the dial was seen", || two.counters().inbound_dials.get() >= 2).await;
    assert!(!one.is_connected(&peer(2)));
    assert!(two.counters().peers().is_empty());
    // And are as soon as there is one.
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
}

#[tokio::test]
async fn an_admission_rule_has_the_last_word() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let strict = config(knock(2)).with_admission(|_, _| Err("not today".into()));
    let two = Host::start(strict, StaticList::new()).await.unwrap();
    list.add(peer(2), address(&two));
    let _there = one.open_stream(peer(2), "x", wide()).unwrap();
    let _back = two.open_stream(peer(1), "x", wide()).unwrap();
    until("the dial was seen", || two.counters().inbound_dials.get() >= 2).await;
    assert!(!two.is_connected(&peer(1)));
}

#[tokio::test]
async fn every_address_of_a_peer_is_tried_in_one_round() {
    let list = StaticList::new();
    // A round every minute: whatever is found is found in the first one.
    let slow = config(knock(1)).with_dial_interval(Duration::from_secs(3600));
    let one = Host::start(slow, list.clone()).await.unwrap();
    let two = host(2, &StaticList::new()).await;
    let stranger = host(3, &StaticList::new()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    list.add(peer(2), format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap());
    list.add(peer(2), "/ip4/127.0.0.1/udp/1".parse().unwrap());
    list.add(peer(2), format!("{}/p2p/{}", address(&two), peer(3)).parse().unwrap());
    list.add(peer(2), address(&two));
    drop(stranger);
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    there.send("hello");
    assert_eq!(in_time(back.recv()).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_name_is_looked_up_and_dialled() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let two = host(2, &StaticList::new()).await;
    let port = address(&two).to_string().split('/').nth(4).unwrap().to_owned();
    // One that no resolver is asked for.
    list.add(
        peer(2),
        Multiaddr::from(Protocol::Dns4("a\0b".into())).with(Protocol::Tcp(1)),
    );
    list.add(peer(2), format!("/dns4/localhost/tcp/{port}").parse().unwrap());
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    until_heard(&there, &back).await;
}

#[tokio::test]
async fn requests_are_answered() {
    let (one, two, _) = pair().await;
    let ask = one.open_stream2(peer(2), "x", Priority::Low, wide()).unwrap();
    let answer = two.open_stream2(peer(1), "x", Priority::Default, wide()).unwrap();
    let policy = ResponsePolicy {
        max_size: 100,
        expires: Instant::now() + Duration::from_secs(3600),
    };
    ask.request("what?", policy);
    let Some(Inbound::Request { handle, payload }) = in_time(answer.recv()).await else {
        panic!("no request");
    };
    assert_eq!(payload, "what?");
    answer.respond(handle.clone(), "that");
    answer.respond(handle, "and once more");
    answer.send("plain");
    assert_eq!(in_time(ask.recv()).await, Some(Inbound::Response("that".into())));
    assert_eq!(in_time(ask.recv()).await, Some(Inbound::Plain("plain".into())));
}

#[tokio::test]
async fn what_cannot_be_opened_is_said_at_once() {
    let list = StaticList::new();
    let one = host(1, &list).await;
    let open = |peer, name: &str, limits| one.open_stream(peer, name, limits).map(|stream| stream.is_open());
    let ok = Limits::default();
    assert_eq!(open(peer(1), "x", ok), Err(OpenError::OurselfAsPeer));
    assert_eq!(open(peer(2), "", ok), Err(OpenError::EmptyName));
    assert_eq!(open(peer(2), &"x".repeat(257), ok), Err(OpenError::NameLength(257)));
    assert_eq!(open(peer(2), &"x".repeat(256), ok), Ok(true));
    assert!(matches!(
        open(peer(2), "x", ok.with_incoming_buffer(0)),
        Err(OpenError::Limits(_))
    ));
    let _open = one.open_stream(peer(2), "x", ok).unwrap();
    assert!(matches!(open(peer(2), "x", ok), Err(OpenError::AlreadyOpen { .. })));
    let many: Vec<_> = (1..2000)
        .map(|n| one.open_stream(peer(2), &n.to_string(), ok).unwrap())
        .collect();
    assert_eq!(open(peer(2), "one more", ok), Err(OpenError::TooManyStreams(peer(2))));
    drop(many);
    let peers: Vec<_> = (3..=255)
        .chain([0])
        .map(|seed| one.open_stream(peer(seed), "x", ok).unwrap())
        .collect();
    assert_eq!(peers.len(), 254);
    let known = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
    let _last = one.open_stream(known, "x", ok).unwrap();
    let one_more = libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
    assert_eq!(open(one_more, "x", ok), Err(OpenError::TooManyPeers));
    one.close().await;
    one.close().await;
    assert_eq!(open(peer(2), "y", ok), Err(OpenError::HostClosed));
}

#[tokio::test]
async fn a_host_that_cannot_start_says_why() {
    let nowhere = HostConfig::new(knock(1));
    let refused = Host::start(nowhere, StaticList::new()).await;
    assert!(matches!(refused, Err(StartError::NoListenAddress)));
    let foreign = HostConfig::new(knock(1)).with_listen_address("/ip4/192.0.2.1/tcp/1".parse().unwrap());
    let refused = Host::start(foreign, StaticList::new()).await;
    assert!(matches!(refused, Err(StartError::Listen { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_dropped_host_closes_its_streams_and_lets_go_of_its_port() {
    let (one, two, _) = pair().await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    until_heard(&there, &back).await;
    let handle = two.handle().clone();
    drop(two);
    assert_eq!(in_time(back.recv()).await, None);
    assert!(matches!(
        handle.open_stream(peer(1), "y", wide()),
        Err(OpenError::HostClosed)
    ));
    until("the connection ends", || !one.is_connected(&peer(2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_streams_share_one_connection() {
    let (one, two, _) = pair().await;
    const EACH: u32 = 500;
    let work = (0..20).map(|n| {
        let name = format!("stream {n}");
        let there = one.open_stream(peer(2), &name, wide()).unwrap();
        let back = two.open_stream(peer(1), &name, wide()).unwrap();
        async move {
            for n in 0..EACH {
                there.send(format!("{name} {n}"));
            }
            for n in 0..EACH {
                assert_eq!(in_time(back.recv()).await.unwrap(), format!("{name} {n}"));
            }
            (there, back)
        }
    });
    join_all(work).await;
    let counters = one.counters().peer(&peer(2));
    assert!(counters.is_none(), "the streams are closed, and the peer forgotten");
}

#[tokio::test]
async fn counters_say_what_happened() {
    let (one, two, _) = pair().await;
    let there = one.open_stream(peer(2), "x", wide()).unwrap();
    let back = two.open_stream(peer(1), "x", wide()).unwrap();
    there.send(vec![0; 1000]);
    in_time(back.recv()).await.unwrap();
    let (ours, theirs) = (
        one.counters().peer(&peer(2)).unwrap(),
        two.counters().peer(&peer(1)).unwrap(),
    );
    assert_eq!(ours.conn_established.get(), 1);
    assert_eq!(ours.conn_established_inbound.get(), 0);
    assert_eq!(theirs.conn_established_inbound.get(), 1);
    // The open of "x", and a message.
    let written = 37 + 1 + 37 + 1000;
    // Where the machine took its time, the open was told once or twice more.
    let and_opens = |bytes: u64| (0..=2).map(|again| written + again * 38).any(|sum| sum == bytes);
    assert!(and_opens(ours.conn_written_bytes.get()), "{ours:?}");
    assert!(and_opens(theirs.conn_read_processed_bytes.get()), "{theirs:?}");
    assert!(ours.rawconn_written_bytes.get() > written);
    assert!(theirs.rawconn_read_bytes.get() > written);
    assert_eq!(ours.message_bytes.sum(), 1000);
    assert_eq!(theirs.bytes_rate_limit_rate.get(), 2e9);
    assert_eq!(theirs.messages_rate_limit_capacity.get(), 1e6);
}

#[tokio::test]
async fn send_says_what_became_of_a_message_whatever_kind_of_text_or_bytes_it_is() {
    // No peer is there, so that everything waits.
    let one = host(1, &StaticList::new()).await;
    let limits = || Limits::default().with_outgoing_buffer(3).with_max_message(5);
    let stream = one.open_stream(peer(2), "x", limits()).unwrap();
    let second = one.open_stream2(peer(2), "y", Priority::Default, limits()).unwrap();
    let owned = String::from("three");
    let sent = [
        stream.send("one"),
        stream.send(&owned),
        stream.send(&owned[..2]),
        stream.send(owned),
        stream.send(b"five"),
        stream.send(vec![6; 5]),
        stream.send(Bytes::from_static(b"seven")),
    ];
    let expected = [Sent::Queued; 3].into_iter().chain([Sent::Displaced; 4]);
    assert!(sent.into_iter().eq(expected), "{sent:?}");
    assert!(sent.iter().all(|sent| sent.is_queued()));
    let counters = one.counters().peer(&peer(2)).unwrap();
    assert_eq!(counters.dropped_outgoing.get(), 4);

    let policy = ResponsePolicy {
        max_size: 10,
        expires: Instant::now() + Duration::from_secs(1),
    };
    assert_eq!(second.request("ask", policy), Sent::Queued);
    let too_long = Sent::TooLong { bytes: 6, longest: 5 };
    assert_eq!((stream.send("longer"), second.send("longer")), (too_long, too_long));
    assert_eq!(second.request("longer", policy), too_long);
    stream.close();
    assert_eq!(stream.send("late"), Sent::Closed);
    one.close().await;
    assert_eq!(second.send("late"), Sent::Closed);
    assert!(!Sent::Closed.is_queued() && !too_long.is_queued());
}
