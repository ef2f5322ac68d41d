//! libp2p's own behaviours, each switched on by name.

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, ProtocolSupport, cbor};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, autonat, gossipsub, identify, kad, ping, relay, rendezvous};
use std::num::NonZeroUsize;

/// What can be switched on. The relay's client is always there: its half of the transport is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    Ping,
    Identify,
    Kad,
    Gossipsub,
    RequestResponse,
    RendezvousServer,
    RendezvousClient,
    AutonatServer,
    AutonatClient,
    Relay,
}

/// A request is a text, and so is its response: the same.
pub(crate) type Echo = cbor::Behaviour<String, String>;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) ping: Toggle<ping::Behaviour>,
    pub(crate) identify: Toggle<identify::Behaviour>,
    pub(crate) kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub(crate) gossipsub: Toggle<gossipsub::Behaviour>,
    pub(crate) echo: Toggle<Echo>,
    pub(crate) rendezvous_server: Toggle<rendezvous::server::Behaviour>,
    pub(crate) rendezvous_client: Toggle<rendezvous::client::Behaviour>,
    pub(crate) autonat_server: Toggle<autonat::v2::server::Behaviour>,
    pub(crate) autonat_client: Toggle<autonat::v2::client::Behaviour>,
    pub(crate) relay: Toggle<relay::Behaviour>,
    pub(crate) relay_client: relay::client::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(
        keypair: &Keypair,
        relay_client: relay::client::Behaviour,
        with: &[Which],
        kad_replication: NonZeroUsize,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let local = keypair.public().to_peer_id();
        let has = |which| with.contains(&which);
        let gossip = || {
            let authenticity = gossipsub::MessageAuthenticity::Signed(keypair.clone());
            gossipsub::Behaviour::new(authenticity, gossipsub::Config::default()).map_err(|e| anyhow!(e))
        };
        Ok(Self {
            ping: has(Which::Ping).then(ping::Behaviour::default).into(),
            identify: has(Which::Identify)
                .then(|| identify::Config::new("/interop/1.0.0".into(), keypair.public()))
                .map(identify::Behaviour::new)
                .into(),
            kad: has(Which::Kad).then(|| kad(local, kad_replication)).into(),
            gossipsub: has(Which::Gossipsub).then(gossip).transpose()?.into(),
            echo: has(Which::RequestResponse).then(echo).into(),
            rendezvous_server: has(Which::RendezvousServer)
                .then(|| rendezvous::server::Behaviour::new(rendezvous::server::Config::default()))
                .into(),
            rendezvous_client: has(Which::RendezvousClient)
                .then(|| rendezvous::client::Behaviour::new(keypair.clone()))
                .into(),
            autonat_server: has(Which::AutonatServer)
                .then(autonat::v2::server::Behaviour::default)
                .into(),
            autonat_client: has(Which::AutonatClient)
                .then(autonat::v2::client::Behaviour::default)
                .into(),
            relay: has(Which::Relay)
                .then(|| relay::Behaviour::new(local, relay::Config::default()))
                .into(),
            relay_client,
        })
    }
}

fn kad(local: PeerId, replication: NonZeroUsize) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::default();
    config.set_replication_factor(replication);
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
    // Left to itself it would first wait for a confirmed external address.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn echo() -> Echo {
    // The default for a request is 1 MiB with its encoding, which is a few bytes less than 1 MiB of text.
    let codec = cbor::codec::Codec::default().set_request_size_maximum(2 << 20);
    let protocol = (StreamProtocol::new("/echo/1"), ProtocolSupport::Full);
    Echo::with_codec(codec, [protocol], request_response::Config::default())
}
