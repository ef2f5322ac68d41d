//! Streams and last activity of every connection: what only the muxer knows.
//!
//! rust-libp2p shows a behaviour neither how many streams a connection has nor when it was last
//! used. A wrapper around the transport sees both. It cannot know the Swarm's
//! [`ConnectionId`](libp2p_swarm::ConnectionId), so what it counts and what the Swarm reports are
//! joined when the Swarm announces the connection:
//!
//! 1. the one connection of that peer, in that direction, with that remote address, or else
//! 2. the one connection of that peer in that direction (a wrapper below DNS sees the resolved
//!    address, the Swarm the name), or else
//! 3. nothing: the connection's streams are unknown.
//!
//! Two that could be either are both unknown. A number that may be another connection's would be
//! worse than none.
//!
//! A stream that only keeps a connection alive ([`alive`](crate::alive)) is no use of it: it is not
//! counted, once it has said what it is for, and what it carries is no activity.

mod activity;
mod muxer;
mod purpose;
mod registry;
mod transport;

pub use activity::Activity;
#[cfg(test)]
pub(crate) use activity::Opener;
pub use muxer::{Error, Muxer, Substream};
pub use registry::Registry;
pub use transport::{Counting, Transport};
