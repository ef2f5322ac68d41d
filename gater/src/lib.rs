#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map, from the top, which may import everything below it, to the bottom.

// The parts that a gate hands out, and what they share.
mod behaviour;
mod event;
mod gate;
mod transport;
mod upgrade;

// What serves all of them.
mod admission;
mod error;
mod joins;
#[cfg(feature = "metrics")]
mod measured;
mod metrics;
#[cfg(feature = "metrics")]
mod registered;
mod user_code;
mod wakers;

// Saying why, before a connection is closed.
pub mod goodbye;

// The ready-made policy.
mod rules;
mod shown;

// What a policy is, several as one, and how it says that it has changed its mind.
mod changes;
mod compose;
mod context;
mod gater;
mod verdict;

// Pure: what an address says.
mod address;

pub use address::{Parts, TransportKind, canonical, embedded_ipv4};
pub use behaviour::Behaviour;
pub use changes::Changes;
pub use compose::{AllMustAllow, FirstWins};
pub use context::{
    Accept, AddrDial, Direction, Knock, Link, LiveConnection, PeerDial, PendingConnection, Secured, Upgraded,
};
pub use error::Error;
pub use event::Event;
pub use gate::Gate;
pub use gater::{ConnectionGater, Explanation, Observation};
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use registered::AlreadyRegistered;
pub use rules::{
    Admission, Caps, Change, Cidr, CidrError, Edits, FileError, LineError, ListError, ListFormat, Member, NetworkList,
    Prefixes, Rate, Rule, RuleError, Rules, SaveError, Standing, Subject, Warning,
};
pub use transport::{Gated, Transport};
pub use upgrade::{Asking, Upgrade};
pub use verdict::{Denied, Reason, Stage, Verdict};

// What this crate's own types are made of, in the versions that they are.
pub use libp2p_core::transport::ListenerId;
pub use libp2p_core::{self, ConnectedPoint, Endpoint, Multiaddr};
pub use libp2p_identity::{self, Keypair, PeerId};
pub use libp2p_swarm::{self, ConnectionDenied, ConnectionId, DialError, ListenError};
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use prometheus_client;
