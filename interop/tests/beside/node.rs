//! The node: everything in one Swarm.

use crate::peers::{Peer, knocks, rendered, serving, sum};
use crate::{PATIENCE, feeder, loopback, usage};
use futures::StreamExt as _;
use libp2p::kad::store::MemoryStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, autonat, dcutr, identify, kad, noise, relay, yamux};
use libp2p_connmgr::PersistentPeers;
use libp2p_connmgr::persistent::{self, Probes};
use libp2p_gater::goodbye::BackedOff;
use libp2p_gater::{Gate, Rules};
use prometheus_client::registry::Registry;
use std::time::Duration;
use tokio::time::timeout;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: libp2p_gater::Behaviour,
    pub(crate) connmgr: libp2p_connmgr::Behaviour,
    pub(crate) persistent: PersistentPeers,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) autonat1: autonat::v1::Behaviour,
    pub(crate) autonat2_client: autonat::v2::client::Behaviour,
    pub(crate) autonat2_server: autonat::v2::server::Behaviour,
    pub(crate) relay: relay::Behaviour,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) dcutr: dcutr::Behaviour,
    pub(crate) feeder: feeder::Behaviour,
    pub(crate) usage: usage::Behaviour,
}

pub(crate) struct Node {
    pub(crate) swarm: Swarm<Behaviour>,
    registry: Registry,
    pub(crate) address: Multiaddr,
}

/// What AutoNAT 2 is asked about, one after the other.
const CANDIDATES: usize = 10;

impl Node {
    pub(crate) async fn start() -> Self {
        let mut registry = Registry::default();
        let gate = Gate::new(Rules::new());
        // There are five wanted peers and three visitors.
        let config = libp2p_connmgr::Config::new(1, 7)
            .unwrap()
            .with_grace_period(Duration::from_millis(500))
            .with_silence_period(Duration::from_secs(4))
            .unwrap()
            .with_closer(gate.closer());
        let (connmgr, manager) = libp2p_connmgr::new(config);
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_other_transport(|key| {
                let config = libp2p_knock::Config::new(key)?
                    .with_admission(gate.knock())
                    .with_secured_hook(gate.secured())
                    .with_metrics(&mut registry)?;
                Ok(manager.count(gate.transport(libp2p_knock::tokio::Transport::new(config))))
            })
            .unwrap()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relay_client| {
                let local = key.public().to_peer_id();
                let config = persistent::Config::new()
                    .with_probes(Probes {
                        interval: Duration::from_secs(4),
                        timeout: Duration::from_secs(20),
                    })
                    .with_denied_for(|denied| denied.downcast_ref::<BackedOff>().map(|backed_off| backed_off.left));
                let mut kad_config = kad::Config::default();
                kad_config.set_periodic_bootstrap_interval(Some(Duration::from_secs(10)));
                let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), kad_config);
                kad.set_mode(Some(kad::Mode::Server));
                let identify = identify::Config::new("/node/1".into(), key.public())
                    .with_interval(Duration::from_secs(10))
                    .with_push_listen_addr_updates(true);
                let autonat1 = autonat::v1::Config {
                    boot_delay: Duration::from_secs(2),
                    retry_interval: Duration::from_secs(4),
                    refresh_interval: Duration::from_secs(4),
                    throttle_server_period: Duration::from_secs(1),
                    only_global_ips: false,
                    ..autonat::v1::Config::default()
                };
                Behaviour {
                    gate: gate.behaviour(),
                    connmgr,
                    persistent: PersistentPeers::new(local, config).with_manager(manager.clone()),
                    identify: identify::Behaviour::new(identify),
                    kad,
                    autonat1: autonat::v1::Behaviour::new(local, autonat1),
                    autonat2_client: autonat::v2::client::Behaviour::default(),
                    autonat2_server: autonat::v2::server::Behaviour::default(),
                    relay: serving(relay::Behaviour::new(local, relay::Config::default())),
                    relay_client,
                    dcutr: dcutr::Behaviour::new(local),
                    feeder: feeder::Behaviour::new(),
                    usage: usage::Behaviour::new(true),
                }
            })
            .unwrap()
            .build();
        let mut node = Self {
            swarm,
            registry,
            address: Multiaddr::empty(),
        };
        for _ in 0..CANDIDATES {
            node.swarm.listen_on(loopback()).unwrap();
            node.address = node.new_address().await;
            let address = node.address.clone();
            node.swarm.behaviour_mut().feeder.add(address);
        }
        node
    }

    async fn new_address(&mut self) -> Multiaddr {
        let wait = async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = self.swarm.select_next_some().await {
                    return address;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("an address")
    }

    /// Where it can be found through a relay as well, for as long as it renews its reservation.
    pub(crate) fn listen_through(&mut self, relay: &Peer) {
        let circuit = relay
            .address
            .clone()
            .with_p2p(relay.id)
            .unwrap()
            .with(Protocol::P2pCircuit);
        self.swarm.listen_on(circuit).unwrap();
    }

    /// Knocks that had no answer.
    pub(crate) fn knocks_refused(&self) -> u64 {
        knocks(&self.registry) - sum(&self.registry, "libp2p_knock_knocks_total{outcome=\"accepted\"}")
    }

    pub(crate) fn rendered(&self) -> String {
        rendered(&self.registry)
    }
}
