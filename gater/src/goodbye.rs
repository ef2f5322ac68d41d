//! Saying why, before a connection is closed.
//!
//! libp2p closes a connection without a word: whoever was trimmed dials again at once, and whoever is not wanted any more
//! tries for ever. With this protocol the side that closes opens one stream, writes one message of at most 262 bytes,
//! waits a second at most for the other side to have read it, and closes. The other side is told by an event, and does not
//! dial again for as long as it was asked not to. Nothing is said before a connection is established, and to a peer
//! that does not know the protocol nothing is said at all: its refusal of the stream is the only thing that is waited for.
//!
//! [`Gate::behaviour`](crate::Gate::behaviour) has it inside. [`Behaviour`] is for a Swarm without a gate.
//!
//! # On the wire
//!
//! Protocol `/libp2p-gater/goodbye/1.0.0`. One message, then the end of the stream, in one direction:
//!
//! ```text
//! 0  2  code, big-endian: 0 unspecified, 1 trimmed, 2 not allowed, 3 too many, 4 shutting down
//! 2  4  seconds for which it is no use to dial again, big-endian; 0 says nothing about that
//! 6  1  n
//! 7  n  text, UTF-8, for people
//! ```

mod back_off;
mod behaviour;
mod handler;
mod message;
mod metrics;

pub use back_off::{BackedOff, denied_for};
pub use behaviour::{Behaviour, Config, Event};
pub use handler::{FromHandler, Handler, Said};
pub use message::{Code, Goodbye};
pub(crate) use metrics::Metrics;
