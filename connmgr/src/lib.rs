#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map, from the top, which may import everything below it, to the bottom: connections, tags and time in, whom to close out.

mod behaviour;
mod handle;
mod handler;

// What the handlers of both have: a connection kept at both ends.
pub mod alive;

// What serves both.
mod config;
mod conn_manager;
mod decay;
mod event;
mod info;
#[cfg(feature = "metrics")]
mod measured;
mod metrics;
#[cfg(feature = "metrics")]
mod registered;
mod shared;
mod trimming;
mod user_code;

// A wrapper around transports, which sees streams.
pub mod count;

// Plugins beside the manager: wanted peers stay connected; memory that runs short is noticed.
pub mod persistent;
pub mod pressure;

// Pure.
mod core;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use registered::AlreadyRegistered;

pub use behaviour::{Behaviour, new};
pub use config::{Config, ConfigError, KeepAlive, LimitError, TrimTarget};
pub use conn_manager::{ConnManager, NullConnMgr};
pub use decay::{Bump, BumpError, Decay, DecayingTag, DecayingValue, RegisterError};
pub use event::{Event, Reason, Skipped, Trimmed};
pub use handle::{HardLimitReached, InUse, Manager};
pub use handler::{Handler, SetKeepAlive};
pub use info::{Candidate, Class, ConnectionInfo, Count, Counts, Explanation, Info, TagInfo};
pub use persistent::Behaviour as PersistentPeers;
pub use trimming::{TrimError, Trimming};

// Types of other crates in public signatures.
pub use futures::future::BoxFuture;
pub use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
pub use libp2p_identity::PeerId;
pub use libp2p_swarm::{ConnectionDenied, ConnectionId};
#[cfg(feature = "metrics")]
pub use prometheus_client;
pub use web_time::Instant;

#[cfg(test)]
mod tests;
