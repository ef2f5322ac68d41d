//! The same streams in a Swarm, over three transports.

use crate::common::{in_time, keypair, peer, until, until_heard, wide};
use futures::StreamExt as _;
use futures::future::join_all;
use knock_host::discovery::StaticList;
use knock_host::{Behaviour, BehaviourConfig, Handle, OpenError};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use std::time::Duration;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy)]
enum Over {
    Knock,
    Noise,
    Quic,
}

const TRANSPORTS: [Over; 3] = [Over::Knock, Over::Noise, Over::Quic];

/// Beside another behaviour, as it will be.
#[derive(NetworkBehaviour)]
struct Both {
    streams: Behaviour,
    ping: ping::Behaviour,
}

/// A Swarm that runs.
struct Node {
    streams: Handle,
    address: Multiaddr,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn swarm(over: Over, seed: u8, behaviour: Both) -> Swarm<Both> {
    let builder = SwarmBuilder::with_existing_identity(keypair(seed)).with_tokio();
    match over {
        Over::Knock => builder
            .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build(),
        Over::Noise => builder
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build(),
        Over::Quic => builder.with_quic().with_behaviour(|_| behaviour).unwrap().build(),
    }
}

async fn node(over: Over, seed: u8, list: &StaticList) -> Node {
    let config = BehaviourConfig::default().with_dial_interval(Duration::from_millis(100));
    let streams = Behaviour::new(peer(seed), config).with_discoverer(list.clone());
    let handle = streams.handle();
    let ping = ping::Behaviour::default();
    let mut swarm = swarm(over, seed, Both { streams, ping });
    let listen = match over {
        Over::Knock => "/ip4/127.0.0.1/tcp/0/tls",
        Over::Noise => "/ip4/127.0.0.1/tcp/0",
        Over::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
    };
    swarm.listen_on(listen.parse().unwrap()).unwrap();
    let address = in_time(async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    });
    let address = address.await;
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    Node {
        streams: handle,
        address,
        task,
    }
}

fn know(list: &StaticList, seed: u8, node: &Node) {
    list.remove(&peer(seed));
    list.add(peer(seed), node.address.clone());
}

const STREAMS: usize = 20;
const EACH: u32 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_streams_of_ten_thousand_messages_arrive_in_order_over_every_transport() {
    for over in TRANSPORTS {
        let list = StaticList::new();
        let one = node(over, 1, &StaticList::new()).await;
        let two = node(over, 2, &list).await;
        know(&list, 1, &one);
        let work = (0..STREAMS).map(|n| {
            let name = n.to_string();
            let there = two.streams.open_stream(peer(1), &name, wide()).unwrap();
            let back = one.streams.open_stream(peer(2), &name, wide()).unwrap();
            async move {
                for n in 0..EACH {
                    there.send(n.to_be_bytes().to_vec());
                }
                for n in 0..EACH {
                    let message = in_time(back.recv()).await.unwrap();
                    assert_eq!(message, n.to_be_bytes().as_slice(), "{over:?}, stream {name}");
                }
                (there, back)
            }
        });
        join_all(work).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_either_swarm_was_killed_and_comes_back() {
    for over in TRANSPORTS {
        let (to_one, to_two) = (StaticList::new(), StaticList::new());
        let mut one = node(over, 1, &to_two).await;
        let mut two = node(over, 2, &to_one).await;
        know(&to_one, 1, &one);
        know(&to_two, 2, &two);
        let open = |node: &Node, other| -> Vec<_> {
            let streams = (0..STREAMS).map(|n| node.streams.open_stream(peer(other), &n.to_string(), wide()));
            streams.map(Result::unwrap).collect()
        };
        let (mut ones, mut twos) = (open(&one, 2), open(&two, 1));
        for round in 0..4 {
            for (a, b) in ones.iter().zip(&twos) {
                until_heard(a, b).await;
                until_heard(b, a).await;
            }
            if round % 2 == 0 {
                drop(one);
                assert!(ones.iter().all(|stream| futures::executor::block_on(async {
                    // Some messages may be there still.
                    while stream.recv().await.is_some() {}
                    !stream.is_open()
                })));
                one = node(over, 1, &to_two).await;
                know(&to_one, 1, &one);
                ones = open(&one, 2);
            } else {
                drop(two);
                two = node(over, 2, &to_one).await;
                know(&to_two, 2, &two);
                twos = open(&two, 1);
            }
        }
    }
}

#[tokio::test]
async fn streams_open_on_a_connection_that_is_there_already() {
    let list = StaticList::new();
    let one = node(Over::Noise, 1, &StaticList::new()).await;
    let two = node(Over::Noise, 2, &list).await;
    know(&list, 1, &one);
    let first = two.streams.open_stream(peer(1), "first", wide()).unwrap();
    let first_back = one.streams.open_stream(peer(2), "first", wide()).unwrap();
    until_heard(&first, &first_back).await;
    drop(first_back);
    until("the substream ends", || !two.streams.is_connected(&peer(1))).await;
    // Nobody can dial now.
    list.remove(&peer(1));
    let second_back = one.streams.open_stream(peer(2), "second", wide()).unwrap();
    let second = two.streams.open_stream(peer(1), "second", wide()).unwrap();
    until_heard(&second, &second_back).await;
    until_heard(&second_back, &second).await;
}

#[tokio::test]
async fn a_behaviour_that_is_dropped_closes_its_streams() {
    let behaviour = Behaviour::new(peer(1), BehaviourConfig::default());
    let streams = behaviour.handle();
    let stream = streams.open_stream(peer(2), "x", wide()).unwrap();
    assert!(streams.sign(b"with what?").is_err());
    drop(behaviour);
    assert_eq!(in_time(stream.recv()).await, None);
    assert!(matches!(
        streams.open_stream(peer(2), "x", wide()),
        Err(OpenError::HostClosed)
    ));
}

#[tokio::test]
async fn keys_of_any_type_have_streams() {
    let keys = [
        libp2p_identity::Keypair::generate_secp256k1(),
        libp2p_identity::Keypair::generate_ecdsa(),
    ];
    let ids = keys.each_ref().map(|key| key.public().to_peer_id());
    let mut swarms = keys.map(|key| {
        let behaviour = Behaviour::new(key.public().to_peer_id(), BehaviourConfig::default());
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build();
        (swarm.behaviour().handle(), swarm)
    });
    swarms[0].1.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = in_time(swarms[0].1.select_next_some()).await {
            break address;
        }
    };
    let there = swarms[1].0.open_stream(ids[0], "x", wide()).unwrap();
    let back = swarms[0].0.open_stream(ids[1], "x", wide()).unwrap();
    swarms[1].1.add_peer_address(ids[0], address.clone());
    swarms[1].1.dial(address).unwrap();
    let tasks = swarms.map(|(_, mut swarm)| {
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        })
    });
    until_heard(&there, &back).await;
    tasks.iter().for_each(JoinHandle::abort);
}
