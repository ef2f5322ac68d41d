#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map, from the top, which may import everything below it, to the bottom: bytes and time in, frames and messages out.

// A host of its own, over knock and TLS; the same streams in a Swarm.
mod behaviour;
mod config;
mod host;

// What runs one connection, and what counts below it.
mod link;
mod meter;

// What the application holds, and what is shared behind it.
mod handle;
mod peers;
mod stream;

// Where peers are found.
pub mod discovery;

// What is counted, for Prometheus.
#[cfg(feature = "metrics")]
pub mod metrics;

// What serves all of them.
mod after;
mod counters;
mod error;
mod limits;
mod message;
mod separation;
mod unreached;
mod user_code;

// Pure: frames, buckets, buffers, who is dialled when, which connection is kept.
mod engine;

pub use behaviour::{Behaviour, BehaviourConfig};
pub use config::HostConfig;
pub use counters::{Counter, Gauge, HostCounters, PeerCounters, Sizes};
pub use engine::responses::ResponsePolicy;
pub use error::{LimitsError, OpenError, SignError, StartError, UpdateError};
pub use handle::Handle;
pub use host::Host;
pub use limits::{
    Limits, MAX_MESSAGE_LENGTH, MAX_PEERS_PER_HOST, MAX_STREAM_NAME_LENGTH, MAX_STREAMS_PER_PEER, Priority, Rate,
};
pub use message::{Inbound, Payload, RequestHandle, Sent};
pub use stream::{Stream, Stream2};
pub use user_code::{Hook, HookPanics};

// Types of other crates in public signatures.
pub use bytes::Bytes;
pub use futures::future::BoxFuture;
pub use libp2p_core::Multiaddr;
pub use libp2p_identity::{Keypair, PeerId};
pub use libp2p_knock;
#[cfg(feature = "metrics")]
pub use prometheus_client;

/// For this workspace's fuzzers. Unstable.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
