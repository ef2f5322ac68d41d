//! All behaviours of a node, in the order in which they are asked.

use anyhow::{Result, anyhow};
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{autonat, gossipsub, identify, kad, ping};
use libp2p_connmgr::persistent::{self, Probes};
use libp2p_connmgr::{Manager, PersistentPeers};
use libp2p_gater::{Gate, goodbye};
use std::time::Duration;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// First: nobody else needs to look at what it refuses.
    pub(crate) gate: libp2p_gater::Behaviour,
    pub(crate) connmgr: libp2p_connmgr::Behaviour,
    pub(crate) persistent: PersistentPeers,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub(crate) gossipsub: gossipsub::Behaviour,
    pub(crate) autonat_server: autonat::v2::server::Behaviour,
    pub(crate) autonat_client: Toggle<autonat::v2::client::Behaviour>,
    pub(crate) streams: knock_host::Behaviour,
}

/// The one topic that every node is subscribed to.
pub(crate) fn topic() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("hardship")
}

impl Behaviour {
    /// Impatient, for a test: what takes minutes elsewhere takes seconds. A `still` one has nothing
    /// that dials by itself.
    pub(crate) fn new(
        key: &Keypair,
        still: bool,
        gate: &Gate,
        connmgr: libp2p_connmgr::Behaviour,
        manager: &Manager,
    ) -> Result<Self> {
        let local = key.public().to_peer_id();
        let wanted = persistent::Config::new()
            .with_min_interval(Duration::from_millis(200))
            .with_max_interval(Duration::from_secs(3))
            .with_probes(Probes {
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(5),
            });
        let identify = identify::Config::new("/citizen/1".into(), key.public())
            .with_push_listen_addr_updates(true)
            .with_interval(Duration::from_secs(10));
        let mut kad = kad::Config::default();
        kad.set_periodic_bootstrap_interval(Some(Duration::from_secs(10)))
            .set_query_timeout(Duration::from_secs(10));
        let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), kad);
        // Left to itself it would first wait for a confirmed external address.
        kad.set_mode(Some(kad::Mode::Server));
        let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
        let mut gossip = gossipsub::Behaviour::new(signed, gossipsub::Config::default()).map_err(|e| anyhow!(e))?;
        gossip.subscribe(&topic())?;
        let probing = autonat::v2::client::Config::default().with_probe_interval(Duration::from_secs(2));
        Ok(Self {
            // Without a word of its own a goodbye keeps a peer away for half a minute, which is
            // longer than the short form.
            gate: gate
                .behaviour()
                .with_goodbye(goodbye::Config::default().with_usual_back_off(Duration::from_secs(2))),
            connmgr,
            persistent: PersistentPeers::new(local, wanted).with_manager(manager.clone()),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(5))),
            kad: (!still).then_some(kad).into(),
            gossipsub: gossip,
            autonat_server: autonat::v2::server::Behaviour::default(),
            autonat_client: (!still)
                .then(|| autonat::v2::client::Behaviour::new(rand::make_rng(), probing))
                .into(),
            streams: knock_host::Behaviour::new(
                local,
                knock_host::BehaviourConfig::default().with_dial_interval(Duration::from_secs(1)),
            ),
        })
    }
}
