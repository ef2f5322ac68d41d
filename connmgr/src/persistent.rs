//! Wanted peers that stay connected, and a number of connections that is regained after losses.
//!
//! [`Behaviour`] dials the peers that it is told to keep ([`add_peer`](Behaviour::add_peer)), keeps
//! their connections alive at both ends, asks them whether they still answer, and dials again when
//! one is lost: at once after a connection that had lasted, and after failures with exponentially
//! growing, jittered pauses. With [`Config::with_target_connections`] it also fills up the number
//! of connected peers from those it has met before.
//!
//! # What a wanted peer's connection survives
//!
//! The idle timeout of this Swarm, and that of the peer's if it is longer than
//! [`Config::with_keep_alive_interval`] (6 s; libp2p's default is 10 s) by the time that a stream
//! takes to arrive. A peer that runs this crate holds a stream instead: its timeout has only to
//! outlast the first second. How this works is in [`alive`](crate::alive). The peer's program, its
//! trims and its gate may still close the connection.
//!
//! # Addresses
//!
//! | what | how many | how long |
//! | --- | --- | --- |
//! | given by the application | [`Behaviour::MAX_ADDRESSES`] | until others are given |
//! | dialled with success | the last 4 | until 4 others have worked |
//! | claimed, by the peer or by other behaviours | the last 8 | until 8 others are claimed |
//!
//! A dial tries eight of them: the last two that worked, and then those that were tried least in
//! vain. Addresses that other behaviours contribute are tried behind these; every other dial in
//! vain leaves four places for them. An address at which another peer answers is left out for a
//! minute, doubled with each time up to an hour. The dial after that tries only addresses that were
//! given or have worked, or else only claims, or else what other behaviours contribute. While all
//! addresses are left out, every other dial tries the one that comes back first. Addresses at which
//! this Swarm listens itself are not dialled.
//!
//! # One connection
//!
//! Peers that want each other dial each other, and other behaviours dial too: AutoNAT dials back, a
//! hole is punched. Both ends choose the same connection to keep:
//!
//! 1. a direct one before a relayed one;
//! 2. of these, the oldest and those that came up within [`Config::with_simultaneous`] (10 s) of
//!    it;
//! 3. of these, one that the peer with the greater id dialled (its bytes compared as numbers);
//! 4. of these, the oldest.
//!
//! A connection that comes up later may mean that the peer has lost the others. So the chosen one
//! is asked, and all are kept until it has answered. If it does not answer it is closed, and the
//! choice is made among the others.
//!
//! The connections that are not chosen are let go of. The peer with the **smaller** id closes one
//! when it has carried no stream but questions for [`Config::with_settle`] (3 s). The other end
//! does so after half as long again, for a peer that does not run this behaviour. A connection that
//! carries streams is never closed for being one too many. If the ends should choose differently,
//! for a clock that measures rule 2 otherwise, both connections are kept until one carries no
//! stream.
//!
//! ```
//! # fn main() -> Result<(), libp2p_connmgr::persistent::AddError> {
//! use libp2p_connmgr::PersistentPeers;
//! use libp2p_connmgr::persistent::Config;
//! # let (local, oracle) = (libp2p_identity::PeerId::random(), libp2p_identity::PeerId::random());
//!
//! let mut persistent = PersistentPeers::new(local, Config::new());
//! persistent.add_peer(oracle, ["/ip4/192.0.2.7/tcp/4001/tls".parse().expect("an address")])?;
//! # Ok(())
//! # }
//! ```

mod behaviour;
mod config;
mod error;
mod event;
mod handler;
mod metrics;

// Pure: time and what the Swarm reports come in, dials and closes go out.
mod choice;
mod knock;
mod pauses;
mod peers;

pub use behaviour::Behaviour;
pub use config::{Config, Probes};
pub use error::{AddError, DialFailure, NotByKnock};
pub use event::Event;
pub use handler::{Command, Handler, Reply};
