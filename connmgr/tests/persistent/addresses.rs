//! Addresses that are wrong, silent or only claimed, beside one that is right.

use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identify, noise, tcp, yamux};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{Config, DialFailure, Event};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Generous: what is awaited mostly comes within a second.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What the Swarm gives a dial here.
const DIAL: Duration = Duration::from_secs(2);

pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(behaviour)
        .unwrap()
        .with_swarm_config(|config| config)
        .with_connection_timeout(DIAL)
        .build()
}

fn wanting() -> Swarm<PersistentPeers> {
    swarm(|key| PersistentPeers::new(key.public().to_peer_id(), Config::new()))
}

/// Listens, and runs by itself from then on.
pub(crate) async fn run<B>(mut swarm: Swarm<B>) -> (PeerId, Multiaddr, JoinHandle<()>)
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: Send,
{
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let peer = *swarm.local_peer_id();
    let task = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (peer, address, task)
}

fn port(address: &Multiaddr) -> u16 {
    let text = address.to_string();
    text.rsplit('/').next().unwrap().parse().unwrap()
}

pub(crate) fn at(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// Another way to `address`, which takes so much longer.
async fn detour(address: &Multiaddr, longer: Duration) -> Multiaddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = (listener.local_addr().unwrap().port(), port(address));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                sleep(longer).await;
                let mut far = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    at(here)
}

/// Runs until the peer is connected; what was told meanwhile.
async fn connected(swarm: &mut Swarm<PersistentPeers>, peer: PeerId) -> Vec<Event> {
    let mut events = Vec::new();
    let wait = async {
        while !swarm.is_connected(&peer) {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                events.push(event);
            }
        }
    };
    if timeout(SOON, wait).await.is_err() {
        panic!("not connected: {events:?}");
    }
    events
}

#[tokio::test]
async fn an_address_at_which_another_peer_answers_spoils_one_dial_and_no_more() {
    let (other, wrong, _task) = run(swarm(|_| dummy::Behaviour)).await;
    let (peer, right, _task) = run(swarm(|_| dummy::Behaviour)).await;
    let right = detour(&right, Duration::from_millis(200)).await;
    let mut ada = wanting();
    ada.behaviour_mut().add_peer(peer, [wrong.clone(), right]).unwrap();
    let events = connected(&mut ada, peer).await;
    let failures = events.iter().filter_map(|event| match event {
        Event::DialFailed { error, failures, .. } => Some((error.clone(), *failures)),
        _ => None,
    });
    let expected = DialFailure::WrongPeer {
        obtained: other,
        address: wrong.with_p2p(peer).unwrap(),
    };
    assert_eq!(failures.collect::<Vec<_>>(), [(expected, 1)]);
}

#[tokio::test]
async fn eight_silent_addresses_in_front_leave_the_ninth_its_turn() {
    let (peer, right, _task) = run(swarm(|_| dummy::Behaviour)).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        // Connections are made by the system, and then nothing is said.
        silent.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let silent_ones = silent.iter().map(|listener| at(listener.local_addr().unwrap().port()));
    let mut ada = wanting();
    ada.behaviour_mut().add_peer(peer, silent_ones.chain([right])).unwrap();
    let events = connected(&mut ada, peer).await;
    let failed = events.iter().filter(|event| matches!(event, Event::DialFailed { .. }));
    assert_eq!(failed.count(), 1, "{events:?}");
}

#[derive(NetworkBehaviour)]
struct Identified {
    persistent: PersistentPeers,
    identify: identify::Behaviour,
}

#[tokio::test]
async fn an_address_that_worked_outlives_thirty_that_are_announced() {
    let identified = |key: &Keypair| Identified {
        persistent: PersistentPeers::new(key.public().to_peer_id(), Config::new()),
        identify: identify::Behaviour::new(
            identify::Config::new("/test/1".into(), key.public()).with_hide_listen_addrs(true),
        ),
    };
    let mut bob = swarm(identified);
    for port in 1..=30 {
        bob.add_external_address(at(port));
    }
    let (peer, address, task) = run(bob).await;
    let way = detour(&address, Duration::ZERO).await;
    let mut ada = swarm(identified);
    ada.behaviour_mut().persistent.add_peer(peer, []).unwrap();
    // Learnt once, and never said again.
    ada.add_peer_address(peer, way);
    let (mut announced, mut connected, mut lost) = (false, 0, false);
    let wait = async {
        while connected < 2 {
            match ada.select_next_some().await {
                SwarmEvent::Behaviour(IdentifiedEvent::Identify(identify::Event::Received { info, .. })) => {
                    assert!(info.listen_addrs.len() > 8, "{:?}", info.listen_addrs);
                    if !std::mem::replace(&mut announced, true) {
                        let ids: Vec<_> = ada.connected_peers().copied().collect();
                        ids.into_iter().for_each(|peer| ada.disconnect_peer_id(peer).unwrap());
                    }
                }
                SwarmEvent::ConnectionEstablished { .. } => connected += 1,
                SwarmEvent::ConnectionClosed { .. } => lost = true,
                _ => {}
            }
        }
    };
    timeout(SOON, wait).await.expect("it is found again");
    assert!(announced && lost);
    task.abort();
}

#[tokio::test]
async fn an_address_at_which_this_node_itself_listens_is_not_dialled() {
    let (peer, right, _task) = run(swarm(|_| dummy::Behaviour)).await;
    let right = detour(&right, Duration::from_millis(200)).await;
    let mut ada = wanting();
    // A dial over TCP would come from that very port, and fail for that.
    ada.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let own = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = ada.select_next_some().await {
            break address;
        }
    };
    // As programs that all listen on the same port of their own host announce it.
    ada.behaviour_mut().add_peer(peer, [own, right]).unwrap();
    let events = connected(&mut ada, peer).await;
    let failed = events.iter().filter(|event| matches!(event, Event::DialFailed { .. }));
    assert_eq!(failed.count(), 0, "{events:?}");
}
