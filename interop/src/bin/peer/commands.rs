//! What can be asked for on standard input.

use crate::behaviour::Behaviour;
use crate::report::{listen_failure, report};
use anyhow::{Context as _, Result};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, kad, rendezvous};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, json};
use std::fmt::Display;
use std::str::FromStr;

/// One line of standard input: `{"do": "dial", "address": "/ip4/…"}`.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Command {
    Listen {
        #[serde(deserialize_with = "parsed")]
        address: Multiaddr,
    },
    Dial {
        #[serde(deserialize_with = "parsed")]
        address: Multiaddr,
    },
    /// Dials a peer at the addresses that the behaviours know.
    DialPeer {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    Disconnect {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    /// Adds an address under which this peer believes to be reachable. Told when it is done: from then on a relay is one.
    External {
        #[serde(deserialize_with = "parsed")]
        address: Multiaddr,
    },
    /// Joins the DHT through one peer.
    KadJoin {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
        #[serde(deserialize_with = "parsed")]
        address: Multiaddr,
    },
    KadPut {
        key: String,
        value: String,
    },
    KadGet {
        key: String,
    },
    /// Asks for the routing table.
    KadTable,
    Subscribe {
        topic: String,
    },
    Publish {
        topic: String,
        text: String,
    },
    /// Sends a text of so many bytes, which is to come back.
    Request {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
        bytes: usize,
    },
    Register {
        #[serde(deserialize_with = "parsed")]
        at: PeerId,
        namespace: String,
    },
    Discover {
        #[serde(deserialize_with = "parsed")]
        at: PeerId,
        namespace: String,
    },
}

impl Command {
    pub(crate) fn run(self, swarm: &mut Swarm<Behaviour>) -> Result<()> {
        let me = *swarm.local_peer_id();
        match self {
            Self::Listen { address } => {
                if let Err(error) = swarm.listen_on(address.clone()) {
                    report(&listen_failure(&address, &error));
                }
            }
            Self::Dial { address } => swarm.dial(address)?,
            Self::DialPeer { peer } => swarm.dial(DialOpts::peer_id(peer).build())?,
            Self::Disconnect { peer } => {
                swarm.disconnect_peer_id(peer).ok().context("not connected")?;
            }
            Self::External { address } => {
                swarm.add_external_address(address);
                report(&json!({"event": "external_added"}));
            }
            Self::KadJoin { peer, address } => {
                let kad = swarm.behaviour_mut().kad.as_mut().context("no kad")?;
                kad.add_address(&peer, address);
                kad.bootstrap()?;
            }
            Self::KadPut { key, value } => {
                let record = kad::Record::new(key.into_bytes(), value.into_bytes());
                let kad = swarm.behaviour_mut().kad.as_mut().context("no kad")?;
                kad.put_record(record, kad::Quorum::All)?;
            }
            Self::KadGet { key } => {
                let kad = swarm.behaviour_mut().kad.as_mut().context("no kad")?;
                kad.get_record(key.into_bytes().into());
            }
            Self::KadTable => {
                let kad = swarm.behaviour_mut().kad.as_mut().context("no kad")?;
                let mut peers = Map::new();
                for bucket in kad.kbuckets() {
                    for entry in bucket.iter() {
                        let addresses: Vec<_> = entry.node.value.iter().map(Multiaddr::to_string).collect();
                        peers.insert(entry.node.key.preimage().to_string(), addresses.into());
                    }
                }
                report(&json!({"event": "kad_table", "peers": peers}));
            }
            Self::Subscribe { topic } => {
                let gossipsub = swarm.behaviour_mut().gossipsub.as_mut().context("no gossipsub")?;
                gossipsub.subscribe(&gossipsub::IdentTopic::new(topic))?;
            }
            Self::Publish { topic, text } => {
                let gossipsub = swarm.behaviour_mut().gossipsub.as_mut().context("no gossipsub")?;
                gossipsub.publish(gossipsub::IdentTopic::new(topic), text)?;
            }
            Self::Request { peer, bytes } => {
                let echo = swarm.behaviour_mut().echo.as_mut().context("no request-response")?;
                echo.send_request(&peer, text(&me, bytes));
            }
            Self::Register { at, namespace } => {
                let client = swarm.behaviour_mut().rendezvous_client.as_mut();
                let namespace = rendezvous::Namespace::new(namespace)?;
                client.context("no rendezvous client")?.register(namespace, at, None)?;
            }
            Self::Discover { at, namespace } => {
                let client = swarm.behaviour_mut().rendezvous_client.as_mut();
                let namespace = rendezvous::Namespace::new(namespace)?;
                client
                    .context("no rendezvous client")?
                    .discover(Some(namespace), None, None, at);
            }
        }
        Ok(())
    }
}

/// A text of so many bytes in which no two places look alike, and no two peers' are the same: lost, doubled, swapped
/// or misdirected pieces show.
pub(crate) fn text(author: &PeerId, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    for line in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!("{author} {line}\n"));
    }
    text.truncate(bytes);
    text
}

/// For types that read from a string and whose serde support would be one feature more.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
