//! How the three kinds of swarm are put together. This is the file to copy from.

use crate::transfer;
use anyhow::Result;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport, cbor};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, gossipsub, identify, noise, ping, tcp, yamux};
use libp2p_knock as knock;
use std::time::Duration;

/// How many connections a node takes unless it is told otherwise.
pub(crate) const CONNECTIONS: u16 = 128;
/// What one connection may have: streams of both ends together, and those of the other end whose
/// protocol is not agreed yet. Four files each way at once take 64.
const STREAMS: usize = 128;
const HALF_OPEN: usize = 64;

/// Stock behaviours, but for the first: none knows or cares which transport carries it.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// Says no at a number of connections. A peer that knows this node's peer id could else make it
    /// hold any number.
    connmgr: libp2p_connmgr::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) transfer: cbor::Behaviour<transfer::Request, transfer::Response>,
}

/// The one topic everybody here is subscribed to.
pub(crate) fn topic() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("knock-example/chat")
}

/// Knock only: no byte for anybody who does not know this node's peer id.
pub(crate) fn silent(key: Keypair, name: &str, config: knock::Config, most: u16) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| knock::tokio::Transport::new(bounded(config)))?
        .with_behaviour(|key| behaviour(key, name, most))?
        .with_swarm_config(tuned)
        .build())
}

/// The same, and `/dns…` addresses can be dialled. Fails where the system has no resolver configuration.
pub(crate) fn silent_with_dns(key: Keypair, name: &str, config: knock::Config, most: u16) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| knock::tokio::Transport::new(bounded(config)))?
        .with_dns()?
        .with_behaviour(|key| behaviour(key, name, most))?
        .with_swarm_config(tuned)
        .build())
}

/// What nearly every libp2p node speaks: TCP, Noise, yamux.
pub(crate) fn stock(key: Keypair, name: &str) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| behaviour(key, name, CONNECTIONS))?
        .with_swarm_config(tuned)
        // Default 10 s. In the demo it dials a port that never says a word, and nobody wants to watch that for long.
        .with_connection_timeout(Duration::from_secs(2))
        .build())
}

/// Both at once, while a network moves from one to the other. Each listens on a port of its own.
pub(crate) fn both(key: Keypair, name: &str) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_other_transport(|key| Ok(knock::tokio::Transport::new(bounded(knock::Config::new(key)?))))?
        .with_behaviour(|key| behaviour(key, name, CONNECTIONS))?
        .with_swarm_config(tuned)
        .build())
}

/// Streams cost memory at both ends, and one end alone can open them.
fn bounded(config: knock::Config) -> knock::Config {
    config.with_yamux(knock::yamux::Config::default().with_max_substreams(STREAMS))
}

fn tuned(config: libp2p::swarm::Config) -> libp2p::swarm::Config {
    config
        .with_max_negotiating_inbound_streams(HALF_OPEN)
        // Send the first bytes of a substream together with the name of its protocol, and do not wait until the other
        // end has agreed to the name: one round trip less for every ping, message and chunk. Safe here, as with any
        // protocol whose opener speaks first. The knock itself saves nothing of this: it ends below the substreams.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        // A connection on which no behaviour has work is closed after 10 s by default. Friends who are silent for a
        // while should stay connected: a new connection costs a new knock and a new handshake.
        .with_idle_connection_timeout(Duration::from_secs(u64::MAX))
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

fn behaviour(key: &Keypair, name: &str, most: u16) -> Result<Behaviour, Boxed> {
    // No watermarks: friends are not trimmed, and a peer that comes when all places are taken is
    // denied. The handle would protect some of them, so that they find a place always.
    let connmgr = libp2p_connmgr::Config::disabled().with_hard_limit(most.into())?;
    let (connmgr, _manager) = libp2p_connmgr::new(connmgr);
    let mut gossip = gossipsub::Behaviour::new(
        gossipsub::MessageAuthenticity::Signed(key.clone()),
        gossipsub::Config::default(),
    )?;
    gossip.subscribe(&topic())?;
    let agent = format!("{}/{} ({name})", env!("CARGO_BIN_NAME"), env!("CARGO_PKG_VERSION"));
    Ok(Behaviour {
        connmgr,
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(
            identify::Config::new("/knock-example/1".to_owned(), key.public()).with_agent_version(agent),
        ),
        gossip,
        transfer: cbor::Behaviour::with_codec(
            // The codec reads a whole message into memory before it looks at it: bound it by what we send ourselves.
            cbor::codec::Codec::default()
                .set_request_size_maximum(transfer::MAX_REQUEST)
                .set_response_size_maximum(transfer::MAX_RESPONSE),
            [(StreamProtocol::new("/knock-example/file/1"), ProtocolSupport::Full)],
            // Default 10 s, which a full pipeline of chunks exceeds on a slow line.
            request_response::Config::default().with_request_timeout(Duration::from_secs(60)),
        ),
    })
}

/// The last letters of a peer id: the first ones are the same for every Ed25519 key.
pub(crate) fn short(peer: &libp2p::PeerId) -> String {
    let id = peer.to_string();
    id.get(id.len().saturating_sub(8)..).unwrap_or(&id).to_owned()
}
