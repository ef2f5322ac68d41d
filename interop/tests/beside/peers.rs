//! The others: Swarms with libp2p's own defaults, of which none wants anybody.
//!
//! What is not a default here: AutoNAT 1 answers on the loopback network, kad does not wait to be
//! reachable before it answers, and the relay's reservations are short.

use crate::node::Node;
use crate::{PATIENCE, loopback, usage};
use futures::StreamExt as _;
use libp2p::kad::store::MemoryStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, autonat, dcutr, identify, kad, noise, relay, yamux};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Relay,
    /// Without any protocol.
    Bare,
}

#[derive(NetworkBehaviour)]
struct Stock {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    autonat1: autonat::v1::Behaviour,
    autonat2_client: autonat::v2::client::Behaviour,
    autonat2_server: autonat::v2::server::Behaviour,
    relay: relay::Behaviour,
    relay_client: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
    usage: usage::Behaviour,
}

/// A Swarm that runs by itself.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Where to dial it.
    pub(crate) address: Multiaddr,
    registry: Arc<Registry>,
    /// Connections that others have made.
    accepted: Arc<AtomicUsize>,
}

fn stock(registry: &mut Registry) -> Swarm<Stock> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?.with_metrics(registry)?;
            Ok(libp2p_knock::tokio::Transport::new(config))
        })
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key, relay_client| {
            let local = key.public().to_peer_id();
            let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
            kad.set_mode(Some(kad::Mode::Server));
            let autonat1 = autonat::v1::Config {
                only_global_ips: false,
                ..autonat::v1::Config::default()
            };
            let relay = relay::Config {
                reservation_duration: Duration::from_secs(12),
                ..relay::Config::default()
            };
            Stock {
                identify: identify::Behaviour::new(identify::Config::new("/stock/1".into(), key.public())),
                kad,
                autonat1: autonat::v1::Behaviour::new(local, autonat1),
                autonat2_client: autonat::v2::client::Behaviour::default(),
                autonat2_server: autonat::v2::server::Behaviour::default(),
                relay: serving(relay::Behaviour::new(local, relay)),
                relay_client,
                dcutr: dcutr::Behaviour::new(local),
                usage: usage::Behaviour::new(false),
            }
        })
        .unwrap()
        .build()
}

/// A relay that changes its mind about being one while it has a relayed connection itself panics
/// (libp2p-relay 0.22.0): the new status goes to a handler that has no use for it.
pub(crate) fn serving(mut relay: relay::Behaviour) -> relay::Behaviour {
    relay.set_status(Some(relay::Status::Enable));
    relay
}

fn bare(registry: &mut Registry) -> Swarm<dummy::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let config = libp2p_knock::Config::new(key)?.with_metrics(registry)?;
            Ok(libp2p_knock::tokio::Transport::new(config))
        })
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .build()
}

impl Peer {
    pub(crate) async fn start(kind: Kind) -> Self {
        let mut registry = Registry::default();
        if kind == Kind::Bare {
            let mut swarm = bare(&mut registry);
            let address = listen(&mut swarm, loopback()).await;
            return Self::run(swarm, address, registry);
        }
        let mut swarm = stock(&mut registry);
        let address = listen(&mut swarm, loopback()).await;
        if kind == Kind::Relay {
            // A reservation says where the relay can be reached, which it has to know first.
            swarm.add_external_address(address.clone());
        }
        Self::run(swarm, address, registry)
    }

    /// One that is known by a relay's address only, which it listens through.
    pub(crate) async fn behind(relay: &Self) -> Self {
        let mut registry = Registry::default();
        let mut swarm = stock(&mut registry);
        listen(&mut swarm, loopback()).await;
        let circuit = relay
            .address
            .clone()
            .with_p2p(relay.id)
            .unwrap()
            .with(Protocol::P2pCircuit);
        swarm.listen_on(circuit.clone()).unwrap();
        let reserved = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::Behaviour(StockEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                        ..
                    })) => return,
                    // The relay's client gives up at the first difficulty.
                    SwarmEvent::ListenerClosed { .. } => {
                        swarm.listen_on(circuit.clone()).unwrap();
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, reserved).await.expect("a reservation");
        Self::run(swarm, circuit, registry)
    }

    /// One that dials the node whenever it has no connection.
    pub(crate) async fn visiting(node: &Node) -> Self {
        let mut registry = Registry::default();
        let mut swarm = bare(&mut registry);
        let (id, address) = (*node.swarm.local_peer_id(), node.address.clone());
        let peer = *swarm.local_peer_id();
        tokio::spawn(async move {
            loop {
                if !swarm.is_connected(&id) {
                    let opts = DialOpts::peer_id(id).addresses(vec![address.clone()]).build();
                    // It may be dialling already.
                    let _ = swarm.dial(opts);
                }
                let _ = timeout(Duration::from_millis(500), async {
                    loop {
                        swarm.select_next_some().await;
                    }
                })
                .await;
            }
        });
        Self {
            id: peer,
            address: Multiaddr::empty(),
            registry: Arc::new(registry),
            accepted: Arc::default(),
        }
    }

    fn run<B>(mut swarm: Swarm<B>, address: Multiaddr, registry: Registry) -> Self
    where
        B: NetworkBehaviour<ToSwarm: Send> + Send,
    {
        let (id, accepted) = (*swarm.local_peer_id(), Arc::<AtomicUsize>::default());
        let counting = accepted.clone();
        tokio::spawn(async move {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { endpoint, .. }
                        if endpoint.is_listener() && !endpoint.is_relayed() =>
                    {
                        counting.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
        });
        Self {
            id,
            address,
            registry: Arc::new(registry),
            accepted,
        }
    }

    /// All knocks, and the connections that came of them, once what is under way has arrived.
    pub(crate) async fn knocks(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for _ in 0..50 {
            let accepted = self.accepted.load(Ordering::Relaxed);
            counts = (knocks(&self.registry), accepted as u64);
            if counts.0 == counts.1 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        counts
    }

    pub(crate) fn rendered(&self) -> String {
        rendered(&self.registry)
    }
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: Multiaddr) -> Multiaddr {
    swarm.listen_on(address).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// All knocks. Where a hole is punched one end connects and waits for a knock: that is no knock.
pub(crate) fn knocks(registry: &Registry) -> u64 {
    let of = |labels| sum(registry, &format!("libp2p_knock_knocks_total{labels}"));
    of("") - of("{outcome=\"incomplete\"}")
}

pub(crate) fn rendered(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

/// Of all counters whose name and labels begin like this.
pub(crate) fn sum(registry: &Registry, name: &str) -> u64 {
    let text = rendered(registry);
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}
