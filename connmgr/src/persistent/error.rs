//! Why a peer cannot be wanted, and why it was not reached.

use super::behaviour::Behaviour;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionDenied, DialError};
use std::error::Error;
use std::fmt::Write as _;

/// Why a peer cannot be wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// It is the local peer.
    #[error("a node cannot connect to itself")]
    LocalPeer,
    /// An address ends in the id of another peer.
    #[error("address of another peer: {address}")]
    AnotherPeer {
        /// That address.
        address: Multiaddr,
    },
    /// More addresses than [`Behaviour::MAX_ADDRESSES`].
    #[error("too many addresses: {given}, expected at most {}", Behaviour::MAX_ADDRESSES)]
    TooManyAddresses {
        /// How many.
        given: usize,
    },
    /// A peer that is to be reached by knock only has an address that is not a knock's.
    #[error("not a knock address: {address}, expected /tls as its last part before /p2p")]
    NotByKnock {
        /// That address.
        address: Multiaddr,
    },
}

/// Why a connection was refused by [`Behaviour`]: its peer is wanted by knock only. Found in the
/// Swarm's [`ConnectionDenied`] by downcasting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer {peer} is wanted by knock only: {address} is not a knock address")]
#[non_exhaustive]
pub struct NotByKnock {
    /// Whose connection it was.
    pub peer: PeerId,
    /// Where it led, or where it came in.
    pub address: Multiaddr,
}

/// Why a dial of a wanted peer has failed. An event can be cloned and compared, the Swarm's error
/// cannot: what it says is here as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// A part of this Swarm said no: a gate, a back-off, a limit. Not a failure of the peer.
    #[error("denied: {reason}")]
    Denied {
        /// What it said, and what caused that.
        reason: String,
    },
    /// No address of the peer is known.
    #[error("no address is known")]
    NoAddresses,
    /// Another peer answered.
    #[error("another peer, {obtained}, answered at {address}")]
    WrongPeer {
        /// Who.
        obtained: PeerId,
        /// Where. Left out of the next dials.
        address: Multiaddr,
    },
    /// No address led to a connection. Those of other behaviours are among them.
    #[error("no address leads to the peer: {}", listed(.errors))]
    Unreachable {
        /// The addresses that were tried, and what came of each.
        errors: Vec<(Multiaddr, String)>,
    },
    /// Anything else.
    #[error("{reason}")]
    Other {
        /// What the Swarm says.
        reason: String,
    },
}

impl DialFailure {
    pub(crate) fn new(error: &DialError) -> Self {
        match error {
            DialError::Denied { cause } => Self::Denied { reason: denial(cause) },
            DialError::NoAddresses => Self::NoAddresses,
            DialError::WrongPeerId { obtained, address } => Self::WrongPeer {
                obtained: *obtained,
                address: address.clone(),
            },
            DialError::Transport(errors) => Self::Unreachable {
                errors: errors
                    .iter()
                    .map(|(address, error)| (address.clone(), chain(error)))
                    .collect(),
            },
            other => Self::Other { reason: chain(other) },
        }
    }
}

/// A denial's own text says only that it is one.
fn denial(cause: &ConnectionDenied) -> String {
    cause.source().map_or_else(|| cause.to_string(), chain)
}

/// An error and its causes, each text once: many of libp2p's say what their cause says, and some
/// say nothing.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if text.is_empty() {
            text = more;
        } else if !text.contains(&more) {
            // Writing into a string does not fail.
            let _ = write!(text, ": {more}");
        }
        source = cause.source();
    }
    text
}

fn listed(errors: &[(Multiaddr, String)]) -> String {
    let each = errors.iter().map(|(address, error)| format!("{address}: {error}"));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_core::transport::TransportError;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("not today")]
    struct NotToday;

    #[test]
    fn a_failed_dial_says_what_the_swarm_would_have_said() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let obtained = PeerId::random();
        let refused = || TransportError::Other(io::Error::other("refused"));
        for (error, text) in [
            (DialError::NoAddresses, "no address is known".to_owned()),
            (
                DialError::Denied {
                    cause: ConnectionDenied::new(NotToday),
                },
                "denied: not today".to_owned(),
            ),
            (
                DialError::WrongPeerId {
                    obtained,
                    address: address.clone(),
                },
                format!("another peer, {obtained}, answered at {address}"),
            ),
            (
                DialError::Transport(vec![(address.clone(), refused()), (address.clone(), refused())]),
                format!("no address leads to the peer: {address}: refused; {address}: refused"),
            ),
        ] {
            assert_eq!(DialFailure::new(&error).to_string(), text);
        }
    }
}
