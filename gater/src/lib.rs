//! One policy object, asked at every stage of a connection's life in a rust-libp2p swarm

// The map, from the top, which may import everything below it, to the bottom.

// What a policy is, several as one, and how it says that it has changed its mind.
mod changes;
mod compose;
mod context;
mod gater;
mod verdict;

// Pure: what an address says.
mod address;

pub use address::{Parts, TransportKind, canonical};
pub use changes::Changes;
pub use compose::{AllMustAllow, FirstWins};
pub use context::{
    Accept, AddrDial, Direction, Knock, Link, LiveConnection, PeerDial, PendingConnection, Secured, Upgraded,
};
pub use gater::{ConnectionGater, Explanation, Observation};
pub use verdict::{Denied, Reason, Stage, Verdict};
