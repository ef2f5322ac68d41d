//! Each behaviour that finds peers, in a real Swarm over loopback: the host's discoverer hears of a peer that it was not told of.

use crate::common::{PATIENCE, keypair, peer};
use futures::StreamExt as _;
use knock_host::discovery::Discoverer as _;
use knock_host::discovery::swarm::{self, SwarmAddresses};
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, kad, mdns, noise, tcp, yamux};
use libp2p_identity::PeerId;
use std::time::Duration;

fn build<B: NetworkBehaviour>(seed: u8, behaviour: impl FnOnce(PeerId) -> B) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(keypair(seed))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| behaviour(key.public().to_peer_id()))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build()
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// Drives `swarm` until its host would know where `wanted` is.
async fn found<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &SwarmAddresses,
    wanted: PeerId,
) -> Vec<Multiaddr> {
    let search = async {
        loop {
            let known = addresses.addresses(&wanted);
            if !known.is_empty() {
                return known;
            }
            swarm.select_next_some().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.expect("found in time")
}

fn background<B>(mut swarm: Swarm<B>) -> tokio::task::JoinHandle<()>
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: Send,
    B::ConnectionHandler: Send,
{
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

#[tokio::test]
async fn whom_the_operator_names_to_the_swarm_the_host_finds() {
    let mut swarm = build(1, |_| swarm::Behaviour::new());
    let addresses = swarm.behaviour().addresses();
    let address: Multiaddr = "/ip4/192.0.2.7/tcp/4001/tls".parse().unwrap();
    swarm.add_peer_address(peer(2), address.clone());
    assert_eq!(found(&mut swarm, &addresses, peer(2)).await, [address]);
}

/// A Swarm that knocks.
fn knocking(seed: u8) -> Swarm<swarm::Behaviour> {
    SwarmBuilder::with_existing_identity(keypair(seed))
        .with_tokio()
        .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
        .unwrap()
        .with_behaviour(|_| swarm::Behaviour::new())
        .unwrap()
        .build()
}

#[tokio::test]
async fn where_the_swarm_has_reached_a_peer_by_knock_the_host_looks_first_whatever_is_claimed() {
    let (mut caller, mut called) = (knocking(1), knocking(2));
    called.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = called.select_next_some().await {
            break address;
        }
    };
    let task = background(called);
    let addresses = caller.behaviour().addresses();
    caller.dial(address.clone().with_p2p(peer(2)).unwrap()).unwrap();
    found(&mut caller, &addresses, peer(2)).await;
    let claims = (1..=100).map(|port| format!("/ip4/192.0.2.7/tcp/{port}/tls").parse().unwrap());
    addresses.extend(peer(2), claims);
    assert_eq!(addresses.find_peer(&peer(2)).first(), Some(&address));
    task.abort();
}

#[derive(NetworkBehaviour)]
struct WithIdentify {
    finder: swarm::Behaviour,
    identify: identify::Behaviour,
}

fn with_identify(seed: u8) -> Swarm<WithIdentify> {
    build(seed, |_| WithIdentify {
        finder: swarm::Behaviour::new(),
        identify: identify::Behaviour::new(identify::Config::new("/test/1".into(), keypair(seed).public())),
    })
}

#[tokio::test]
async fn where_a_caller_listens_identify_tells_the_host() {
    let (mut caller, mut called) = (with_identify(2), with_identify(1));
    let (listening, address) = (listen(&mut caller).await, listen(&mut called).await);
    let addresses = called.behaviour().finder.addresses();
    caller.dial(address).unwrap();
    let task = background(caller);
    assert_eq!(found(&mut called, &addresses, peer(2)).await, [listening]);
    task.abort();
}

#[derive(NetworkBehaviour)]
struct WithKad {
    finder: swarm::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// A node of a network with kad, driven as its owner would.
struct Node {
    swarm: Swarm<WithKad>,
    addresses: SwarmAddresses,
    searched: Option<PeerId>,
}

impl Node {
    fn new(seed: u8) -> Self {
        let mut swarm = build(seed, |own| WithKad {
            finder: swarm::Behaviour::new(),
            identify: identify::Behaviour::new(identify::Config::new("/test/1".into(), keypair(seed).public())),
            kad: kad::Behaviour::new(own, kad::store::MemoryStore::new(own)),
        });
        swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Server));
        let addresses = swarm.behaviour().finder.addresses();
        Self {
            swarm,
            addresses,
            searched: None,
        }
    }

    async fn next(&mut self) {
        match self.swarm.select_next_some().await {
            SwarmEvent::Behaviour(WithKadEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                for address in info.listen_addrs {
                    self.swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
            }
            SwarmEvent::Behaviour(WithKadEvent::Finder(swarm::Event::Search(peer))) => {
                self.searched = Some(peer);
                self.swarm.behaviour_mut().kad.get_closest_peers(peer);
            }
            SwarmEvent::Behaviour(WithKadEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(Ok(found)),
                ..
            })) => {
                for peer in found.peers {
                    self.addresses.extend(peer.peer_id, peer.addrs);
                }
            }
            _ => {}
        }
    }

    fn background(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.next().await;
            }
        })
    }
}

#[tokio::test]
async fn a_peer_that_only_others_know_kad_searches_for_when_the_host_asks() {
    let (mut middle, mut wanted, mut searcher) = (Node::new(1), Node::new(2), Node::new(3));
    let meeting = listen(&mut middle.swarm).await;
    let listening = listen(&mut wanted.swarm).await;
    for node in [&mut wanted, &mut searcher] {
        node.swarm.behaviour_mut().kad.add_address(&peer(1), meeting.clone());
        node.swarm.dial(meeting.clone()).unwrap();
    }
    let tasks = [middle.background(), wanted.background()];
    let search = async {
        loop {
            // As the host's dial loop, again and again.
            let known = searcher.addresses.find_peer(&peer(2));
            if !known.is_empty() {
                return known;
            }
            tokio::select! {
                () = searcher.next() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    };
    let known = tokio::time::timeout(PATIENCE, search).await.expect("found in time");
    assert!(known.contains(&listening), "{known:?}");
    assert_eq!(searcher.searched, Some(peer(2)), "it was not found without a search");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[derive(NetworkBehaviour)]
struct WithMdns {
    finder: swarm::Behaviour,
    mdns: mdns::tokio::Behaviour,
}

fn with_mdns(seed: u8) -> Swarm<WithMdns> {
    build(seed, |own| WithMdns {
        finder: swarm::Behaviour::new(),
        mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), own).unwrap(),
    })
}

#[tokio::test]
async fn a_neighbour_mdns_tells_the_host_of() {
    let (mut one, mut two) = (with_mdns(11), with_mdns(12));
    for swarm in [&mut one, &mut two] {
        // On every interface: mDNS tells of addresses that a neighbour can reach.
        swarm.listen_on("/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
    }
    let addresses = one.behaviour().finder.addresses();
    let task = background(two);
    let known = found(&mut one, &addresses, peer(12)).await;
    assert!(
        known.iter().all(|address| address.to_string().contains("/tcp/")),
        "{known:?}"
    );
    task.abort();
}
