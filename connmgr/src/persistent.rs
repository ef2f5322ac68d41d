//! Wanted peers that stay connected, and a number of connections that is regained after losses.
//!
//! [`Behaviour`] dials what it was told to keep ([`add_peer`](Behaviour::add_peer)), keeps those connections alive past
//! the Swarm's idle timeout, asks them now and then whether they still answer, and dials again when one is lost: at once
//! after a connection that had lasted, and after failures with exponentially growing, jittered pauses. With
//! [`Config::with_target_connections`] it also fills up the number of connected peers from those it has met before.
//!
//! # One connection
//!
//! Peers that want each other dial each other, and may end up with two connections or more. Both ends then choose the
//! same one to keep, without a word:
//!
//! 1. a direct one before a relayed one;
//! 2. of connections that came up more than [`Config::with_simultaneous`] (10 s) apart, the newest: whoever dials again
//!    had lost the old one;
//! 3. the one that the peer with the greater id dialled (its bytes compared as numbers);
//! 4. the oldest.
//!
//! The peer with the **smaller** id closes the others at once: it is the listener of the connection that rule 3 keeps, and a
//! listener's connection is complete at both ends, while a dialer's may still be refused. The other end gives it
//! [`Config::with_settle`] (5 s) and then does the same, for the case that its peer does not run this behaviour. Only one
//! end acts, so two clocks that measure rule 2 differently cannot close each other's choice.
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
