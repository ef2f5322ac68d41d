#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map, from the top, which may import everything below it, to the bottom: bytes and time in, actions out.

// Both halves joined, and the same over TCP, ready made.
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport;

// The first half, knock then TLS; the second, yamux with a bounded close.
mod authenticated;
mod muxed;

// Sockets that have not knocked, outside the Swarm; the ordered steps of one connection, each under its deadline.
mod listener;
mod upgrade;

// TLS: the handshake without alerts, the byte stream that comes of it, configurations and the verifier that pins the peer.
mod handshake;
mod stream;
mod tls;

// What serves all of them.
mod config;
mod error;
mod identity;
mod metrics;
mod timer;

// Pure: the `/tls` marker, the 178-byte certificate, knock messages, who may wait and until when.
mod address;
mod certificate;
pub mod knock;
// Not wired up yet: the allowance goes when the listener is built on it.
#[cfg_attr(not(test), allow(dead_code))]
mod silence;
mod waiting;

pub use address::is_knock_address;
pub use authenticated::Authenticated;
pub use config::{Config, Dangerous, Denial, KeyExchange};
pub use error::{ConfigError, Error, Failure, Stage};
pub use identity::{Identity, SignError, UnsupportedKey};
pub use knock::{Mode, Refusal, Version};
pub use muxed::{MuxExt, Muxed, Muxer, Muxing};
pub use stream::{Role, TlsStream};
pub use tls::CertificateRefusal;
pub use transport::Transport;
