//! What can be asked for on standard input.

use libp2p::{Multiaddr, PeerId};
use libp2p_gater::Rule;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

/// One line of standard input: `{"id": 7, "command": {"do": "dial", "address": "/ip4/…"}}`. The
/// answer has the same id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) id: u64,
    pub(crate) command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Keeps `peer` connected, and talks with it.
    Want {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    /// Talks with `peer`, which wants us, and protects it.
    Serve {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    /// Dials once, connected or not.
    Dial { address: Multiaddr },
    /// Puts a rule, a line of a file of rules, on its list and into the file.
    Insert {
        #[serde(deserialize_with = "parsed")]
        rule: Rule,
    },
    /// Takes it off both.
    Remove {
        #[serde(deserialize_with = "parsed")]
        rule: Rule,
    },
    /// Reads the file again.
    Reload,
    /// All rules that are in force.
    Rules,
    /// Whether each of them would be let in.
    Judge { subjects: Vec<Subject> },
    /// Everything that is known here.
    State,
    /// Tells everybody.
    Gossip { text: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Peer(#[serde(deserialize_with = "parsed")] PeerId),
    Ip(IpAddr),
}

/// For types that read from a string and have no serde support.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
