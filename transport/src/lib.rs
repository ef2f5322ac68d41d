#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
//
// The map, from the top (may import everything below it) to the bottom (bytes and time in, actions out):
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport; // `Transport`: both halves joined // the same over TCP, ready made

mod authenticated; // first half: knock, then TLS
mod handshake; // TLS, without alerts
mod listener; // sockets that have not knocked yet, outside the Swarm
mod muxed; // second half: yamux, with a bounded close
mod stream; // the authenticated byte stream
mod tls;
mod upgrade; // the ordered steps of one connection, each under its deadline // rustls configurations and the verifier that pins the peer

mod config;
mod error;
mod metrics;

mod address; // pure: the `/tls` marker, written and parsed here only
mod certificate; // pure: the minimal certificate, 178 bytes
mod identity; // who we are and how we sign
pub mod knock; // pure: knock messages
mod waiting; // pure: who may wait, and until when

pub use authenticated::Authenticated;
pub use config::{Config, Dangerous, Denial, KeyExchange};
pub use error::{ConfigError, Error, Failure, Stage};
pub use identity::{Identity, SignError, UnsupportedKey};
pub use knock::{Mode, Refusal, Version};
pub use muxed::{MuxExt, Muxed, Muxer, Muxing};
pub use stream::{Role, TlsStream};
pub use tls::CertificateRefusal;
pub use transport::Transport;
