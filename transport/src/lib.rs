#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map, from the top, which may import everything below it, to the bottom: bytes and time in, actions out.

// A stock transport and the knock in one, while a network moves. Knows of everything below only what is public.
mod migration;

// Both halves joined, and the same over TCP, ready made.
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport;

// The first half, knock then TLS; the second, yamux with a bounded close.
mod authenticated;
mod muxed;
pub mod yamux;

// The accepting side, on a task of its own where there is one; sockets that have not knocked, outside the Swarm; the
// ordered steps of one connection, each under its deadline.
// Beside it, dials that were given up after they had knocked.
mod abandoned;
mod announce;
mod door;
mod inner;
mod judge;
mod lent;
mod listener;
mod socket;
mod upgrade;

// TLS: the handshake without alerts, the byte stream that comes of it and what that has received, configurations and the
// verifier that pins the peer.
mod handshake;
mod inbound;
mod stream;
mod tls;

// What serves all of them.
mod at_once;
mod clock;
mod config;
mod error;
mod guard;
mod identity;
mod key_file;
mod known_prefixes;
#[cfg(feature = "metrics")]
mod measured;
mod metrics;
mod network_file;
#[cfg_attr(
    not(feature = "internals"),
    allow(unreachable_pub, reason = "reachable through `internals` alone")
)]
mod random;
mod recent;
#[cfg(feature = "metrics")]
mod registered;
mod replace;
mod secret_file;
mod steps;
mod timer;
pub mod unanswered;
mod user_code;

// Pure: the `/tls` marker, what tells of our own clock, the 178-byte certificate, knock messages,
// TLS records, who may wait and until when, Diffie-Hellman.
mod address;
mod bearings;
mod certificate;
pub mod knock;
mod records;
mod silence;
mod x25519;

pub use address::is_knock_address;
pub use authenticated::Authenticated;
pub use config::{Config, Dangerous, Denial, KeyExchange};
pub use error::{ConfigError, Error, Failure, Stage};
pub use identity::{Identity, SignError, UnsupportedKey};
pub use key_file::{KeyError, KeyFileError, keypair_from_bytes, keypair_from_file};
pub use knock::v3::{Network, NetworkError};
pub use knock::{Mode, Refusal, Version};
pub use migration::{Migration, MigrationError, MigrationMuxer, MigrationStage, UnknownStage};
pub use muxed::{MuxExt, Muxed, Muxer, Muxing};
pub use network_file::NetworkFileError;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use registered::AlreadyRegistered;
pub use secret_file::{SecretFileError, read_secret_file};
pub use stream::{Role, TlsStream};
pub use tls::CertificateRefusal;
pub use transport::Transport;
pub use unanswered::Unanswered;
pub use user_code::HookPanicked;

// Types of other crates in public signatures.
pub use futures::future::BoxFuture;
pub use libp2p_core::{ConnectedPoint, Endpoint, Multiaddr};
pub use libp2p_identity::{Keypair, PeerId};
#[cfg(feature = "tokio")]
pub use libp2p_tcp;
#[cfg(feature = "metrics")]
pub use prometheus_client;
pub use rustls::KeyLog;

/// Behind another transport the builder has no `with_quic`, and behind DNS no other transport, as
/// the README says:
///
/// ```compile_fail
/// let _ = libp2p::SwarmBuilder::with_new_identity()
///     .with_tokio()
///     .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
///     .unwrap()
///     .with_quic();
/// ```
///
/// ```compile_fail
/// let _ = libp2p::SwarmBuilder::with_new_identity()
///     .with_tokio()
///     .with_quic()
///     .with_dns()
///     .unwrap()
///     .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)));
/// ```
///
/// ```
/// let _ = libp2p::SwarmBuilder::with_new_identity()
///     .with_tokio()
///     .with_quic()
///     .with_other_transport(|key| Ok(libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?)))
///     .unwrap()
///     .with_dns()
///     .unwrap();
/// ```
#[cfg(all(doctest, feature = "tokio"))]
struct OrderOfTheBuilder;

/// For this workspace's benchmarks and fuzzers. Unstable.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
