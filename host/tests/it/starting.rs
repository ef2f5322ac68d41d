//! How a host gets its port and lets go of it: one socket listens on a port, ours or another's.

use crate::common::{address, host, in_time, knock, peer, until_heard, wide};
use futures::future::join_all;
use knock_host::discovery::{Discoverer, StaticList};
use knock_host::{Handle, Host, HostConfig, StartError};
use libp2p_core::transport::{ListenerId, TransportEvent};
use libp2p_core::{Multiaddr, Transport as _};
use std::future::poll_fn;
use std::pin::Pin;

async fn at(seed: u8, address: &Multiaddr) -> Result<Host, StartError> {
    let config = HostConfig::new(knock(seed)).with_listen_address(address.clone());
    Host::start(config, StaticList::new()).await
}

fn everywhere(address: &Multiaddr) -> Multiaddr {
    let port = address.to_string().split('/').nth(4).unwrap().to_owned();
    format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap()
}

fn is_in_use<T: std::fmt::Debug>(started: Result<T, StartError>, address: &Multiaddr) {
    match started {
        Err(StartError::PortInUse { address: named }) => assert_eq!(named, *address),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_port_that_another_host_has_is_refused_and_every_caller_reaches_the_first() {
    let first = host(1, &StaticList::new()).await;
    let taken = address(&first);
    for listen in [taken.clone(), everywhere(&taken)] {
        is_in_use(at(2, &listen).await, &listen);
    }
    // Of several addresses it is the one that is named, and none of the others is listened on any
    // more.
    let free = host(9, &StaticList::new()).await;
    let other = address(&free);
    free.close().await;
    let two = HostConfig::new(knock(2))
        .with_listen_address(other.clone())
        .with_listen_address(taken.clone());
    is_in_use(Host::start(two, StaticList::new()).await, &taken);
    at(2, &other).await.unwrap().close().await;

    let list = StaticList::from_iter([(peer(1), taken)]);
    for seed in 10..20 {
        let caller = host(seed, &list).await;
        let back = first.open_stream(peer(seed), "x", wide()).unwrap();
        let there = caller.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&there, &back).await;
        let counters = first.counters().peer(&peer(seed)).unwrap();
        assert_eq!(counters.conn_established_inbound.get(), 1);
    }
    assert_eq!(first.counters().inbound_dials.get(), 10, "none went elsewhere first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_hosts_that_start_at_once_on_one_port_one_starts() {
    for _ in 0..5 {
        let first = host(1, &StaticList::new()).await;
        let taken = address(&first);
        first.close().await;
        let starting = (1..=16).map(|seed| {
            let taken = taken.clone();
            tokio::spawn(async move { at(seed, &taken).await })
        });
        let started: Vec<_> = join_all(starting).await.into_iter().map(Result::unwrap).collect();
        let (up, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!((up.len(), refused.len()), (1, 15));
        for started in refused {
            is_in_use(started, &taken);
        }
    }
}

#[tokio::test]
async fn a_port_that_a_transport_or_another_program_has_is_refused_and_neither_gets_a_hosts() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", listening.local_addr().unwrap().port())
        .parse()
        .unwrap();
    is_in_use(at(1, &taken).await, &taken);
    drop(listening);
    // Stock TCP, which shares its port with every socket that shares it too.
    let mut stock = libp2p_tcp::tokio::Transport::default();
    stock.listen_on(ListenerId::next(), taken.clone()).unwrap();
    is_in_use(at(1, &taken).await, &taken);
    drop(stock);
    // A knock without a host.
    let mut transport = libp2p_knock::tokio::Transport::new(knock(3));
    let id = ListenerId::next();
    transport
        .listen_on(id, format!("{taken}/tls").parse().unwrap())
        .unwrap();
    let event = in_time(poll_fn(|cx| Pin::new(&mut transport).poll(cx))).await;
    assert!(matches!(event, TransportEvent::NewAddress { .. }));
    is_in_use(at(1, &taken).await, &taken);
    transport.remove_listener(id);
    let event = in_time(poll_fn(|cx| Pin::new(&mut transport).poll(cx))).await;
    assert!(matches!(event, TransportEvent::ListenerClosed { .. }));

    // And the other way round, whether they look before they listen or not.
    let _host = at(1, &taken).await.unwrap();
    assert!(std::net::TcpListener::bind(&taken.to_string().replace("/ip4/", "").replace("/tcp/", ":")[..]).is_err());
    assert!(
        transport
            .listen_on(id, format!("{taken}/tls").parse().unwrap())
            .is_err()
    );
    let mut stock = libp2p_tcp::tokio::Transport::default();
    assert!(stock.listen_on(ListenerId::next(), taken).is_err());
}

/// A discoverer that does not start.
struct Refusing;

impl Discoverer for Refusing {
    fn start(&self, _: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("not today".into())
    }

    fn close(&self) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn find_peer(&self, _: &libp2p_identity::PeerId) -> Vec<Multiaddr> {
        Vec::new()
    }
}

#[tokio::test]
async fn a_port_is_free_at_once_when_its_host_was_closed_was_dropped_or_did_not_start() {
    let first = host(1, &StaticList::new()).await;
    let here = address(&first);
    first.close().await;
    // A host that did not start.
    let config = HostConfig::new(knock(1)).with_listen_address(here.clone());
    let refused = Host::start(config, Refusing).await;
    assert!(matches!(refused, Err(StartError::Discoverer(_))), "{refused:?}");
    for round in 0..10 {
        let second = at(1, &here).await.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        drop(second);
        let third = at(1, &here).await.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        // With a connection, which is left in TIME_WAIT.
        let caller = host(2, &StaticList::from_iter([(peer(1), here.clone())])).await;
        let back = third.open_stream(peer(2), "x", wide()).unwrap();
        let there = caller.open_stream(peer(1), "x", wide()).unwrap();
        until_heard(&there, &back).await;
        third.close().await;
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_its_port_free() {
    let first = host(1, &StaticList::new()).await;
    let here = address(&first);
    first.close().await;
    for _ in 0..10 {
        // Polled once, or not at all.
        drop(at(1, &here));
        let _ = futures::poll!(std::pin::pin!(at(1, &here)));
        at(1, &here).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn the_address_that_could_not_be_listened_on_is_the_one_that_is_named() {
    let config = HostConfig::new(knock(1))
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .with_listen_address("/ip4/192.0.2.1/tcp/1".parse().unwrap());
    match Host::start(config, StaticList::new()).await {
        Err(StartError::Listen { address, .. }) => assert_eq!(address.to_string(), "/ip4/192.0.2.1/tcp/1"),
        other => panic!("{other:?}"),
    }
    // Another peer's address.
    let theirs: Multiaddr = format!("/ip4/127.0.0.1/tcp/0/tls/p2p/{}", peer(2)).parse().unwrap();
    match at(1, &theirs).await {
        Err(StartError::Listen { address, .. }) => assert_eq!(address, theirs),
        other => panic!("{other:?}"),
    }
    let ours: Multiaddr = format!("/ip4/127.0.0.1/tcp/0/tls/p2p/{}", peer(1)).parse().unwrap();
    at(1, &ours).await.unwrap().close().await;
}
